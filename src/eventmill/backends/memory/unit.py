"""One unit of work: staged, checked as a whole, then applied as a whole."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Collection, Mapping, Sequence

from eventmill.backends.memory.documents import Put
from eventmill.backends.memory.jobs import Settlement
from eventmill.backends.memory.state import State
from eventmill.core.admission import Admission, to_store
from eventmill.core.claims import Cursor, Fence
from eventmill.core.clock import Clock
from eventmill.core.document import Document
from eventmill.core.errors import (
    ConfigurationError,
    DuplicateError,
    LeaseLostError,
    OutsideTransactionError,
    TagConflictError,
)
from eventmill.core.job import Job
from eventmill.core.message import Message, Partition
from eventmill.core.rows import Rows, SqlParameters
from eventmill.core.stream import Absence, Append, Stream, closing
from eventmill.core.tracker import Tracker


class MemoryUnit:
    """See `eventmill.core.capabilities.Unit`. From its first `get` or `execute` to its end it has the turn."""

    def __init__(self, state: State, clock: Clock, claim: Cursor | Job | None, fence: Fence | None) -> None:
        if isinstance(claim, Cursor) and fence is None:
            raise ConfigurationError("unit(claim=Cursor) needs the fence of the member that holds the partition")
        self._state = state
        self._clock = clock
        self._claim = claim
        self._fence = fence
        self._appends: list[Message | Append] = []
        self._conditions: list[Absence] = []
        self._sends: list[Job] = []
        self._puts: list[Put] = []
        self._settlements: list[Settlement] = []
        self._held: list[tuple[Job, str]] = []
        self._let_go: list[tuple[str, str]] = []
        self._marks: list[tuple[Cursor, Tracker, int]] = []
        self._received: list[tuple[str, str, str]] = []
        self._has_turn = False
        self._ended = False
        self.positions: Sequence[int] = ()

    @property
    def untouched(self) -> bool:
        return not (
            self._has_turn
            or self._appends
            or self._conditions
            or self._sends
            or self._puts
            or self._settlements
            or self._marks
            or self._received
        )

    def append(self, messages: Sequence[Message]) -> None:
        self._require_open()
        self._appends.extend(messages)

    def append_to(self, append: Append) -> None:
        self._require_open()
        self._appends.append(append)

    def require(self, condition: Absence) -> None:
        self._require_open()
        self._conditions.append(condition)

    def send(self, jobs: Sequence[Job]) -> None:
        self._require_open()
        self._sends.extend(jobs)

    def put(self, key: str, data: bytes | None, *, expected: int | None) -> None:
        self._require_open()
        self._puts.append(Put(key, data, expected))

    def settle(self, job: Job, *, retry_at: int | None = None, dead: bool = False) -> None:
        self._require_open()
        self._settlements.append(Settlement(job, retry_at, dead))

    def hold(self, job: Job, lane: str) -> None:
        self._require_open()
        self._held.append((job, lane))

    def let_go(self, queue: str, lane: str) -> None:
        self._require_open()
        self._let_go.append((queue, lane))

    def mark(self, cursor: Cursor, tracker: Tracker, position: int) -> None:
        self._require_open()
        if self._fence is None:
            raise ConfigurationError("mark() needs the fence of the member that holds the partition: unit(..., fence)")
        self._marks.append((cursor, tracker, position))

    def receive(self, group: str, message: Message) -> None:
        self._require_open()
        self._received.append((group, message.source, message.id))

    async def get(self, key: str) -> Document | None:
        await self._take_turn()
        return self._state.documents.seen(key, self._puts)

    async def cursors(self, group: str) -> Mapping[Partition, int]:
        await self._take_turn()
        return self._state.groups.cursors(group)

    async def hurry(self, seconds: float) -> None:
        await self._take_turn()  # whoever has the turn waits for nobody

    async def get_many(self, keys: Collection[str]) -> Mapping[str, Document]:
        await self._take_turn()
        found = {key: self._state.documents.seen(key, self._puts) for key in keys}
        return {key: document for key, document in found.items() if document is not None}

    async def execute(self, sql: str, parameters: SqlParameters = ()) -> Rows:
        await self._take_turn()
        return self._state.tables.execute(sql, parameters)

    async def executemany(self, sql: str, rows: Sequence[SqlParameters]) -> int:
        await self._take_turn()
        return self._state.tables.executemany(sql, rows)

    async def finish(self) -> Awaitable[object]:
        await self._take_turn()
        # No `await` from here to the end: nobody sees half of it.
        try:
            messages, documents = self._check()
            self._state.tables.keep()
        except BaseException:
            self._undo()
            raise
        self._apply(messages, documents)
        self._end()
        durable: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        durable.set_result(None)
        return durable

    async def discard(self) -> None:
        if not self._ended:
            self._undo()

    def _check(self) -> tuple[Sequence[Message], Mapping[str, Document | None]]:
        """Everything that can refuse the unit; returns what is to be appended, and what becomes of the documents."""
        if self._fence is not None and not self._fence.valid:
            raise LeaseLostError(
                f"group {self._fence.group!r}: an earlier commit of {self._fence.member} failed; "
                "start again from the stored cursors"
            )
        log = self._state.log
        log.check([message for entry in self._appends for message in _messages(entry)])
        if isinstance(self._claim, Job):
            self._state.jobs.require(self._claim, self._fence.member if self._fence else None)
        if self._fence is not None:
            claims = [self._claim] if isinstance(self._claim, Cursor) else []
            for cursor in (*claims, *(cursor for cursor, _, _ in self._marks)):
                self._state.groups.require(cursor, self._fence)
        settled: set[int] = set()
        for settlement in self._settlements:
            self._state.jobs.require(settlement.job)
            if settlement.job.id in settled:
                raise LeaseLostError(f"job {settlement.job.id} was settled twice in one unit")
            settled.add(settlement.job.id)
        for job, _ in self._held:
            self._state.jobs.require(job)
        received: set[tuple[str, str, str]] = set()
        for mark in self._received:
            if mark in self._state.inbox or mark in received:
                group, source, id_ = mark
                raise DuplicateError(f"group {group!r} has handled message {id_} from {source} already")
            received.add(mark)
        for condition in self._conditions:
            found = log.latest(condition.queries, condition.after)
            if found is not None:
                raise TagConflictError("an event with these tags", after=condition.after, found=found)
        documents = self._state.documents.checked(self._puts)
        Admission(log.streams.version, self._closed, log.streams.stored).admit(self._appends)
        return to_store(self._appends), documents

    def _closed(self, stream: Stream) -> str | None:
        """How a stream was closed before this unit."""
        document = self._state.documents.seen(closing(stream), ())
        return document.data.decode() if document else None

    def _apply(self, messages: Sequence[Message], documents: Mapping[str, Document | None]) -> None:
        state = self._state
        now = self._clock.now()
        milliseconds = int(now * 1000)
        self.positions = state.log.append(messages, milliseconds)
        done = 0
        for entry in self._appends:
            count = len(_messages(entry))
            if isinstance(entry, Append):
                if entry.appended.repeated:
                    continue
                entry.appended.positions = tuple(self.positions[done : done + count])
                state.log.streams.note(entry)
            done += count
        # Ends come before new jobs: one that follows in the same lane then finds it free.
        for settlement in self._settlements:
            state.jobs.settle(settlement, milliseconds)
        for job, lane in self._held:
            state.jobs.hold(job, lane)
        for queue, lane in self._let_go:
            state.jobs.let_go(queue, lane)
        state.jobs.send(self._sends)
        state.documents.write(documents)
        state.inbox.update(dict.fromkeys(self._received, now))
        for _, tracker, position in self._marks:
            tracker.done(position)
        for cursor, tracker, _ in self._marks:
            if self._fence is not None:
                state.groups.advance(self._fence.group, cursor.partition, *tracker.cursor())
        if self._appends or self._sends or self._settlements or self._let_go or self._marks:
            state.changes.note()

    async def _take_turn(self) -> None:
        self._require_open()
        if not self._has_turn:
            await self._state.turn.acquire()
            self._has_turn = True
            self._state.tables.begin()

    def _undo(self) -> None:
        if self._has_turn:
            self._state.tables.undo()
        self._end()

    def _end(self) -> None:
        self._ended = True
        if self._has_turn:
            self._has_turn = False
            self._state.turn.release()

    def _require_open(self) -> None:
        if self._ended:
            raise OutsideTransactionError("this transaction has ended; open another one for further work")


def _messages(entry: Message | Append) -> Sequence[Message]:
    return entry.messages if isinstance(entry, Append) else (entry,)
