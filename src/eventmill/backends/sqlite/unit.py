"""One unit of work on the shared transaction."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Sequence

from eventmill.backends.sqlite.append import prepare
from eventmill.backends.sqlite.connection import environmental, translate
from eventmill.backends.sqlite.rows import errors
from eventmill.backends.sqlite.writer import Group, Writer
from eventmill.core.capabilities import ABSENT, Cursor, Document, Fence, Job, Rows, SqlParameters
from eventmill.core.clock import Clock
from eventmill.core.errors import ConfigurationError, ConflictError, DuplicateError
from eventmill.core.message import Message
from eventmill.core.tracker import Tracker

_TRANSACTION_WORDS = frozenset(
    ["BEGIN", "COMMIT", "END", "ROLLBACK", "SAVEPOINT", "RELEASE", "ATTACH", "DETACH", "VACUUM"]
)
_harmless: set[str] = set()


class SqliteUnit:
    """Stages in memory, and takes the writer's turn only when it must run a statement."""

    __slots__ = (
        "_claim",
        "_clock",
        "_documents",
        "_ended",
        "_entering",
        "_fence",
        "_group",
        "_inbox",
        "_jobs",
        "_marks",
        "_messages",
        "_savepoint",
        "_settlements",
        "_sql",
        "_writer",
    )

    def __init__(
        self, writer: Writer, statements: dict[str, str], clock: Clock, claim: Cursor | Job | None, fence: Fence | None
    ) -> None:
        self._writer = writer
        self._sql = statements
        self._clock = clock
        self._claim = claim
        self._fence = fence
        self._group: Group | None = None
        self._savepoint = False
        self._ended = False
        self._messages: list[Message] = []
        self._jobs: list[Job] = []
        self._documents: list[tuple[str, bytes | None, int | None]] = []
        self._settlements: list[tuple[Job, int | None, bool]] = []
        self._inbox: list[tuple[str, Message]] = []
        self._marks: list[tuple[Cursor, Tracker, int]] = []
        self._entering: asyncio.Future[None] | None = None

    def append(self, messages: Sequence[Message]) -> None:
        self._messages.extend(messages)

    def send(self, jobs: Sequence[Job]) -> None:
        self._jobs.extend(jobs)

    def put(self, key: str, data: bytes | None, *, expected: int | None) -> None:
        self._documents.append((key, data, expected))

    def settle(self, job: Job, *, retry_at: int | None = None, dead: bool = False) -> None:
        self._settlements.append((job, retry_at, dead))

    def mark(self, cursor: Cursor, tracker: Tracker, position: int) -> None:
        self._marks.append((cursor, tracker, position))

    def receive(self, group: str, message: Message) -> None:
        self._inbox.append((group, message))

    async def get(self, key: str) -> Document | None:
        await self.enter()
        row = self._writer.connection.execute(self._sql["document"], (key,)).fetchone()
        # What this unit itself has staged for the key is what it must see.
        version, data = row if row else (ABSENT, None)
        for staged, value, _ in self._documents:
            if staged == key:
                version, data = (ABSENT, None) if value is None else (version + 1, value)
        return None if data is None else Document(key, version, data)

    async def execute(self, sql: str, parameters: SqlParameters = ()) -> Rows:
        if not self._savepoint:
            await self.enter()
        if sql not in _harmless:
            _check(sql)
        try:
            cursor = self._writer.connection.execute(sql, parameters)
            if cursor.description is None:
                return Rows((), cursor.rowcount)
            return Rows(cursor.fetchall(), cursor.rowcount, [column[0] for column in cursor.description])
        except sqlite3.Error as error:
            raise self._met(error) from error

    async def executemany(self, sql: str, rows: Sequence[SqlParameters]) -> int:
        await self.enter()
        _check(sql)
        try:
            return self._writer.connection.executemany(sql, rows).rowcount
        except sqlite3.Error as error:
            raise self._met(error) from error

    def _met(self, error: sqlite3.Error) -> Exception:
        """What to raise for an error of a statement."""
        if not self._writer.connection.in_transaction:
            # A full disk, or INSERT OR ROLLBACK, has ended the whole transaction: nobody may go on in it.
            self._ended = True
            self._savepoint = False
            self._writer.abort(error)
        return translate(error, self._writer.path) if environmental(error) else error

    async def enter(self) -> sqlite3.Connection:
        """Take the turn, stand on verified ground, and set a savepoint to fall back to."""
        while not self._savepoint:
            if self._entering is not None:
                # A statement of this very unit is on its way in: tasks of one handler share it.
                await self._entering
                continue
            self._entering = asyncio.get_running_loop().create_future()
            try:
                await self._take_turn()
                self._writer.connection.execute("SAVEPOINT unit")
                self._savepoint = True
            finally:
                self._entering.set_result(None)
                self._entering = None
        return self._writer.connection

    async def _take_turn(self) -> Group:
        if self._ended:
            raise ConfigurationError("this transaction has ended; use it inside its `async with` or handler only")
        group = await self._writer.acquire()
        try:
            self._writer.verify(group, self._claim, self._fence)
        except BaseException:
            self._writer.leave()
            raise
        self._group = group
        return group

    async def finish(self) -> Awaitable[object]:
        if self._claim is None and self._group is None and not (self._documents or self._settlements or self._inbox):
            self._ended = True
            if not (self._messages or self._jobs):
                return _done()
            return self._writer.stage(self._messages, self._jobs)
        if self._documents or self._settlements or self._inbox:
            await self.enter()
        if self._ended:
            raise ConfigurationError("this transaction has ended already")
        group = self._group or await self._take_turn()
        try:
            for cursor, _, _ in self._marks:
                self._writer.verify(group, cursor, self._fence)
            messages = prepare(self._messages)
            self._apply()
            if self._savepoint:
                self._writer.connection.execute("RELEASE unit")
                self._savepoint = False
        except sqlite3.Error as error:
            met = self._met(error)
            self._undo()
            raise met from error
        except BaseException:
            self._undo()
            raise
        self._ended = True
        group.units += 1
        group.messages += messages
        group.jobs += self._jobs
        for cursor, tracker, position in self._marks:
            assert self._fence is not None  # verified above
            tracker.done(position)
            group.marks[tracker] = (self._fence.group, *cursor.partition)
        self._writer.leave()
        return group.durable

    async def discard(self) -> None:
        if not self._ended:
            if self._group is not None:
                self._undo()
            self._ended = True

    def _undo(self) -> None:
        if self._ended:
            return
        self._ended = True
        if self._savepoint:
            self._writer.connection.execute("ROLLBACK TO unit")
            self._writer.connection.execute("RELEASE unit")
            self._savepoint = False
        self._writer.leave()

    def _apply(self) -> None:
        """What can be refused: documents, settlements, inbox marks."""
        execute = self._writer.connection.execute
        for key, data, expected in self._documents:
            row = execute(self._sql["document"], (key,)).fetchone()
            actual = row[0] if row else ABSENT
            if expected is not None and expected != actual:
                raise ConflictError(f"document {key!r}", expected=expected, actual=actual or None)
            if data is None:
                execute(self._sql["delete_document"], (key,))
            else:
                execute(self._sql["put"], (key, actual + 1, data))
        now = int(self._clock.now() * 1000)
        for job, retry_at, dead in self._settlements:
            if retry_at is not None:
                execute(self._sql["retry_job"], (retry_at, errors(job), job.id))
                continue
            lane = execute(self._sql["lane"], (job.id,)).fetchone()[0]
            if dead:
                execute(self._sql["bury_job"], (errors(job), now, job.lane, job.id))
            else:
                execute(self._sql["finish_job"], (job.id,))
            if lane is not None:
                execute(self._sql["next_of_lane"], (job.queue, lane, now))
        for group, message in self._inbox:
            if execute(self._sql["inbox"], (group, message.id, message.source, now)).rowcount == 0:
                raise DuplicateError(f"{group}: {message.id} from {message.source} was handled before")


def _check(sql: str) -> None:
    """Refuse statements that would end or nest the transaction behind its back."""
    word = sql.split(None, 1)[0].upper().rstrip(";") if sql.strip() else ""
    if word in _TRANSACTION_WORDS:
        raise ConfigurationError(f"{word} cannot run inside a transaction of eventmill: it begins and ends by itself")
    if len(_harmless) < 10_000:
        _harmless.add(sql)


def _done() -> asyncio.Future[None]:
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    done.set_result(None)
    return done
