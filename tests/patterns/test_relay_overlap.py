"""The relay has several batches on their way, and no key in two of them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from eventmill import App, Event, Settings
from eventmill.core.errors import BackendUnavailableError
from eventmill.core.message import Message
from eventmill.patterns.relay import AT_ONCE, BATCH

KEYS = 4 * BATCH
EACH = 4


class OverlapMoved(Event, name="overlap.moved", key="account"):
    account: str
    number: int


class Trial:
    """A broker that takes its time, now and then refuses, and takes down what it was given."""

    def __init__(self, seed: int) -> None:
        self.stored: list[Message] = []
        self.most = 0
        self._rng = random.Random(seed)
        self._under_way: list[set[str | None]] = []

    async def publish(self, messages: Sequence[Message]) -> Sequence[int]:
        keys = {message.key for message in messages}
        assert not any(keys & others for others in self._under_way), "a key is in two batches at a time"
        self._under_way.append(keys)
        self.most = max(self.most, len(self._under_way))
        try:
            await asyncio.sleep(self._rng.uniform(0, 0.01))
            whole = self._rng.random() > 0.1
            taken = messages if whole else messages[: self._rng.randrange(len(messages))]
            self.stored += taken
            if not whole:
                raise self._rng.choice([BackendUnavailableError, ValueError])("a part was taken, and then it failed")
        finally:
            self._under_way.remove(keys)
        return ()


@pytest.mark.parametrize("seed", [1, 2])
def test_order_per_key_holds_with_several_batches_on_their_way(tmp_path: Path, seed: int) -> None:
    trial = Trial(seed)

    async def main() -> None:
        app = App(
            f"sqlite:///{tmp_path}/shop.db", broker="memory://", name="overlap", settings=Settings(lease=5.0),
            rng=random.Random(seed),
        )  # fmt: skip
        async with app, asyncio.timeout(60):
            app.broker.publish = trial.publish  # type: ignore[method-assign]
            for number in range(EACH):
                await app.publish(*(OverlapMoved(f"a{key}", number) for key in range(KEYS)))
            running = asyncio.create_task(app.run())
            while len({message.id for message in trial.stored}) < EACH * KEYS or await app.store.jobs():
                await asyncio.sleep(0.05)
            app.stop()
            await running

    asyncio.run(main())
    seen: dict[str | None, int] = {}
    first: set[str] = set()
    for message in trial.stored:
        if message.id not in first:
            first.add(message.id)
            assert message.sequence == seen.get(message.key, 0) + 1, "a later message of a key came first"
            seen[message.key] = message.sequence
    assert 2 <= trial.most <= AT_ONCE
