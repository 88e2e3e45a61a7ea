"""Stores in a given state, made without running anything."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import msgspec

from eventmill.backends.sqlite.backend import SqliteBackend
from eventmill.core.job import Job, JobError
from eventmill.core.message import Message, Partition
from eventmill.core.reading import Types

GROUP = "bakery.bake"


def message(number: int, key: str | None = "a", *, type_: str = "bread.ordered", data: bytes | None = None) -> Message:
    """The `number`th message."""
    body = f'{{"order":"{key}","loaves":{number}}}'.encode() if data is None else data
    topic = type_.split(".")[0]
    return Message(
        id=f"m{number}", source="test", type=type_, topic=topic, time=1_700_000_000_000_000, data=body, key=key
    )


def inside(path: Path, work: Callable[[SqliteBackend], Awaitable[None]]) -> None:
    """Do something with the store of a file."""

    async def run() -> None:
        async with SqliteBackend(str(path)) as store:
            await work(store)

    asyncio.run(run())


def log(path: Path, *messages: Message) -> None:
    """A log with these messages."""

    async def work(store: SqliteBackend) -> None:
        await store.publish(messages)

    inside(path, work)


def group(path: Path, name: str = GROUP, *, types: Types | None = None, topic: str = "bread") -> None:
    """A group without members that has handled nothing yet."""

    async def work(store: SqliteBackend) -> None:
        await store.declare({topic: 16})
        await store.enroll(name, types, [Partition(topic, number) for number in range(16)])

    inside(path, work)


def dead(path: Path, messages: Sequence[Message], *, queue: str = GROUP) -> None:
    """Jobs of a group: the first of each key is dead, the others of that key are parked behind it."""

    async def work(store: SqliteBackend) -> None:
        async with store.transaction() as tx:
            tx.send([Job(queue=queue, message=each, lane=each.lane, position=int(each.id[1:])) for each in messages])
        for job in await store.claim(queue, "one/1", limit=100, lease=60.0):
            trace = "Traceback\n  \x1b]0;owned\x07"
            errors = [JobError(at=1_700_000_000_000, attempt=1, error="ValueError: \x1b[31mred", trace=trace)]
            async with store.transaction() as tx:
                tx.settle(msgspec.structs.replace(job, errors=errors), dead=True)
        await store.release(queue, "one/1", None)

    inside(path, work)
