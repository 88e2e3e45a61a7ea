"""Streams on SQLite against the memory backend: the same units told to both, alone and several at a time."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from lockstep import Lockstep, Side, plain

from eventmill.core.errors import EventmillError
from eventmill.core.message import Message
from eventmill.core.stream import ANY, Absence, Append, Query, Stream, closing

STREAMS = [Stream("order", "a"), Stream("order", "b"), Stream("stock", "a")]
TAGS = ("x", "y", "z")

QUERIED = [[("x",)], [("y",)], [("x", "y")], [("x",), ("z",)], [("x", "y"), ("y", "z")]]

streams = st.sampled_from(STREAMS)
tags = st.lists(st.sampled_from(TAGS), unique=True, max_size=2).map(tuple)


class Part(NamedTuple):
    """One step of a unit. behind: how far the expected version is off; None for any. known: repeatable ids of these."""

    kind: str
    stream: Stream
    number: int
    behind: int | None
    known: int | None
    tags: tuple[str, ...]


parts = st.builds(
    Part,
    st.sampled_from(("append", "append", "append", "condition", "publish", "require")),
    streams,
    st.integers(1, 3),
    st.sampled_from((None, 0, 0, 0, 1, -1)),
    st.sampled_from((None, None, 0, 1)),
    tags,
)


class Streams(RuleBasedStateMachine):
    """Units with appends, conditions and messages in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.lockstep = Lockstep(self.folder)
        self.both = self.lockstep.both
        self.count = 0

    def teardown(self) -> None:
        self.lockstep.close()
        shutil.rmtree(self.folder)

    def message(self, stream: Stream, tags: tuple[str, ...], id_: str | None = None) -> Message:
        self.count += 1
        id_ = id_ or f"m{self.count}"
        return Message(
            id=id_, source="story", type=f"{stream.topic}.told", topic=stream.topic, time=0, data=b"1", key=stream.key,
            correlationid=id_, tags=tags,
        )  # fmt: skip

    def versions(self) -> dict[Stream, int]:
        memory = self.lockstep.sides[0].backend
        return {stream: self.lockstep.loop.run_until_complete(memory.version(stream)) for stream in STREAMS}

    def staged(self, unit: Sequence[Part]) -> list[Any]:
        """What to give to the unit of each side; appends are made anew for each, as they are filled in."""
        versions = self.versions()
        steps: list[Any] = []
        for part in unit:
            expected = ANY if part.behind is None else max(0, versions[part.stream] + part.behind)
            if part.kind == "require":
                names = frozenset(part.tags or ("x",))
                steps.append(Absence([Query(names)], max(0, self.count - 3 * part.number)))
            elif part.kind == "publish":
                steps.append([self.message(part.stream, part.tags) for _ in range(part.number)])
            elif part.kind == "condition":
                steps.append((part.stream, [], expected, False))
            else:
                known = None if part.known is None else [f"known{part.known + n}" for n in range(part.number)]
                messages = [
                    self.message(part.stream, part.tags, known[n] if known else None) for n in range(part.number)
                ]
                steps.append((part.stream, messages, expected, known is not None))
        return steps

    @staticmethod
    async def told(side: Side, steps: Sequence[Any], *, reads: bool) -> Any:
        appends = []
        async with side.backend.transaction() as tx:
            if reads:
                await tx.get("anything")
            for step in steps:
                if isinstance(step, Absence):
                    tx.require(step)
                elif isinstance(step, list):
                    tx.append(step)
                else:
                    stream, messages, expected, repeatable = step
                    append = Append(stream, messages, expected, repeatable)
                    tx.append_to(append)
                    appends.append(append.appended)
        return [(list(each.positions), each.version, each.repeated) for each in appends]

    @rule(unit=st.lists(parts, min_size=1, max_size=3), reads=st.booleans())
    def alone(self, unit: Sequence[Part], reads: bool) -> None:
        steps = self.staged(unit)
        self.both(lambda side: self.told(side, steps, reads=reads))

    @rule(units=st.lists(st.lists(parts, min_size=1, max_size=2), min_size=2, max_size=5))
    def together(self, units: Sequence[Sequence[Part]]) -> None:
        """They share a commit where the store can, and one that is refused leaves the others alone."""
        steps = [self.staged(unit) for unit in units]

        async def all_of_them(side: Side) -> Any:
            found = await asyncio.gather(
                *(self.told(side, each, reads=False) for each in steps), return_exceptions=True
            )
            for each in found:
                if isinstance(each, BaseException) and not isinstance(each, EventmillError):
                    raise each
            return [
                (type(each).__name__, str(each)) if isinstance(each, BaseException) else plain(each) for each in found
            ]

        self.both(all_of_them)

    @rule(stream=streams, word=st.sampled_from((None, None, "archived")))
    def close(self, stream: Stream, word: str | None) -> None:
        async def step(side: Side) -> None:
            async with side.backend.transaction() as tx:
                tx.put(closing(stream), None if word is None else word.encode(), expected=None)
                tx.append_to(Append(stream, (), reopens=True))

        self.both(step)

    @rule(seconds=st.sampled_from((0.5, 5.0)))
    def trim(self, seconds: float) -> None:
        self.both(lambda side: side.backend.trim("order", older_than=seconds, force=True))

    @rule(seconds=st.sampled_from((0.7, 3.3)))
    def time_passes(self, seconds: float) -> None:
        self.lockstep.advance(seconds)

    @rule(stream=streams, after=st.integers(0, 6), upto=st.none() | st.integers(0, 9), limit=st.integers(0, 5),
          backward=st.booleans())  # fmt: skip
    def read(self, stream: Stream, after: int, upto: int | None, limit: int, backward: bool) -> None:
        self.both(lambda side: side.backend.read_stream(stream, after=after, upto=upto, limit=limit, backward=backward))

    @rule(names=st.sampled_from(QUERIED), after=st.integers(0, 20))
    def read_by_tags(self, names: Sequence[tuple[str, ...]], after: int) -> None:
        queries = [Query(frozenset(each)) for each in names]

        async def step(side: Side) -> Any:
            found, _ = await side.backend.read_all(after=after, limit=1000, queries=queries)
            return list(found)

        self.both(step)

    @invariant()
    def the_same_is_stored(self) -> None:
        async def step(side: Side) -> Any:
            found, after = await side.backend.read_all(limit=10_000)
            streams = [await side.backend.streams(topic, limit=10) for topic in ("order", "stock")]
            return list(found), after, streams, [await side.backend.version(stream) for stream in STREAMS]

        self.both(step)


EXPLORE = bool(os.environ.get("EXPLORE"))

Streams.TestCase.settings = settings(
    max_examples=300 if EXPLORE else 60,
    stateful_step_count=30,
    deadline=None,
    derandomize=not EXPLORE,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

TestStreams = Streams.TestCase
