"""One unit of work: what both kinds of it have in common, and the one that shares its transaction with others."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Collection, Mapping, Sequence
from typing import Any

from psycopg import pq

from eventmill.backends.postgres.append import prepare
from eventmill.backends.postgres.batch import Batch
from eventmill.backends.postgres.faults import conflict
from eventmill.backends.postgres.pipeline import Settle, forgotten
from eventmill.backends.postgres.placeholders import in_order, translate
from eventmill.backends.postgres.staged import Held, Settlement, Staged
from eventmill.backends.postgres.topics import Topics
from eventmill.backends.postgres.values import blob, number, text, texts
from eventmill.backends.postgres.writer import Writer
from eventmill.backends.sql.prepared import PreparedMessage
from eventmill.core.claims import Cursor, Fence
from eventmill.core.document import ABSENT, Document
from eventmill.core.errors import ConfigurationError, LeaseLostError, UnitInterruptedError
from eventmill.core.job import Job
from eventmill.core.message import Message, Partition
from eventmill.core.rows import Rows, SqlParameters
from eventmill.core.stream import CLOSED, Absence, Append, all_of
from eventmill.core.tracker import Tracker


class Staging:
    """What a unit stages in memory until it ends. Made once a message: most of it only when it is needed."""

    __slots__ = (
        "_claim", "_conditions", "_documents", "_ended", "_entries", "_fence", "_held", "_inbox", "_jobs", "_let_go", "_marks",
        "_settlements", "_to_check",
    )  # fmt: skip

    def __init__(self, claim: Cursor | Job | None, fence: Fence | None) -> None:
        self._claim = claim
        self._fence = fence
        self._ended = False
        self._entries: list[Message | Append] | None = None
        self._conditions: list[Absence] | None = None
        self._to_check = False  # whether there are appends or conditions
        self._jobs: list[Job] | None = None
        self._documents: list[tuple[str, bytes | None, int | None]] | None = None
        self._settlements: list[tuple[Job, int | None, bool]] | None = None
        self._inbox: list[tuple[str, Message]] | None = None
        self._held: list[tuple[Job, str]] | None = None
        self._let_go: list[tuple[str, str]] | None = None
        self._marks: list[tuple[Cursor, Tracker, int]] | None = None

    def _refuse_if_ended(self) -> None:
        if self._ended:
            raise ConfigurationError("this transaction has ended; use it inside its `async with` or handler only")

    @property
    def untouched(self) -> bool:
        return not (
            self._touched
            or self._entries
            or self._conditions
            or self._jobs
            or self._documents
            or self._settlements
            or self._inbox
            or self._marks
        )

    @property
    def _touched(self) -> bool:
        """Whether it has run, or is about to run, a statement."""
        raise NotImplementedError

    def append(self, messages: Sequence[Message]) -> None:
        self._refuse_if_ended()
        self._entries = [*(self._entries or ()), *messages]

    def append_to(self, append: Append) -> None:
        self._refuse_if_ended()
        self._entries = [*(self._entries or ()), append]
        self._to_check = True

    def require(self, condition: Absence) -> None:
        self._refuse_if_ended()
        self._conditions = [*(self._conditions or ()), condition]
        self._to_check = True

    def send(self, jobs: Sequence[Job]) -> None:
        self._refuse_if_ended()
        self._jobs = [*(self._jobs or ()), *jobs]

    def put(self, key: str, data: bytes | None, *, expected: int | None) -> None:
        self._refuse_if_ended()
        if self._documents is None:
            self._documents = []
        self._documents.append((key, data, expected))

    def settle(self, job: Job, *, retry_at: int | None = None, dead: bool = False) -> None:
        self._refuse_if_ended()
        self._settlements = [*(self._settlements or ()), (job, retry_at, dead)]

    def hold(self, job: Job, lane: str) -> None:
        self._refuse_if_ended()
        self._held = [*(self._held or ()), (job, lane)]

    def let_go(self, queue: str, lane: str) -> None:
        self._refuse_if_ended()
        self._let_go = [*(self._let_go or ()), (queue, lane)]

    def mark(self, cursor: Cursor, tracker: Tracker, position: int) -> None:
        self._refuse_if_ended()
        if self._marks is None:
            self._marks = [(cursor, tracker, position)]
        else:
            self._marks.append((cursor, tracker, position))

    def receive(self, group: str, message: Message) -> None:
        self._refuse_if_ended()
        self._inbox = [*(self._inbox or ()), (group, message)]

    def _as_staged(self, key: str, found: Document | None) -> Document | None:
        """The document as this unit must see it: with what it has staged itself."""
        version, data = (ABSENT, None) if found is None else (found.version, found.data)
        for staged, value, _ in self._documents or ():
            if staged == key:
                version, data = (ABSENT, None) if value is None else (version + 1, value)
        return None if data is None else Document(key, version, data)

    def _many_as_staged(self, keys: Collection[str], rows: Sequence[Sequence[Any]]) -> dict[str, Document]:
        stored = {key: Document(key, version, data) for key, version, data in rows}
        if not self._documents:
            return stored
        seen = {key: self._as_staged(key, stored.get(key)) for key in keys}
        return {key: document for key, document in seen.items() if document is not None}

    def _fill(self, staged: Staged[object], now: int) -> None:
        """Stage settlements, claims and inbox marks with those of others. Raises UnitInterruptedError where this
        cannot share with them."""
        claim, fence, marks = self._claim, self._fence, self._marks
        member = fence.member if fence else None
        for job, lane in self._held or ():
            staged.hold_job(self, Held(job, member, lane))
        for queue, lane in self._let_go or ():
            staged.let_go(queue, lane)
        if not self._settlements and not self._inbox and marks and fence and len(marks) == 1 and marks[0][0] is claim:
            # What nearly every unit is.
            if staged.conflicting(marks[0][0], fence):
                raise UnitInterruptedError("another unit of this commit stands on the same partition otherwise")
            staged.hold(self, marks[0][0], fence)
            return
        settled = {job.id for job, *_ in (*(self._settlements or ()), *(self._held or ()))}
        for job, retry_at, dead in self._settlements or ():
            if retry_at is not None:
                staged.settle(self, Settlement(job, member, "retry", retry_at))
            else:
                staged.settle(self, Settlement(job, member, "bury" if dead else "finish", now))
        if isinstance(self._claim, Job) and self._claim.id not in settled:
            staged.settle(self, Settlement(self._claim, member, "hold", 0))
        if self._fence is not None:
            held = [cursor for cursor, _, _ in self._marks or ()]
            if isinstance(self._claim, Cursor):
                held.append(self._claim)
            for cursor in held:
                if staged.conflicting(cursor, self._fence):
                    raise UnitInterruptedError("another unit of this commit stands on the same partition otherwise")
                staged.hold(self, cursor, self._fence)
        elif self._marks or self._claim:
            raise ConfigurationError("a claim needs the fence of its member")
        for group, message in self._inbox or ():
            if not staged.receive(self, group, message):
                raise UnitInterruptedError("another unit of this commit receives the same message")


class SharedUnit(Staging):
    """A handler's unit: on the writer's connection, beside those of other keys."""

    __slots__ = ("_batch", "_entering", "_executed", "_over", "_topics", "_waiters", "_waits_for", "_writer")

    def __init__(self, writer: Writer, topics: Topics, claim: Cursor | Job | None, fence: Fence | None) -> None:
        super().__init__(claim, fence)
        self._writer = writer
        self._topics = topics
        self._batch: Batch | None = None
        self._entering: asyncio.Future[None] | None = None
        self._executed = False
        self._over: Exception | None = None
        self._waits_for: SharedUnit | None = None
        self._waiters: list[asyncio.Future[None]] | None = None

    @property
    def _touched(self) -> bool:
        return self._batch is not None or self._entering is not None

    async def _enter(self) -> Batch:
        while self._batch is None:
            if self._entering is not None:
                await self._entering  # a statement of this very unit is on its way in
                continue
            self._refuse_if_ended()
            self._refuse_if_fenced()
            batch = self._writer.try_join(self)
            if batch is None:
                self._entering = asyncio.get_running_loop().create_future()
                try:
                    batch = await self._writer.join(self)
                finally:
                    self._entering.set_result(None)
                    self._entering = None
                if self._fence is not None and not self._fence.valid:
                    self._writer.leave(batch, self, undo=False)
                    self._refuse_if_fenced()
            if self._fence is not None:
                batch.fences.add(self._fence)
            self._batch = batch
        return self._batch

    def _refuse_if_fenced(self) -> None:
        fence = self._fence
        if fence is not None and not fence.valid:
            raise LeaseLostError(f"{fence.group}: a commit that {fence.member} took part in failed; it starts again")

    def _refuse_if_failed(self, batch: Batch) -> None:
        if self._over is not None:
            raise ConfigurationError(
                "a statement of this transaction has failed, and PostgreSQL takes no further ones after that, even where "
                "the error was caught: let it end, or ask before (INSERT … ON CONFLICT DO NOTHING)"
            ) from self._over
        if batch.failure is not None:
            raise self._writer.met(batch, self, batch.failure)

    def _reply(self, batch: Batch, reply: asyncio.Future[pq.abc.PGresult]) -> Settle:
        def settle(result: pq.abc.PGresult | None, error: Exception | None) -> None:
            if error is not None or batch.failure is not None:
                error = self._writer.met(batch, self, error or batch.failure)  # type: ignore[arg-type]
                if not isinstance(error, UnitInterruptedError):
                    self._over = error
            if reply.done():
                return  # whoever asked was cancelled
            if error is not None:
                reply.set_exception(error)
            elif result is not None:
                reply.set_result(result)

        return settle

    async def execute(self, sql: str, parameters: SqlParameters = ()) -> Rows:
        self._refuse_if_ended()
        translated = translate(sql)
        ordered = in_order(translated, parameters)
        batch = self._batch or await self._enter()
        if batch.turn is not self and (translated.reads or batch.turn is not None):
            await batch.take_turn(self, keep=translated.reads)
        self._refuse_if_failed(batch)
        pipeline = self._writer.pipeline
        dumped = pipeline.dump(ordered) if pipeline is not None and ordered else ((), (), ())
        reply: asyncio.Future[pq.abc.PGresult] = asyncio.get_running_loop().create_future()
        self._executed = True
        self._writer.send(batch, self._reply(batch, reply), translated.sql, dumped)
        result = await reply
        if self._writer.pipeline is None:
            raise self._writer.met(batch, self, UnitInterruptedError("the connection was lost"))
        return self._writer.pipeline.user_rows(result)

    async def executemany(self, sql: str, rows: Sequence[SqlParameters]) -> int:
        counts = await asyncio.gather(*(self.execute(sql, row) for row in rows)) if rows else []
        return sum(count.rowcount for count in counts)

    async def cursors(self, group: str) -> Mapping[Partition, int]:
        raise ConfigurationError("a handler's transaction shares its commit: ask for cursors in one of your own")

    async def hurry(self, seconds: float) -> None:
        """A handler's unit waits only as long as a shared transaction may, whatever it is told."""
        self._refuse_if_ended()

    # Documents

    async def get(self, key: str) -> Document | None:
        self._refuse_if_ended()
        batch = self._batch or await self._enter()
        self._executed = True
        await self._own(batch, key)
        self._refuse_if_failed(batch)
        reply: asyncio.Future[pq.abc.PGresult] = asyncio.get_running_loop().create_future()
        self._writer.call(batch, self._reply(batch, forgotten()), "lock_document", [text(key)])
        self._writer.call(batch, self._reply(batch, reply), "document", [text(key)])
        result = await reply
        assert self._writer.pipeline is not None
        rows = self._writer.pipeline.rows(result)
        return self._as_staged(key, Document(key, rows[0][0], rows[0][1]) if rows else None)

    async def get_many(self, keys: Collection[str]) -> Mapping[str, Document]:
        self._refuse_if_ended()
        batch = self._batch or await self._enter()
        self._executed = True
        self._refuse_if_failed(batch)
        reply: asyncio.Future[pq.abc.PGresult] = asyncio.get_running_loop().create_future()
        self._writer.call(batch, self._reply(batch, reply), "some_documents", [texts(list(keys))])
        result = await reply
        assert self._writer.pipeline is not None
        return self._many_as_staged(keys, self._writer.pipeline.rows(result))

    async def _own(self, batch: Batch, key: str) -> None:
        """Within a shared transaction the server's locks keep nobody apart: here the units wait for each other."""
        while batch.failure is None:
            holder = batch.documents.get(key)
            if holder is None or holder is self:
                batch.documents[key] = self
                return
            assert isinstance(holder, SharedUnit)
            other: SharedUnit | None = holder
            while other is not None:
                if other is self:
                    raise self._writer.met(batch, None, UnitInterruptedError("units wait for each other's documents"))
                other = other._waits_for
            waiter = asyncio.get_running_loop().create_future()
            holder._waiters = [*(holder._waiters or ()), waiter]
            self._waits_for = holder
            try:
                await waiter
            finally:
                self._waits_for = None

    def _disown(self, batch: Batch) -> None:
        if batch.documents:
            for key in [key for key, holder in batch.documents.items() if holder is self]:
                del batch.documents[key]
        for waiter in self._waiters or ():
            if not waiter.done():
                waiter.set_result(None)

    # Ending

    async def finish(self) -> Awaitable[object]:
        self._refuse_if_ended()
        messages = prepare(all_of(self._entries)) if self._entries else None
        if messages and not self._topics.known(messages):
            await self._topics.learn(messages)
        while True:
            try:
                return await self._finish(messages)
            except UnitInterruptedError:
                if self._executed:
                    raise  # what the handler has read and written, only the handler can do again
                self._batch = None
                self._ended = False

    async def _finish(self, messages: list[PreparedMessage] | None) -> asyncio.Future[None]:
        batch = self._batch or await self._enter()
        for key, _, _ in self._documents or ():
            await self._own(batch, key)
        self._refuse_if_failed(batch)
        try:
            if self._to_check and batch.staged.appends.clashes(self._entries or (), self._conditions or ()):
                raise UnitInterruptedError("another unit of this commit appends what this one asks about")
            self._fill(batch.staged, int(self._topics.clock.now() * 1000))
        except UnitInterruptedError:
            # Half of it may be staged.
            self._ended = True
            self._disown(batch)
            self._writer.leave(batch, self, undo=True)
            raise
        for key, data, expected in self._documents or ():
            values = [text(key), blob(data), number(expected)]
            if key.startswith(CLOSED):
                batch.staged.appends.closed.add(key)
                batch.closings.append((self._put(batch, key, expected), values))
            else:
                self._writer.call(batch, self._put(batch, key, expected), "put", values)
        if self._to_check:
            batch.staged.appends.add(self, self._entries or (), messages or (), self._conditions or ())
        elif messages:
            batch.staged.appends.messages += messages
        if self._jobs:
            batch.staged.jobs += self._jobs
        if self._marks and self._fence is not None:
            for cursor, tracker, position in self._marks:
                batch.mark(cursor, self._fence, tracker, position)
        self._ended = True
        self._disown(batch)
        durable = self._writer.finish(batch, self)
        await durable
        return durable  # this unit's own: a future that others had, too, would be taken for one commit

    def _put(self, batch: Batch, key: str, expected: int | None) -> Settle:
        def settle(result: pq.abc.PGresult | None, error: Exception | None) -> None:
            if error is not None:
                self._writer.met(batch, self, conflict(key, expected, error))

        return settle

    async def discard(self) -> None:
        if self._ended:
            return
        self._ended = True
        batch = self._batch
        if batch is not None:
            self._disown(batch)
            self._writer.leave(batch, self, undo=self._executed)
