"""A service that publishes through its outbox, and members of a group that handle, while harm is done."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

from eventmill import App, Settings, Transaction
from eventmill.testing.conformance.apps import CREATE, INSERT, Step, effects, in_order, running, steps, until

KEYS = 16
SETTINGS = Settings(lease=2.0, grace=10.0)


def sender(place: Path, broker: str) -> App:
    return App(f"sqlite:///{place}/sender.db", broker=broker, name="sender", settings=SETTINGS)


def reader(place: Path, broker: str, label: str = "reader") -> App:
    app = App(f"sqlite:///{place}/reader.db", broker=broker, name="reader", settings=SETTINGS)

    @app.setup
    async def tables(tx: Transaction) -> None:
        await tx.execute(CREATE)

    @app.on(Step, group="readers")
    async def write(event: Step, tx: Transaction) -> None:
        await tx.execute(INSERT, (label, event.key, event.number))

    return app


async def exercise(
    place: Path, broker: str, harm: Callable[[], Awaitable[None]], *, rounds: int, members: int = 2, pause: float = 0.02
) -> None:
    """Publish rounds of a message a key while harm is done; all must be handled once, in order, afterwards."""
    async with AsyncExitStack() as stack:
        readers = [reader(place, broker, f"reader{number}") for number in range(members)]
        apps = [*readers, sender(place, broker)]
        for app in apps:
            stack.push_async_callback(app.close)
        async with running(*apps):
            harming = asyncio.create_task(harm())  # type: ignore[arg-type]
            for number in range(rounds):
                await apps[-1].publish(*steps(KEYS, 1, number))
                await asyncio.sleep(pause)
            await harming
            await until(apps[0], lambda found: len(found) >= rounds * KEYS, 50)
            await asyncio.sleep(0.2)
        found = await effects(apps[0])
        assert in_order(found) == {f"key{key}": list(range(rounds)) for key in range(KEYS)}
