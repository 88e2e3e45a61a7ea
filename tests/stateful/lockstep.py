"""Two stores that are told the same things at the same moments, and must answer the same."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from eventmill.backends.memory import MemoryBackend
from eventmill.backends.sqlite.backend import SqliteBackend
from eventmill.core.capabilities import Unit
from eventmill.core.claims import Cursor, Fence
from eventmill.core.clock import ManualClock
from eventmill.core.errors import ConflictError, DuplicateError, LeaseLostError, StreamClosedError
from eventmill.core.job import Job
from eventmill.core.message import Message, Partition
from eventmill.core.tracker import Tracker

GROUPS = ("readers", "writers")
TOPICS = {"order": 3, "stock": 2}
PARTITIONS = tuple(Partition(topic, number) for topic, count in TOPICS.items() for number in range(count))
LEASE = 10.0

Backend = MemoryBackend | SqliteBackend


@dataclass(eq=False, slots=True)
class Held:
    """A partition in a member's hands."""

    cursor: Cursor
    tracker: Tracker
    fetched: int
    open: list[int] = field(default_factory=list)


class Side:
    """One of the two stores, and what its members hold of it."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.fences: dict[str, Fence] = {}
        self.held: dict[str, dict[Partition, Held]] = {}
        self.jobs: dict[str, dict[int, Job]] = {}

    def join(self, member: str, group: str) -> Fence:
        if member not in self.fences:
            self.fences[member] = Fence(group, member)
            self.held[member] = {}
            self.jobs[member] = {}
        return self.fences[member]

    def forget(self, member: str) -> None:
        for known in (self.fences, self.held, self.jobs):
            known.pop(member, None)  # type: ignore[attr-defined]


Answer = tuple[str, Any]


class Lockstep:
    """Runs each step on both sides and compares the answers."""

    def __init__(self, folder: Path) -> None:
        self.loop = asyncio.new_event_loop()
        self.clock = ManualClock()
        self.sides = [
            Side(MemoryBackend(self.clock)),
            Side(SqliteBackend(str(folder / "store.db"), self.clock, synchronous="normal")),
        ]

        async def enter() -> None:
            for side in self.sides:
                await side.backend.__aenter__()
                await side.backend.declare(TOPICS)

        self.loop.run_until_complete(enter())

    def close(self) -> None:
        async def leave() -> None:
            for side in self.sides:
                await side.backend.__aexit__(None, None, None)

        self.loop.run_until_complete(leave())
        self.loop.close()

    def advance(self, seconds: float) -> None:
        self.loop.run_until_complete(self.clock.advance(seconds))

    def both(self, step: Callable[[Side], Awaitable[Any]]) -> Answer:
        """The answer of both, which must be one: ("ok", value) or ("refused", the error's name)."""
        answers = [self.loop.run_until_complete(self._one(step, side)) for side in self.sides]
        memory, sqlite = answers
        assert memory == sqlite, f"memory: {memory}\nsqlite: {sqlite}"
        return memory

    @staticmethod
    async def _one(step: Callable[[Side], Awaitable[Any]], side: Side) -> Answer:
        try:
            return "ok", plain(await step(side))
        except (LeaseLostError, ConflictError, DuplicateError, StreamClosedError) as error:
            return "refused", type(error).__name__


def plain(value: Any) -> Any:
    """What must be equal of an answer: values, whatever kind of sequence holds them."""
    if isinstance(value, Message | Job):
        return msgspec.to_builtins(value)
    if isinstance(value, Partition):
        return str(value)
    if isinstance(value, msgspec.Struct):
        return {name: plain(getattr(value, name)) for name in value.__struct_fields__}
    if hasattr(value, "__dataclass_fields__"):
        return {name: plain(getattr(value, name)) for name in value.__dataclass_fields__}
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(map(str, value))
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return value


async def finish(unit: Unit) -> None:
    """End a unit as the runtime does, all or nothing."""
    try:
        durable = await unit.finish()
    except BaseException:
        await unit.discard()
        raise
    await durable
