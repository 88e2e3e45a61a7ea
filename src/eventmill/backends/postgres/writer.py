"""A connection that writes, and the commits its callers share.

Callers that come together share one transaction and one flush to the server's disk (group commit). What they
do is pipelined and goes without savepoints: where one of them fails, all are undone, the one is told why, and the
others are told to begin again (UnitInterruptedError). How many may share a commit follows from how that goes (`sharing`).

While one transaction is committing, the statements of the next are sent already.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from time import monotonic
from typing import Any

from psycopg import pq

from eventmill.backends.postgres import faults
from eventmill.backends.postgres.address import Address
from eventmill.backends.postgres.batch import Batch, Published, Stored, interrupted
from eventmill.backends.postgres.line import Line
from eventmill.backends.postgres.pipeline import Pipeline, Settle, SkippedError, nothing
from eventmill.backends.postgres.queue import Queue
from eventmill.backends.postgres.session import Lock, begin
from eventmill.backends.postgres.sharing import Sharing
from eventmill.backends.postgres.sql import statements
from eventmill.backends.postgres.values import Value
from eventmill.backends.sql.prepared import PreparedMessage
from eventmill.core import fork
from eventmill.core.clock import Clock
from eventmill.core.crash import point
from eventmill.core.errors import UnitInterruptedError
from eventmill.core.job import Job
from eventmill.core.message import Message
from eventmill.core.stream import Absence, Append

log = logging.getLogger("eventmill")

HOLD = 0.01
"""Seconds after which an open transaction takes no further unit: its locks are in others' way."""


