"""The one connection of this process that writes, and the commits its callers share.

Everything written in a process to one file goes through here. Callers that come together share one
transaction and one flush to the disk (group commit); one of them that fails is taken back alone
(`journal`), so that it never disturbs its batch-mates.

Statements run on the event loop's thread: an SQLite statement on cached pages takes microseconds,
a hop to another thread and back some seventy. What may take long is not done there: waiting for
another process's lock is an asyncio sleep, and the commit, which waits for the disk, hops to a
thread as soon as the disk turns out slower than the hop.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import sqlite3
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import Any, TypeVar

from eventmill.backends.sql.prepared import prepare
from eventmill.backends.sqlite.alone import Alone, run_through
from eventmill.backends.sqlite.append import Appender
from eventmill.backends.sqlite.checkpoint import Checkpoints
from eventmill.backends.sqlite.connection import connect, translate
from eventmill.backends.sqlite.group import Group, Shared, Staged
from eventmill.backends.sqlite.journal import Journal
from eventmill.core import fork
from eventmill.core.clock import Clock
from eventmill.core.crash import point
from eventmill.core.errors import BackendError, BackendUnavailableError
from eventmill.core.job import Job
from eventmill.core.message import Message
from eventmill.core.stream import Absence, Append

log = logging.getLogger("eventmill")

T = TypeVar("T")

SLOW_COMMIT = 0.004
"""Seconds above which a commit hops to a thread rather than hold up the event loop: about what the hop itself takes
when the loop is busy, because the thread must wait for the interpreter."""

PROBE = 50
"""Every so many commits one is made on the loop all the same, to see whether the disk is still slow."""

HOLD = 0.02
"""Seconds after which an open transaction takes no further unit: other processes want to write, too."""


class Writer:
    """Takes turns, opens, commits and rolls back the shared transaction."""

    def __init__(
        self,
        path: str,
        statements: dict[str, str],
        clock: Clock,
        *,
        synchronous: str,
        busy_timeout: float,
        committed: Callable[[], None],
    ) -> None:
        self.path = path
        self.connection = connect(path, synchronous=synchronous)
        self.cursor = self.connection.cursor()
        """For the statements of units, which have their turn one at a time and read all rows at once."""
        self.commits = 0
        self.beating: dict[int, tuple[str, int]] = {}
        self._sql = statements
        self._busy_timeout = busy_timeout
        self._committed = committed
        self._clock = clock
        self.appender = Appender(self.connection, statements, clock)
        self._checkpoints = Checkpoints(path, synchronous)
        self._fork = fork.count
        self._loop = asyncio.get_running_loop()
        self._busy = False
        self._turns: deque[asyncio.Future[None]] = deque()
        self._staged: list[Staged] = []
        self._group: Group | None = None
        self._kicked = False
        self._alone = Alone(self._loop)
        self._commit_seconds = SLOW_COMMIT
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="eventmill-commit")
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    def _refuse_if_unusable(self) -> None:
        if self._closed:
            raise BackendError(f"{self.path} is closed")
        if self._fork != fork.count:
            raise BackendError(f"{self.path} was opened before a fork: open the App in the process that uses it")

    # Turns: one unit at a time runs statements.

    def try_acquire(self) -> Group | None:
        """Take the turn if that needs no waiting: nobody has it, and a transaction is open that is not too old."""
        group = self._group
        if group is None or self._busy or monotonic() - group.opened > HOLD or self._fork != fork.count:
            return None
        self._busy = True
        return group

    async def acquire(self) -> Group:
        """Wait for the turn; returns the group to take part in, its transaction open."""
        self._refuse_if_unusable()
        if self._busy:
            await self._queue()
        self._busy = True
        try:
            if self._group is not None and monotonic() - self._group.opened > HOLD:
                await self._finish(self._commit())
            return self._group or await self._open()
        except BaseException:
            self.leave()
            raise

    async def _queue(self) -> None:
        """Wait until the turn is free, first come first served among those who wait.

        Whoever is running when the turn falls free may take it without waiting: handing it over would
        cost a round of the event loop for every unit.
        """
        turn = self._loop.create_future()
        self._turns.append(turn)
        while True:
            try:
                await turn
            except asyncio.CancelledError:
                if turn in self._turns:
                    self._turns.remove(turn)
                elif not self._busy:
                    self.leave()  # it was our turn: pass it on
                raise
            if not self._busy:
                return
            turn = self._loop.create_future()
            self._turns.appendleft(turn)

    def leave(self) -> None:
        """The turn is free: for the next who waits, or, when none does, for the group's commit."""
        self._busy = False
        while self._turns:
            turn = self._turns.popleft()
            if not turn.done():  # else its unit was cancelled, and has not run since
                turn.set_result(None)
                return
        self._kick()

    def stage(
        self,
        messages: Sequence[Message],
        jobs: Sequence[Job] = (),
        entries: Sequence[Message | Append] | None = None,
        conditions: Sequence[Absence] = (),
    ) -> asyncio.Future[list[int]]:
        """Messages and jobs for the next commit, as in `Staged`; the positions come when they are durable."""
        self._refuse_if_unusable()
        durable: asyncio.Future[list[int]] = self._loop.create_future()
        self._staged.append(Staged(prepare(messages), jobs, durable, entries, conditions))
        if self._group is None and not (self._kicked or self._busy or self._turns) and self._alone:
            self._run()
        else:
            self._kick()
        return durable

    def recheck_leases(self) -> None:
        """Leases were changed within the open transaction: ask again before the next unit stands on one."""
        if self._group is not None:
            self._group.held.clear()
            self._group.verified.clear()

    # Opening

    async def _open(self) -> Group:
        point("transaction.begin")
        if not self._begin():
            await self._begin_patiently()
        return self._begun()

    def _begun(self) -> Group:
        self._group = Group(Shared(loop=self._loop), monotonic(), Journal(self.connection), self.appender)
        return self._group

    def _begin(self) -> bool:
        try:
            self.connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY:
                return False
            raise translate(error, self.path) from error
        return True

    async def _begin_patiently(self) -> None:
        loop = self._loop
        deadline = loop.time() + self._busy_timeout
        pause = 0.0005
        while not self._begin():
            if loop.time() > deadline:
                raise BackendUnavailableError(
                    f"{self.path}: another process has kept the write lock for {self._busy_timeout:g} s"
                )
            await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 - jitter, not secrecy
            pause = min(pause * 1.5, 0.001)

    # Committing

    def _kick(self) -> None:
        """Commit as soon as the tasks that are ready now have had their turn: they may join."""
        if not self._kicked and not self._busy and (self._staged or self._group):
            self._kicked = True
            self._loop.call_soon(self._run)

    def _run(self) -> None:
        self._kicked = False
        if not self._busy and not self._turns and (self._staged or self._group):
            self._busy = True
            if self._waits_for_nothing():
                # No task, and no round of the event loop, for what runs through without a pause.
                run_through(self._commit_and_leave())
            else:
                self._spawn(self._commit_and_leave())

    def _waits_for_nothing(self) -> bool:
        """Whether a commit now would neither hop to a thread nor wait for the lock, which is then taken."""
        if self._hops(self.commits + 1):
            return False
        if self._group is None:
            point("transaction.begin")
            try:
                if not self._begin():
                    return False
            except BackendError:
                return False  # the commit will meet it again, and tell its callers
            self._begun()
        return True

    async def _commit_and_leave(self) -> None:
        try:
            await self._commit()
        finally:
            self.leave()

    async def _commit(self) -> None:
        """Write what is staged and end the transaction. The turn is held. The callers get the error, if any."""
        staged, self._staged = self._staged, []
        group = self._group
        try:
            group = group or await self._open()
            positions = self._write(group, staged)
            if group.units or staged:
                await self._flush()
            else:
                self.connection.execute("ROLLBACK")
        except BaseException as error:
            self._fail(group, staged, error)
            if not isinstance(error, Exception):
                raise
            return
        self._group = None
        group.journal.forget()
        self._alone.committed(group.units + len(staged))
        group.additions.stored(positions)
        group.durable.set_result(None)
        for entry in staged:
            entry.tell(positions)
        if group.units or staged:
            self._committed()
        self._maybe_checkpoint()

    def abort(self, error: Exception) -> None:
        """The shared transaction is lost under a unit: tell everybody in it, and give up the turn."""
        self._fail(self._group, (), error)
        self.leave()

    def _fail(self, group: Group | None, staged: Sequence[Staged], error: BaseException) -> None:
        if isinstance(error, sqlite3.Error):
            error = translate(error, self.path)
        cause = error if isinstance(error, Exception) else BackendError(f"{self.path}: interrupted before the commit")
        self._group = None
        self.appender.forget()
        if self.connection.in_transaction:
            self.connection.execute("ROLLBACK")
        if group is not None:
            for fence in group.fences:
                # Nothing of this member may overtake what was just lost.
                fence.valid = False
            group.journal.forget()
            group.durable.set_exception(cause)
        for entry in staged:
            if not entry.durable.done():
                entry.durable.set_exception(cause)

    def _write(self, group: Group, staged: Sequence[Staged]) -> range:
        """Everything staged, in as few statements as can be; returns the positions of the messages."""
        appender = self.appender
        additions = group.additions
        for entry in staged:
            entry.write(additions)
        positions = appender.append(additions.messages, additions.repeatable)
        if group.done:
            self.connection.executemany(self._sql["finish_job"], group.done)
        group.renew(self.connection, self._sql, int(self._clock.now() * 1000), self.beating)
        appender.send([*group.jobs, *(job for each in staged if each.refusal is None for job in each.jobs)])
        if group.marks:
            cursors = [(tracker.cursor(), place) for tracker, place in group.marks.items()]
            self.connection.executemany(
                self._sql["advance"],
                [(position, json.dumps(ahead), *place) for (position, ahead), place in cursors],
            )
        return positions

    async def _flush(self) -> None:
        self.commits += 1
        if self._hops(self.commits):
            await self._finish(self._loop.run_in_executor(self._threads, self._commit_now))
        else:
            # Only here is the disk measured: on a thread it would be the wait for the interpreter, too.
            self._commit_seconds += (self._commit_now() - self._commit_seconds) * 0.2

    def _hops(self, commit: int) -> bool:
        return self._commit_seconds > SLOW_COMMIT and commit % PROBE != 0

    def _commit_now(self) -> float:
        started = time.perf_counter()
        point("commit.before")
        self.connection.execute("COMMIT")
        point("commit.after")
        return time.perf_counter() - started

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _finish(self, work: Awaitable[T]) -> T:
        """Await something that must not be left half done; a cancellation is delivered after it."""
        future = asyncio.ensure_future(work)
        cancelled = False
        while not future.done():
            try:
                await asyncio.shield(future)
            except asyncio.CancelledError:
                cancelled = True
            except BaseException:
                break
        if cancelled:
            raise asyncio.CancelledError
        return future.result()

    def _maybe_checkpoint(self) -> None:
        if self._checkpoints.due(self.connection.total_changes, self.commits):
            self._spawn(self._checkpoint())

    async def _checkpoint(self) -> None:
        """Move the WAL's pages into the database with the write lock held: nobody can reset the WAL meanwhile.

        The transaction that holds the lock ends empty. One that went on to write would see the WAL as it was
        before the checkpoint and append to it, so that it would never start over.
        """
        try:
            group = await self.acquire()
        except BackendError:
            return  # Locked or closing: the next commit asks again.
        try:
            if group.units:
                await self._finish(self._commit())
                await self._open()
            await self._finish(self._loop.run_in_executor(self._threads, self._checkpoints.run))
        except (sqlite3.Error, BackendError) as error:
            log.info("%s: the checkpoint waits for the next time: %s", self.path, error)
        finally:
            if self._group is not None and not self._group.units:
                empty, self._group = self._group, None
                self.connection.execute("ROLLBACK")
                empty.durable.set_result(None)
            self.leave()

    async def close(self) -> None:
        """Commit what is staged, then close. Later calls are refused."""
        while self._staged or self._group or self._busy or self._tasks:
            self._kick()
            if self._tasks:
                await asyncio.wait(list(self._tasks))
            else:
                await asyncio.sleep(0)
        self._closed = True
        self._threads.shutdown(wait=True)
        self._checkpoints.close()
        self.connection.close()
