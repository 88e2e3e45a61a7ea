"""Apps that note what they handle, for the cases of subscriptions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from eventmill.app import App
from eventmill.core.event import Event
from eventmill.runtime.transaction import Transaction
from eventmill.settings import Settings
from eventmill.testing.conformance.suite import Conformance, Stage

NAME = "conformance"
SETTINGS = Settings(lease=3.0, grace=10.0)
CREATE = "CREATE TABLE IF NOT EXISTS effects (place INTEGER PRIMARY KEY, reader TEXT, key TEXT, number INTEGER)"
INSERT = "INSERT INTO effects (reader, key, number) VALUES (?, ?, ?)"
SELECT = "SELECT reader, key, number FROM effects ORDER BY place"


class Step(Event, name="conformance.step", key="key"):
    key: str
    number: int


class Jump(Event, name="conformance.step.jump", key="key"):
    key: str
    number: int


class Rest(Event, name="conformance.rest", key="key"):
    key: str
    number: int


class Elsewhere(Event, name="elsewhere.step", key="key"):
    key: str
    number: int


class Effect(NamedTuple):
    """What one handling wrote, in the order of the commits."""

    reader: str
    key: str
    number: int


Effects = list[Effect]


async def effects(app: App) -> Effects:
    async with app.transaction() as tx:
        return [Effect(*row) for row in await tx.execute(SELECT)]


async def until(app: App, true: Callable[[Effects], bool], seconds: float = 30.0) -> Effects:
    """Wait until the effects are as expected; returns them."""
    for _ in range(int(seconds / 0.02)):
        found = await effects(app)
        if true(found):
            return found
        await asyncio.sleep(0.02)
    raise AssertionError(f"still not so after {seconds:g} s: {len(found)} effects, the last are {found[-5:]}")


async def waiting(true: Callable[[], Awaitable[bool]], seconds: float = 30.0) -> None:
    for _ in range(int(seconds / 0.02)):
        if await true():
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"still not so after {seconds:g} s")


@asynccontextmanager
async def running(*apps: App) -> AsyncIterator[None]:
    """Let the Apps handle during the block; stop them in good order after it."""
    for app in apps:
        await app.open()
    tasks = [asyncio.create_task(app.run()) for app in apps]
    try:
        yield
    finally:
        for app in apps:
            app.stop()
        await asyncio.gather(*tasks)


def steps(keys: int, each: int, first: int = 0) -> list[Step]:
    """Keys in turn, the numbers of each growing."""
    return [Step(key=f"key{key}", number=number) for number in range(first, first + each) for key in range(keys)]


def in_order(found: Sequence[Effect], reader: str | None = None) -> dict[str, list[int]]:
    """The numbers handled for each key, in their order."""
    numbers: dict[str, list[int]] = {}
    for effect in found:
        if reader in (None, effect.reader):
            numbers.setdefault(effect.key, []).append(effect.number)
    return numbers


class SubscriberCases(Conformance[Any]):
    """A binding defines `app`. Cases with several members need the feature `shared`.

    effects_table: creates the table of effects where `place` counts up by other words than SQLite's.
    """

    effects_table: ClassVar[str] = CREATE

    def app(self, place: Path, settings: Settings) -> App:
        """An App named `conformance` at this place: the same place every time."""
        raise NotImplementedError(f"{type(self).__name__}.app(place, settings) must return an App")

    @asynccontextmanager
    async def reader(
        self, stage: Stage[Any], label: str = "reader", *, group: str = "readers", **options: Any
    ) -> AsyncIterator[App]:
        """An App with one handler that writes an effect for each step."""
        async with self.apart(stage) as app:

            @app.on(Step, group=group, **options)
            async def write(event: Step, tx: Transaction) -> None:
                await tx.execute(INSERT, (label, event.key, event.number))

            yield app

    @asynccontextmanager
    async def apart(self, stage: Stage[Any]) -> AsyncIterator[App]:
        """An App without handlers yet; it closes at the end."""
        app = self.app(stage.place, SETTINGS)

        @app.setup
        async def create(tx: Transaction) -> None:
            await tx.execute(self.effects_table)

        try:
            yield app
        finally:
            await app.close()
