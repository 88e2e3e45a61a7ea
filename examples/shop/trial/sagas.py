"""How the checkouts stand, by the order service's own record of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator

from eventmill.patterns.saga.instance import Instance

from .. import checkout, order
from ..wiring import CHOREOGRAPHED


def instances(state: str | None = None) -> AsyncIterator[Instance]:
    sagas = order.app.choreographies(checkout.NAME) if CHOREOGRAPHED else order.app.sagas(checkout.NAME)
    return sagas.instances(state=state)


async def figures() -> dict[str, int]:
    """How many checkouts have ended how. A saga that needs attention has not ended, but waits for a person."""
    states = Counter([str(each.state) async for each in instances()])
    completed, compensated, attention = (
        states.pop(name, 0) for name in ("COMPLETED", "COMPENSATED", "NEEDS_ATTENTION")
    )
    return {
        "sagas_completed": completed,
        "sagas_compensated": compensated,
        "sagas_attention": attention,
        "sagas_open": states.total(),
    }


async def count_open() -> int:
    return (await figures())["sagas_open"]
