"""Log and store in memory, complete: what every other backend has to behave like."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Self
from urllib.parse import unquote

from eventmill.backends.memory.jobs import DEAD, DUE, PARKED, RUNNING
from eventmill.backends.memory.state import State, state_of
from eventmill.backends.memory.unit import MemoryUnit
from eventmill.backends.url import Url
from eventmill.core.capabilities import Capability, Transaction
from eventmill.core.claims import Balance, Cursor, Fence, Group
from eventmill.core.clock import Clock
from eventmill.core.document import Document
from eventmill.core.errors import BackendUnavailableError, ConfigurationError
from eventmill.core.feed import LogSubscriber
from eventmill.core.job import Job
from eventmill.core.message import Message, Partition, Recorded
from eventmill.core.reading import Page, Pending, Trimmed, Types
from eventmill.core.rows import Rows, SqlParameters
from eventmill.core.stream import Query, StoredEvent, Stream, stored


class MemoryBackend(LogSubscriber):
    """Publisher, Log and Store in one; nothing survives the process.

    name: backends of one name share their data, within one event loop, for as long as one of them
    is kept; None for data of its own. Closing keeps the data for the next opening of the same object.
    """

    offers = frozenset(Capability)

    def __init__(self, clock: Clock, *, name: str | None = None) -> None:
        self._clock = clock
        self._shared = state_of(name)
        self._open = False

    @classmethod
    def from_url(cls, url: Url, clock: Clock, *, readonly: bool = False) -> Self:
        """`memory://` is one App's own; backends of one `memory://NAME` share it within one event loop."""
        url.allow()
        return cls(clock, name=unquote(url.location + url.path) or None)

    async def __aenter__(self) -> Self:
        if self._open:
            raise ConfigurationError("this MemoryBackend is open already; make a second one of the same name")
        self._shared.enter()
        self._open = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open = False
        self._shared.leave()

    @property
    def _state(self) -> State:
        if not self._open:
            raise BackendUnavailableError(f"memory://{self._shared.name or ''} is not open: use it in `async with`")
        return self._shared

    @property
    def _now(self) -> int:
        return int(self._clock.now() * 1000)

    # Log

    async def publish(self, messages: Sequence[Message]) -> Sequence[int]:
        unit = MemoryUnit(self._state, self._clock, None, None)
        unit.append(messages)
        await (await unit.finish())
        return unit.positions

    async def declare(self, topics: Mapping[str, int]) -> None:
        self._state.log.declare(topics)

    async def topics(self) -> Mapping[str, int]:
        return dict(self._state.log.topics)

    async def read(
        self,
        after: Mapping[Partition, int],
        *,
        limit: int,
        max_bytes: int = 16 << 20,
        types: Types | None = None,
    ) -> Page:
        return self._state.log.read(after, limit, max_bytes, types)

    async def end(self) -> Mapping[Partition, int]:
        return dict(self._state.log.ends)

    async def pending(self, after: Mapping[Partition, int], types: Types | None = None) -> Pending:
        return self._state.log.pending(after, types)

    async def report(self, group: str, after: Mapping[Partition, int]) -> None:
        self._state.log.report(group, after)

    async def trim(
        self,
        topic: str,
        *,
        older_than: float | None = None,
        max_bytes: int | None = None,
        force: bool = False,
    ) -> Trimmed:
        if older_than is None and max_bytes is None:
            raise ConfigurationError("trim() needs older_than (seconds), max_bytes, or both")
        state = self._state
        before = None if older_than is None else self._now - int(older_than * 1000)
        passed = {**state.log.watermarks, **state.groups.passed()}
        return state.log.trim(topic, passed, before=before, max_bytes=max_bytes, force=force)

    async def trimmed(self, topics: Collection[str]) -> Mapping[str, int]:
        horizons = self._state.log.horizons
        return {topic: horizons[topic] for topic in topics if topic in horizons}

    async def changed(self, seen: int, timeout: float) -> int:
        return await self._state.changes.beyond(seen, timeout, self._clock)

    # Streams

    async def read_stream(
        self, stream: Stream, *, after: int = 0, upto: int | None = None, limit: int, backward: bool = False
    ) -> Sequence[Recorded]:
        return self._state.log.streams.read(stream, after, upto, limit, backward)

    async def events(
        self, stream: Stream, *, after: int = 0, upto: int | None = None, limit: int
    ) -> Sequence[StoredEvent]:
        return [stored(record) for record in await self.read_stream(stream, after=after, upto=upto, limit=limit)]

    async def version(self, stream: Stream) -> int:
        return self._state.log.streams.version(stream)

    async def read_all(
        self,
        *,
        after: int = 0,
        limit: int,
        max_bytes: int = 16 << 20,
        types: Types | None = None,
        topics: Collection[str] | None = None,
        queries: Sequence[Query] | None = None,
    ) -> tuple[Sequence[Recorded], int]:
        return self._state.log.read_all(after, limit, max_bytes, types, topics, queries)

    async def streams(self, topic: str, *, after: str = "", limit: int) -> Sequence[tuple[Stream, int]]:
        return self._state.log.streams.of(topic, after, limit)

    # Units of work

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        unit = self.unit()
        try:
            yield unit
            durable = await unit.finish()
        except BaseException:
            await unit.discard()
            raise
        await durable

    async def scrub(self) -> None:
        """Nothing of what was deleted is left."""

    async def document(self, key: str) -> Document | None:
        return self._state.documents.seen(key, ())

    def unit(self, claim: Cursor | Job | None = None, fence: Fence | None = None) -> MemoryUnit:
        return MemoryUnit(self._state, self._clock, claim, fence)

    # Groups

    async def enroll(self, group: str, types: Types | None, partitions: Collection[Partition]) -> None:
        self._state.groups.enroll(group, types, partitions)

    async def balance(self, group: str, member: str, partitions: Collection[Partition], lease: float) -> Balance:
        return self._state.groups.balance(group, member, partitions, self._clock.now(), lease)

    async def generation(self, group: str) -> int:
        known = self._state.groups.by_name.get(group)
        return known.seen(self._clock.now()) if known else 0

    async def release(self, group: str, member: str, partitions: Collection[Partition] | None) -> None:
        state = self._state
        state.groups.release(group, member, partitions)
        if partitions is None:
            state.jobs.release(group, member)
        state.changes.note()

    def beat(self, members: Collection[str], lease: float) -> None:
        now = self._clock.now()
        for held in (*self._state.groups.leases(), *self._state.jobs.leases()):
            if held.member in members:
                held.extend(now, lease)

    async def bury(self, incarnation: str) -> None:
        state = self._state
        prefix = f"{incarnation}/"
        state.groups.bury(prefix)
        for lease in state.jobs.leases():
            if lease.member.startswith(prefix):
                lease.end()
        state.changes.note()

    async def cursors(self, group: str) -> Mapping[Partition, int]:
        return self._state.groups.cursors(group)

    async def query(self, sql: str, parameters: SqlParameters = ()) -> Rows:
        async with self.transaction() as transaction:
            return await transaction.execute(sql, parameters)

    async def primary_key(self, table: str) -> Sequence[str]:
        return self._state.tables.primary_key(table)

    async def groups(self) -> Sequence[Group]:
        now = self._clock.now()
        found = []
        for name, known in sorted(self._state.groups.by_name.items()):
            holders = [place.holder for place in known.places.values()]
            states = [job.state for job in self._state.jobs if job.queue == name]
            found.append(
                Group(
                    name,
                    known.types,
                    {partition: place.position for partition, place in sorted(known.places.items())},
                    {
                        member: holders.count(member)
                        for member, lease in sorted(known.members.items())
                        if not lease.ended(now)
                    },
                    retrying=states.count(DUE) + states.count(RUNNING),
                    parked=states.count(PARKED),
                    dead=states.count(DEAD),
                )
            )
        return found

    async def forget(self, group: str) -> None:
        state = self._state
        state.groups.by_name.pop(group, None)
        state.log.watermarks.pop(group, None)
        state.jobs.forget(group)
        for mark in [mark for mark in state.inbox if mark[0] == group]:
            del state.inbox[mark]

    async def received(self, group: str, ids: Collection[str]) -> Collection[tuple[str, str]]:
        return {(id_, source) for name, source, id_ in self._state.inbox if name == group and id_ in ids}

    async def documents(self, prefix: str, *, after: str = "", limit: int = 100) -> Sequence[Document]:
        return self._state.documents.listed(prefix, after, limit)

    # Jobs

    async def claim(self, queue: str, member: str, *, limit: int, lease: float, alone: int = 1) -> Sequence[Job]:
        return self._state.jobs.claim(queue, member, limit, self._clock.now(), lease, alone)

    async def take(self, reference: str, member: str, *, lease: float) -> Job | None:
        return self._state.jobs.take(reference, member, self._clock.now(), lease)

    async def find(self, reference: str) -> Job | None:
        return self._state.jobs.find(reference)

    async def next_due(self, queue: str) -> int | None:
        return self._state.jobs.next_due(queue, self._clock.now())

    async def overdue(self, queue: str) -> Pending:
        return self._state.jobs.overdue(queue, self._clock.now())

    async def jobs(
        self, queue: str | None = None, *, state: str | None = None, limit: int = 100, after_id: int = 0
    ) -> Sequence[Job]:
        found = [
            job
            for job in self._state.jobs
            if job.id > after_id and queue in (None, job.queue) and state in (None, job.state)
        ]
        return found[:limit]

    async def replay(self, ids: Collection[int]) -> int:
        count = self._state.jobs.replay(ids, self._now)
        self._state.changes.note()
        return count

    async def skip(self, ids: Collection[int]) -> int:
        count = self._state.jobs.skip(ids, self._now)
        self._state.changes.note()
        return count

    async def prune(self, *, inbox_older_than: float, dead_older_than: float) -> int:
        state = self._state
        now = self._clock.now()
        marks = [mark for mark, at in state.inbox.items() if at < now - inbox_older_than]
        for mark in marks:
            del state.inbox[mark]
        before = (now - dead_older_than) * 1000
        dead = [job.id for job in state.jobs if job.state == DEAD and job.due < before]
        return len(marks) + await self.skip(dead)

    async def occupied(self, queue: str, lanes: Collection[str]) -> Collection[str]:
        return self._state.jobs.occupied(queue, lanes)
