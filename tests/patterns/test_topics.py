"""The partition counts that an App declares where its messages are kept."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

import pytest

from eventmill import App, ConfigurationError, Event
from eventmill.backends.connect import connect
from eventmill.core.capabilities import Subscriber
from eventmill.patterns.topics import declare


class Wound(Event, name="clock.wound"):
    day: int


class Late:
    """A broker where somebody declares a topic just after it was looked for."""

    def __init__(self, broker: Subscriber, meanwhile: Mapping[str, int]) -> None:
        self._broker = broker
        self._meanwhile = dict(meanwhile)

    async def topics(self) -> Mapping[str, int]:
        return await self._broker.topics()

    async def declare(self, topics: Mapping[str, int]) -> None:
        if self._meanwhile:
            meanwhile, self._meanwhile = self._meanwhile, {}
            await self._broker.declare(meanwhile)
        await self._broker.declare(topics)


def listening() -> App:
    app = App("memory://", name="hall")

    @app.on(Wound)
    async def chime(event: Wound) -> None: ...

    return app


def test_any_count_is_right_where_none_was_said(tmp_path: Path) -> None:
    async def case() -> None:
        consumers = listening().consumers
        async with connect(f"sqlite:///{tmp_path}/broker.db") as broker:
            late = Late(broker, {"clock": 3})
            await declare(late, {}, consumers)  # type: ignore[arg-type]
            assert await broker.topics() == {"clock": 3}

    asyncio.run(case())


def test_a_count_that_was_said_must_be_the_one(tmp_path: Path) -> None:
    async def case() -> None:
        consumers = listening().consumers
        async with connect(f"sqlite:///{tmp_path}/broker.db") as broker:
            late = Late(broker, {"clock": 3})
            with pytest.raises(ConfigurationError, match="3"):
                await declare(late, {"clock": 5}, consumers)  # type: ignore[arg-type]

    asyncio.run(case())


def test_whoever_hears_of_captured_tables_declares_their_topics_as_the_capture_does(tmp_path: Path) -> None:
    """So that it does not matter which of the two services starts first."""

    async def case() -> None:
        broker = f"sqlite:///{tmp_path}/broker.db"
        hearing = App(f"sqlite:///{tmp_path}/hearing.db", broker=broker, name="hearing")
        tables = hearing.captured("legacy", tables=["customers"], partitions=4)

        @hearing.on(tables["customers"])
        async def hear(change: object) -> None: ...

        capturing = App(f"sqlite:///{tmp_path}/capturing.db", broker=broker, name="capturing")
        capturing.capture(f"sqlite:///{tmp_path}/legacy.db", tables=["customers"], name="legacy", partitions=4)
        async with hearing, capturing:
            assert (await capturing.broker.topics())["legacy.customers"] == 4

    asyncio.run(case())