class Writer(Line):
    """Opens, fills and ends the shared transactions, one after another.

    committed: called after each commit, with whether there were messages in it. resolve: finds out what became of messages whose commit's answer was lost;
    it may take as long as the server is away.
    """

    def __init__(
        self,
        address: Address,
        clock: Clock,
        partitions: Mapping[str, int],
        *,
        committed: Callable[[bool], None],
        resolve: Callable[[Batch], Awaitable[Stored]],
    ) -> None:
        super().__init__(address)
        self.commits = 0
        self.sql = statements(address.quoted)
        self._begin = {lock: begin(address, lock) for lock in Lock}
        self._clock = clock
        self._partitions = partitions
        self.committed = committed
        self._resolve = resolve
        self._batch: Batch | None = None
        self._committing: Batch | None = None
        self._joiners: deque[asyncio.Future[None]] = deque()
        self._queue = Queue()
        self._kicked = False
        self._sharing = Sharing()
        self._position = 0

    def _broke(self) -> None:
        """What waited for an answer has been told; the rest is told here."""
        error = faults.ConnectionLost(f"{self.address}: the connection to the server was lost")
        if self._batch is not None:
            self._fail(self._batch, error, environmental=True)
        if not self._closed and (self._queue or self._joiners):
            self._connect()

    def _arrived(self) -> None:
        self._wake_joiners()
        self._kick()

    def _stayed_away(self, error: Exception) -> None:
        joiners, self._joiners = self._joiners, deque()
        for joiner in joiners:
            if not joiner.done():
                joiner.set_exception(error)
        self._queue.refuse(error)

    # Taking part

    def try_join(self, unit: Hashable) -> Batch | None:
        """The batch the unit is now part of, if there is one to join without waiting."""
        if self.pipeline is None or self._fork != fork.count or self._closed:
            return None
        batch = self._batch
        if batch is None:
            batch = self._batch = Batch()
        elif batch.sealed or batch.joined >= self._sharing.room or (batch.begun and monotonic() - batch.opened > HOLD):
            batch.sealed = True
            return None
        batch.joined += 1
        batch.active.add(unit)
        return batch

    async def join(self, unit: Hashable) -> Batch:
        """Wait for a batch to take part in. Raises BackendUnavailableError where the server stays away."""
        while True:
            self._refuse_if_unusable()
            batch = self.try_join(unit)
            if batch is not None:
                return batch
            joiner = self._loop.create_future()
            self._joiners.append(joiner)
            if self.pipeline is None:
                self._connect()
            try:
                await joiner
            except asyncio.CancelledError:
                if joiner in self._joiners:
                    self._joiners.remove(joiner)
                else:
                    self._wake_joiners()
                raise

    def _wake_joiners(self) -> None:
        for _ in range(min(len(self._joiners), self._sharing.room)):
            joiner = self._joiners.popleft()
            if not joiner.done():
                joiner.set_result(None)

    def leave(self, batch: Batch, unit: Hashable, *, undo: bool) -> None:
        """The unit gives up. undo: it has written, and nothing of the batch can be kept."""
        batch.active.discard(unit)
        if batch.failure is None:
            if undo:
                self._fail(batch, None)
            else:
                batch.pass_turn(unit)
                self._kick()

    def finish(self, batch: Batch, unit: Hashable) -> asyncio.Future[None]:
        """The unit has staged everything: what is returned is done when it is durable."""
        durable: asyncio.Future[None] = self._loop.create_future()
        batch.active.discard(unit)
        batch.finished[unit] = durable
        batch.pass_turn(unit)
        self._kick()
        return durable

    def stage(
        self,
        messages: Sequence[PreparedMessage],
        jobs: Sequence[Job] = (),
        entries: Sequence[Message | Append] | None = None,
        conditions: Sequence[Absence] = (),
    ) -> asyncio.Future[list[int]]:
        """Messages and jobs for the next commit; the positions come when they are durable.

        entries: the same messages, where there are appends among them that may be refused, or conditions.
        """
        self._refuse_if_unusable()
        durable: asyncio.Future[list[int]] = self._loop.create_future()
        if not messages and not jobs and entries is None:
            durable.set_result([])
            return durable
        self._queue.put(Published(messages, jobs, durable, entries, conditions))
        self._kick()
        return durable

    def send(
        self, batch: Batch, settle: Settle, sql: bytes, dumped: tuple[Sequence[Any], Sequence[int], Sequence[int]]
    ) -> None:
        """One statement of the user's, its transaction begun before it. Its rows come as text."""
        pipeline = self._ground(batch)
        parameters, types, formats = dumped
        pipeline.send(sql, settle, parameters, types, formats, binary=0)

    def call(self, batch: Batch, settle: Settle, name: str, values: Sequence[Value]) -> None:
        """One of eventmill's own statements within the batch."""
        self._ground(batch).call(self.sql[name], settle, values)

    def _ground(self, batch: Batch) -> Pipeline:
        pipeline = self.pipeline
        if pipeline is None:
            raise faults.ConnectionLost(f"{self.address}: the connection to the server was lost")
        if not batch.begun:
            batch.begun = True
            batch.opened = monotonic()
            point("transaction.begin")

            def opened(result: pq.abc.PGresult | None, error: Exception | None) -> None:
                if error is not None and batch.failure is None:
                    self.met(batch, None, error)

            batch.patient = self._sharing.room == 1
            lock = Lock.ALONE if batch.patient else Lock.SHARED
            for sql, values in self._begin[lock if batch.joined else Lock.PUBLISHED]:
                pipeline.call(sql, opened, values)
        return pipeline

    # Failing

    def met(self, batch: Batch, unit: Hashable | None, error: Exception) -> Exception:
        """A statement of the batch has failed. Returns what to tell the unit whose statement it was."""
        if batch.failure is not None:
            return batch.blamed.get(unit) or interrupted()
        if isinstance(error, SkippedError):
            self._fail(batch, None)
            return interrupted()
        if faults.environmental(error):
            told = faults.translated(error, str(self.address))
            self._fail(batch, told, environmental=True)
            return told
        state = getattr(error, "sqlstate", None)
        if state in faults.AGAIN and self.pipeline is not None:
            self.pipeline.forget_prepared()
        if state in faults.AGAIN and not (batch.patient and batch.joined == 1):
            self._sharing.conflicted(batch.joined)
            self._fail(batch, None)
            return interrupted()
        if unit is not None:
            batch.blamed[unit] = error
        self._fail(batch, None)
        return error

    def _fail(self, batch: Batch, error: Exception | None, *, environmental: bool = False) -> None:
        """Undo the open batch. error: for all of it; None: those who are not to blame begin again."""
        batch.failure = error or interrupted()
        if batch is self._batch:
            self._batch = None
        self._sharing.failed(batch.joined)
        if batch.begun and self.pipeline is not None and batch is not self._committing:
            self.pipeline.sync()
            self.pipeline.send(b"ROLLBACK", nothing)
        if environmental:
            batch.distrust()
        batch.undone(error)
        batch.pass_turn(None)
        self._wake_joiners()
        self._kick()

    # Committing

    def _kick(self) -> None:
        """Commit as soon as the tasks that are ready now have had their turn: they may join."""
        if not self._kicked and not self._closed:
            self._kicked = True
            self._loop.call_soon(self._run)

    def _run(self) -> None:
        self._kicked = False
        if self._committing is not None or self._closed:
            return
        batch = self._batch
        if batch is not None and batch.active:
            return
        if batch is not None and not (batch.begun or batch.finished):
            # All who had joined have left: it must not stand in the way of those who wait.
            batch = self._batch = None
            self._wake_joiners()
        if batch is None and not self._queue:
            return
        if self.pipeline is None:
            self._connect()
            return
        self._commit(self.pipeline, batch or Batch())

    def _commit(self, pipeline: Pipeline, batch: Batch) -> None:
        self._batch, self._committing = None, batch
        batch.sealed = True
        staged = batch.staged
        for tracker, (cursor, fence, positions) in batch.marks.items():
            staged.move(cursor, fence, tracker.preview(positions))
        self._queue.take(batch)
        batch.before, batch.pid = self._position, pipeline.backend_pid
        try:
            self._ground(batch)
            for name, values in staged.calls(self._partitions, int(self._clock.now() * 1000)):
                pipeline.call(self.sql[name], self._bulk(batch, name), values)
            for settle, values in batch.closings:
                pipeline.call(self.sql["put"], settle, values)
            if batch.published:
                pipeline.call(self.sql["xid"], batch.noting_xid(pipeline))
            # A failure before this sync makes a ROLLBACK of the COMMIT behind it: the transaction ends in any case.
            pipeline.sync()
            point("commit.before")
            pipeline.send(b"COMMIT", lambda result, error: self._ended(batch, result, error))
        except Exception as error:
            # Nothing of this can be the callers' fault: what they staged was checked before.
            log.exception("%s: a commit could not be written", self.address)
            self._committing = None
            batch.distrust()
            batch.undone(error)
            batch.give_up(error)
            pipeline.abandon(error)
            return
        self._wake_joiners()

    def _bulk(self, batch: Batch, name: str) -> Settle:
        def settle(result: pq.abc.PGresult | None, error: Exception | None) -> None:
            if error is not None:
                if batch.refused(name, error, str(self.address)):
                    self._sharing.one_at_a_time(batch.joined)
            elif name in ("append", "append_to"):
                assert result is not None
                assert self.pipeline is not None
                batch.positions = batch.staged.appends.answered(name, self.pipeline.rows(result)[0])
                self._position = max([self._position, *batch.positions[-1:]])

        return settle

    def _ended(self, batch: Batch, result: pq.abc.PGresult | None, error: Exception | None) -> None:
        """The answer to COMMIT."""
        self._committing = None
        point("commit.after")
        self.commits += 1
        if error is None and result is not None and result.command_status == b"COMMIT" and batch.failure is None:
            batch.succeeded()
            self._sharing.succeeded(batch.joined)
            self.committed(bool(batch.staged.appends.messages))
        elif isinstance(error, faults.ConnectionLost):
            self._unknown(batch, error)
        else:
            self._undone(batch, error)
        self._sharing.ended(batch.joined)
        if self._batch is not None and self._batch.joined >= self._sharing.room:
            self._run()  # nobody can join any more: those who were just told then begin the next one at once
        self._wake_joiners()
        self._kick()

    def _undone(self, batch: Batch, error: Exception | None) -> None:
        """The transaction was rolled back, by a refusal before its end or by the COMMIT itself."""
        told = batch.failure
        if told is None and error is not None:
            # A constraint that is checked at the commit: whose row it is, the server does not say.
            if faults.environmental(error):
                told = faults.translated(error, str(self.address))
            elif batch.joined == 1 and not batch.published:
                batch.blamed.update(dict.fromkeys(batch.finished, error))
            else:
                self._sharing.one_at_a_time(batch.joined)
        environmental = told is not None and not isinstance(told, UnitInterruptedError)
        if environmental:
            batch.distrust()
        self._sharing.failed(batch.joined)
        batch.undone(told)
        self._queue.undone(batch, told or error or interrupted(), environmental=environmental)
        self._kick()

    def _unknown(self, batch: Batch, error: Exception) -> None:
        """The connection broke before the answer. Units begin again from what is stored; messages are looked for."""
        batch.distrust()
        batch.undone(error)
        if batch.published:
            self._spawn(self._find_out(batch))

    async def _find_out(self, batch: Batch) -> None:
        try:
            stored = await self._resolve(batch)
        except Exception as error:
            batch.give_up(error)
            return
        batch.found(stored)
        self._queue.again(batch.published)
        self._kick()

    # Closing

    async def close(self) -> None:
        """Commit what is staged, then close. Later calls are refused."""
        while (
            self._queue
            or self._committing is not None
            or (self._batch is not None and not self._batch.active and self._batch.finished)
        ):
            self._kick()
            if self._tasks:
                await asyncio.wait(list(self._tasks), timeout=0.05)
            else:
                await asyncio.sleep(0.001)
        self._hang_up()
