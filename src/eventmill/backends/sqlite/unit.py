"""One unit of work on the shared transaction."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Awaitable, Collection, Mapping, Sequence

from eventmill.backends.sql.prepared import prepare
from eventmill.backends.sqlite.connection import environmental, translate
from eventmill.backends.sqlite.group import Group
from eventmill.backends.sqlite.journal import Journal, kept
from eventmill.backends.sqlite.refusable import Refusable
from eventmill.backends.sqlite.writer import Writer
from eventmill.core.claims import Cursor, Fence
from eventmill.core.clock import Clock
from eventmill.core.document import ABSENT, Document
from eventmill.core.errors import ConfigurationError, EventmillError
from eventmill.core.job import Job
from eventmill.core.message import Message, Partition
from eventmill.core.rows import Rows, SqlParameters
from eventmill.core.stream import CLOSED, Absence, Append, all_of
from eventmill.core.tracker import Tracker

_TRANSACTION_WORDS = frozenset(
    {"BEGIN", "COMMIT", "END", "ROLLBACK", "SAVEPOINT", "RELEASE", "ATTACH", "DETACH", "VACUUM"}
)
_harmless: set[str] = set()


class SqliteUnit:
    """Stages in memory, and takes the writer's turn only when it must run a statement.

    Made once a message: what most units do without is only made when it is needed.
    """

    __slots__ = (
        "_claim",
        "_clock",
        "_conditions",
        "_ended",
        "_entering",
        "_entries",
        "_fence",
        "_group",
        "_jobs",
        "_journal",
        "_marks",
        "_refusable",
        "_sql",
        "_to_check",
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
        self._ended = False
        self._group: Group | None = None
        self._journal: Journal | None = None  # set while the unit has the turn and may run statements
        self._entering: asyncio.Future[None] | None = None
        self._entries: list[Message | Append] | None = None
        self._conditions: list[Absence] | None = None
        self._to_check = False  # whether there are appends or conditions
        self._jobs: list[Job] | None = None
        self._refusable: Refusable | None = None
        self._marks: list[tuple[Cursor, Tracker, int]] | None = None

    @property
    def untouched(self) -> bool:
        return (
            self._group is None
            and self._entries is None
            and self._conditions is None
            and self._jobs is None
            and self._refusable is None
            and self._entering is None
        )

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

    def mark(self, cursor: Cursor, tracker: Tracker, position: int) -> None:
        if self._marks is None:
            self._marks = [(cursor, tracker, position)]
        else:
            self._marks.append((cursor, tracker, position))

    def put(self, key: str, data: bytes | None, *, expected: int | None) -> None:
        self._refused().documents.append((key, data, expected))

    def settle(self, job: Job, *, retry_at: int | None = None, dead: bool = False) -> None:
        self._refused().settlements.append((job, retry_at, dead))

    def hold(self, job: Job, lane: str) -> None:
        self._refused().held.append((job, lane))

    def let_go(self, queue: str, lane: str) -> None:
        self._refused().let_go.append((queue, lane))

    def receive(self, group: str, message: Message) -> None:
        self._refused().inbox.append((group, message))

    def _refused(self) -> Refusable:
        self._refuse_if_ended()
        if self._refusable is None:
            self._refusable = Refusable()
        return self._refusable

    def _refuse_if_ended(self) -> None:
        if self._ended:
            raise _over()

    async def get(self, key: str) -> Document | None:
        connection = await self.enter()
        row = connection.execute(self._sql["document"], (key,)).fetchone()
        # What this unit itself has staged for the key is what it must see.
        version, data = row or (ABSENT, None)
        for staged, value, _ in self._refusable.documents if self._refusable else ():
            if staged == key:
                version, data = (ABSENT, None) if value is None else (version + 1, value)
        return None if data is None else Document(key, version, data)

    async def cursors(self, group: str) -> Mapping[Partition, int]:
        connection = await self.enter()
        rows = connection.execute(self._sql["cursors"], (group,)).fetchall()
        found = {Partition(topic, number): position for topic, number, position, *_ in rows}
        # Units of the same commit have moved on without having written it yet.
        for tracker, (name, topic, number) in self._group.marks.items() if self._group is not None else ():
            if name == group:
                found[Partition(topic, number)] = tracker.cursor()[0]
        return found

    async def hurry(self, seconds: float) -> None:
        await self.enter()  # whoever has the write lock waits for nobody

    async def get_many(self, keys: Collection[str]) -> Mapping[str, Document]:
        connection = await self.enter()
        # In the order of the table, so that each of its pages is looked at once.
        rows = connection.execute(self._sql["some_documents"], (json.dumps(sorted(keys)),)).fetchall()
        found = {key: Document(key, version, data) for key, version, data in rows}
        for staged, value, _ in self._refusable.documents if self._refusable else ():
            if staged in keys:
                before = found.pop(staged, None)
                if value is not None:
                    found[staged] = Document(staged, before.version + 1 if before else 1, value)
        return found

    async def execute(self, sql: str, parameters: SqlParameters = ()) -> Rows:
        journal = self._journal or self._enter_at_once() or await self._enter()
        if sql not in _harmless:
            _check(sql)
        try:
            cursor = self._writer.cursor.execute(sql, parameters)
            rows = Rows()
            if cursor.description is None:
                journal.steps.append((sql, parameters if type(parameters) is tuple else kept(parameters)))
            else:
                journal.seal()
                rows.extend(cursor.fetchall())
                rows.columns = tuple([column[0] for column in cursor.description])
            rows.rowcount = cursor.rowcount
            return rows
        except sqlite3.Error as error:
            journal.seal()  # OR FAIL keeps what it has changed so far
            raise self.met(error) from error

    async def executemany(self, sql: str, rows: Sequence[SqlParameters]) -> int:
        connection = await self.enter()
        _check(sql)
        try:
            return connection.executemany(sql, rows).rowcount
        except sqlite3.Error as error:
            raise self.met(error) from error

    def met(self, error: sqlite3.Error) -> Exception:
        """What to raise for an error of a statement; where it has ended the shared transaction, all in it are told."""
        if not self._writer.connection.in_transaction:
            # A full disk, or INSERT OR ROLLBACK, has ended the whole transaction: nobody may go on in it.
            self._ended = True
            self._journal = None
            self._writer.abort(error)
        return translate(error, self._writer.path) if environmental(error) else error

    async def enter(self) -> sqlite3.Connection:
        """Take the turn, and let the caller run whatever statements it likes."""
        (self._journal or await self._enter()).seal()
        return self._writer.connection

    async def _enter(self) -> Journal:
        """Take the turn, and stand on verified ground that one can fall back to."""
        while self._journal is None and not self._enter_at_once():
            if self._entering is not None:
                # A statement of this very unit is on its way in: tasks of one handler share it.
                await self._entering
                continue
            self._entering = asyncio.get_running_loop().create_future()
            try:
                group = await self._wait_for_turn()
            finally:
                self._entering.set_result(None)
                self._entering = None
            self._stand(group)
            self._begin(group)
        assert self._journal is not None  # what ends the loop
        return self._journal

    def _enter_at_once(self) -> Journal | None:
        """The same where nobody has to be waited for."""
        group = None if self._ended or self._entering is not None else self._writer.try_acquire()
        if group is None:
            return None
        self._stand(group)
        return self._begin(group)

    def _begin(self, group: Group) -> Journal:
        journal = self._journal = group.journal
        journal.begin()
        return journal

    async def _wait_for_turn(self) -> Group:
        self._refuse_if_ended()
        return await self._writer.acquire()

    def _stand(self, group: Group) -> None:
        """Check the claim, with the turn just taken."""
        try:
            group.verify(self._writer.connection, self._sql, self._claim, self._fence)
        except BaseException:
            self._ended = True
            self._writer.leave()
            raise
        self._group = group

    async def finish(self) -> Awaitable[object]:
        group = self._group
        if group is None:
            if self._claim is None and self._refusable is None and self._marks is None:
                return self._stage()
            if self._refusable is not None and self._refusable.ends(self._claim) is None:
                await self._enter()
            else:
                self._stand(self._writer.try_acquire() or await self._wait_for_turn())
            group = self._group
        if self._ended or group is None:
            raise _over()
        try:
            marks = self._marks
            if marks is not None:
                for cursor, _, _ in marks:
                    if cursor is not self._claim:
                        group.verify(self._writer.connection, self._sql, cursor, self._fence)
            entries = self._entries or ()
            prepared = prepare(all_of(entries)) if entries else []
            moved = group.additions.admit(entries, self._conditions or ()) if self._to_check else None
            ended = self._refusable.ends(self._claim) if self._refusable is not None else None
            if self._journal is not None:
                if self._refusable is not None and ended is None:
                    self._apply(self._refusable, self._journal)
                self._journal.end()
                self._journal = None
        except sqlite3.Error as error:
            met = self.met(error)
            self._undo()
            raise met from error
        except BaseException:
            self._undo()
            raise
        self._ended = True
        group.units += 1
        if moved is not None:
            group.additions.take(entries, prepared, moved)
        elif prepared:
            group.additions.messages += prepared
        if self._jobs:
            group.jobs += self._jobs
        if ended is not None:
            group.done.append((ended.id,))
        if marks is not None and self._fence is not None:
            name = self._fence.group
            for cursor, tracker, position in marks:
                tracker.done(position)
                group.marks[tracker] = (name, *cursor.partition)
        self._writer.leave()
        return group.durable

    def _apply(self, refusable: Refusable, journal: Journal) -> None:
        now = int(self._clock.now() * 1000)
        member = None if self._fence is None else self._fence.member

        def step() -> None:
            refusable.apply(self._writer.connection, self._sql, now, self._claim, member)

        if any(key.startswith(CLOSED) for key, _, _ in refusable.documents):
            self._writer.appender.doubt()
        step()
        journal.steps.append(step)

    def _stage(self) -> Awaitable[object]:
        """A unit that cannot be refused needs no turn."""
        self._ended = True
        entries = self._entries or ()
        if entries or self._jobs or self._conditions:
            checked = entries if self._to_check else None
            return self._writer.stage(all_of(entries), self._jobs or (), checked, self._conditions or ())
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

    async def discard(self) -> None:
        if not self._ended:
            if self._group is not None:
                self._undo()
            self._ended = True

    def _undo(self) -> None:
        if self._ended:
            return
        self._ended = True
        journal, self._journal = self._journal, None
        if journal is not None:
            try:
                journal.undo()
            except (sqlite3.Error, EventmillError) as error:
                self._writer.abort(error)
                return
        self._writer.leave()


def _over() -> ConfigurationError:
    return ConfigurationError("this transaction has ended; use it inside its `async with` or handler only")


def _check(sql: str) -> None:
    """Refuse statements that would end or nest the transaction behind its back."""
    word = sql.split(None, 1)[0].upper().rstrip(";") if sql.strip() else ""
    if word in _TRANSACTION_WORDS:
        raise ConfigurationError(f"{word} cannot run inside a transaction of eventmill: it begins and ends by itself")
    if len(_harmless) < 10_000:
        _harmless.add(sql)
