"""One attempt at a task: decoded, run in a transaction, and what becomes of it."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Executor
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec

from eventmill.core.capabilities import Store
from eventmill.core.claims import Fence
from eventmill.core.clock import Clock
from eventmill.core.context import handling
from eventmill.core.crash import point
from eventmill.core.envelope import Envelopes
from eventmill.core.errors import BackendError, ConfigurationError, DecodeError, LeaseLostError, UnitInterruptedError
from eventmill.core.failure import storable, told, trace_of
from eventmill.core.job import Job, JobError
from eventmill.core.outcome import DeadLetter, Outcome, Retry, Snooze
from eventmill.core.retry import RetryPolicy, exponential
from eventmill.patterns.tasks.call import FIRE, UNIQUE
from eventmill.patterns.tasks.context import TaskContext
from eventmill.patterns.tasks.finale import Finale
from eventmill.patterns.tasks.held import CARRIED, limits_of
from eventmill.patterns.tasks.limit import Limits
from eventmill.patterns.tasks.results import Report, State, encode_report, result_key
from eventmill.patterns.tasks.task import PREFIX, Task
from eventmill.patterns.tasks.unique import vacate
from eventmill.runtime.ending import Ending
from eventmill.runtime.interrupted import through
from eventmill.runtime.processes import Processes
from eventmill.runtime.thread import in_thread
from eventmill.runtime.transaction import SyncTransaction, Transaction, current

log = logging.getLogger("eventmill")

T = TypeVar("T")

TRACE_BYTES = 8_000
ERRORS_KEPT = 20

UNKNOWN = replace(exponential(1.0, factor=3.0, attempts=8), never=())
"""While services are deployed, an old worker may meet a new task, or new arguments: a new one will claim it."""

Settled = Ending | asyncio.Future[object] | None


class UnfitError(Exception):
    """A call's arguments are not those of the task as it is declared here."""


class Attempts:
    """Runs claimed jobs as the tasks they are of. Done when the commit succeeded, otherwise retried, finally dead.

    A task's own writes and the end of its job are one commit. A task that wrote nothing needs none of its own: its end is
    returned, and settled together with others.
    """

    def __init__(
        self,
        tasks: Mapping[str, Task[..., Any]],
        *,
        prefix: str,
        store: Store,
        envelopes: Envelopes,
        finale: Finale,
        limits: Limits,
        clock: Clock,
        rng: random.Random,
        threads: Executor,
        processes: Processes,
    ) -> None:
        self._tasks = tasks
        self._prefix = prefix
        self._store = store
        self._envelopes = envelopes
        self._finale = finale
        self._limits = limits
        self._clock = clock
        self._rng = rng
        self._threads = threads
        self._processes = processes
        self.cancelled: set[int] = set()
        """Jobs whose runners were interrupted because somebody cancelled them."""
        self._told: dict[int, tuple[Job, Report]] = {}

    async def run(self, job: Job, fence: Fence) -> Settled:
        """One attempt. Raises LeaseLostError and BackendError: then nothing was settled."""
        task = self._tasks.get(job.message.type)
        if task is None:
            error = ConfigurationError(
                f"{job.message.type}: no such task is declared here. Calls carry its name: where it was renamed, declare it "
                "by the old one, too (name=…), until none is left"
            )
            return await self._ended(
                job.message.type.removeprefix(PREFIX), None, job, fence, self._failed(job, UNKNOWN, None, error)
            )
        if job.crashed and job.attempts > task.retry.attempts:
            reason = DeadLetter(f"the process running it died, {job.attempts - 1} times")
            return await self._ended(task.name, task.keep, job, fence, self._failed(job, task.retry, reason, None))
        if task.topic is not None:
            return await through(lambda: self._publish(job, fence))
        try:
            limits = limits_of(job)
            if limits and await self._limits.begin(job, fence, limits) is not None:
                return None
            return await self._run(task, job, fence)
        finally:
            self._told.pop(job.id, None)
            if job.id in self.cancelled:
                # It went on all the same, and has ended: what interrupted it must not interrupt the next one.
                self._spare(job)

    async def _publish(self, job: Job, fence: Fence) -> Settled:
        """It is due: from here on it is a message, and a consumer group's."""
        unit = self._store.unit(job, fence)
        try:
            unit.append([job.message])
            unit.settle(job)
            return _future(await unit.finish())
        except BaseException:
            await unit.discard()
            raise

    async def _run(self, task: Task[..., Any], job: Job, fence: Fence) -> Settled:
        if task.unique is not None and task.unique.until == "begun":
            await through(lambda: self._begin(job, fence))
        unit = self._store.unit(job, fence)
        transaction = Transaction(unit, self._envelopes)
        message_token = handling.set(job.message)
        transaction_token = current.set(transaction)
        outcome: Outcome | None = None
        error: BaseException | None = None
        try:
            try:
                if task.timeout is None or task.isolated:
                    result = await self._call(task, job, transaction)
                else:
                    async with asyncio.timeout(task.timeout):
                        result = await self._call(task, job, transaction)
                if result is not None:
                    outcome = task.refusal(result)
                if outcome is None and not self._finale.plain(job, task.keep):
                    await self._finale.stage(unit, job, task.name, "done", task.keep, result)
            finally:
                handling.reset(message_token)
                current.reset(transaction_token)
                transaction.close()
            if outcome is None:
                if transaction.pending:
                    await transaction.complete()
                point("task.done")
                if unit.untouched:
                    return Ending(job)
                unit.settle(job)
                return _future(await unit.finish())
            await unit.discard()
        except (LeaseLostError, BackendError, KeyboardInterrupt):
            await unit.discard()
            raise
        except UnitInterruptedError:
            await unit.discard()
            return await self._run(task, job, fence)
        except BaseException as raised:
            await unit.discard()
            running = asyncio.current_task()
            if isinstance(raised, asyncio.CancelledError) and running is not None and running.cancelling():
                if job.id not in self.cancelled:
                    raise  # we are stopping: interrupted is not failed, and spends no attempt
                self._spare(job)
                return await self._end(task.name, task.keep, job, fence, Ending(job), "cancelled")
            error = raised
        policy = task.retry
        if isinstance(error, UnfitError):
            policy, error = UNKNOWN, error.__cause__
        return await self._ended(task.name, task.keep, job, fence, self._failed(job, policy, outcome, error))

    def _spare(self, job: Job) -> None:
        self.cancelled.discard(job.id)
        running = asyncio.current_task()
        if running is not None:
            running.uncancel()

    def _call(self, task: Task[..., Any], job: Job, transaction: Transaction) -> Awaitable[Any]:
        """Begin the call; what it returns is to be awaited. Raises UnfitError."""
        if task.isolated:
            _fitting(lambda: task.arguments.decode(job.message.data))
            about = {
                "group": task.name,
                "attempt": job.attempts,
                "idempotency_key": self._key(task, job),
                "position": None,
                "id": job.message.id,
            }
            tell = self._teller(task, job) if task.keep is not None else None
            return self._processes.call(task.place, job.message.data, about, tell, task.timeout)

        def given(want: str) -> object:
            if want == "@transaction":
                return transaction
            if want == "@sync":
                return SyncTransaction(transaction, asyncio.get_running_loop())
            if want == "@message":
                return job.message
            return self._context(task, job)

        called = _fitting(lambda: task.bound(job.message.data, given))
        if task.sync:
            return in_thread(self._threads, called)
        begun: Awaitable[Any] = called()
        return begun

    def _key(self, task: Task[..., Any], job: Job) -> str:
        return f"{task.name}:{job.message.id}"

    def _context(self, task: Task[..., Any], job: Job) -> TaskContext:
        fire = (job.message.extensions or {}).get(FIRE)
        return TaskContext(
            task.name,
            job.attempts,
            self._key(task, job),
            None,
            id=job.message.id,
            fire=None if fire is None else datetime.fromtimestamp(int(fire) / 1000, UTC),
            _tell=self._teller(task, job) if task.keep is not None else None,
        )

    # Progress

    def _teller(self, task: Task[..., Any], job: Job) -> Any:
        def tell(done: float, total: float | None, note: str) -> None:
            now = int(self._clock.now() * 1000)
            report = Report(job.message.id, task.name, "running", now, job.attempts, done, total, note)
            self._told[job.id] = job, report

        return tell

    async def tell(self, fence: Fence) -> None:
        """Store what running tasks have said of their progress; what has ended meanwhile keeps its result."""
        told, self._told = self._told, {}
        for job, report in told.values():
            unit = self._store.unit(job, fence)
            try:
                unit.put(result_key(self._prefix, report.id), encode_report(report), expected=None)
                await (await unit.finish())
            except (LeaseLostError, UnitInterruptedError):
                await unit.discard()  # it has ended, or says more of it in a moment

    # Ends

    async def _begin(self, job: Job, fence: Fence) -> None:
        key = (job.message.extensions or {}).get(UNIQUE)
        if key is not None:
            unit = self._store.unit(job, fence)
            try:
                await vacate(unit, self._prefix, key, job.message.id)
                await (await unit.finish())
            except BaseException:
                await unit.discard()
                raise

    async def _ended(self, name: str, kept: float | None, job: Job, fence: Fence, ending: Ending) -> Settled:
        """A failed attempt that was the last one brings about more than its own end."""
        if not ending.dead:
            return (
                ending
                if CARRIED not in (job.message.extensions or {})
                else await through(lambda: self._again(job, fence, ending))
            )
        if self._finale.plain(job, kept):
            return ending
        return await self._end(name, kept, job, fence, ending, "dead")

    async def _again(self, job: Job, fence: Fence, ending: Ending) -> asyncio.Future[object]:
        """What is to run again later does not use its limits meanwhile."""
        unit = self._store.unit(job, fence)
        try:
            await self._limits.free(unit, job)
            unit.settle(ending.job, retry_at=ending.retry_at)
            return _future(await unit.finish())
        except BaseException:
            await unit.discard()
            raise

    async def _end(
        self, name: str, kept: float | None, job: Job, fence: Fence, ending: Ending, state: State
    ) -> asyncio.Future[object]:
        while True:
            unit = self._store.unit(job, fence)
            token = handling.set(job.message)
            try:
                error = ending.job.errors[-1].error if ending.job.errors and state == "dead" else ""
                await self._finale.stage(unit, job, name, state, kept, None, error)
                if state == "cancelled":
                    unit.put(f"{self._prefix}control/cancel/{job.message.id}", None, expected=None)
                unit.settle(ending.job, dead=ending.dead)
                return _future(await unit.finish())
            except UnitInterruptedError:
                await unit.discard()
            except BaseException:
                await unit.discard()
                raise
            finally:
                handling.reset(token)

    def _failed(self, job: Job, retry: RetryPolicy, outcome: Outcome | None, error: BaseException | None) -> Ending:
        """Again later, or dead."""
        now = self._clock.now()
        if isinstance(outcome, Snooze):
            back = msgspec.structs.replace(job, attempts=job.attempts - 1)
            return Ending(back, retry_at=int((now + outcome.seconds) * 1000))
        if outcome is None and error is not None:
            age = max(0.0, now - job.recorded_at / 1000)
            outcome = retry.decide(job.attempts, error, age, self._rng.random())
        elif isinstance(outcome, Retry) and job.attempts >= retry.attempts:
            outcome = DeadLetter(f"asked for a retry after {job.attempts} of {retry.attempts} attempts")
        reason = outcome.reason if isinstance(outcome, DeadLetter) else None
        after = outcome.after if isinstance(outcome, Retry) else 0.0
        failure = _failure(job, int(now * 1000), error, reason or "the task asked for a retry", reason)
        job = msgspec.structs.replace(job, errors=[*job.errors, failure][-ERRORS_KEPT:])
        if reason is not None:
            log.error("%s %s is dead: %s", job.message.type, job.message.id, failure.error)
            return Ending(msgspec.structs.replace(job, lane=None), dead=True)
        log.info(
            "%s %s failed (attempt %d), again in %.1f s: %s",
            job.message.type, job.message.id, job.attempts, after, failure.error,
        )  # fmt: skip
        return Ending(job, retry_at=int((now + after) * 1000))


def _fitting(read: Callable[[], T]) -> T:
    try:
        return read()
    except DecodeError as error:
        raise UnfitError from error


def _future(durable: Awaitable[object]) -> asyncio.Future[object]:
    return durable if isinstance(durable, asyncio.Future) else asyncio.ensure_future(durable)


def _failure(job: Job, at: int, error: BaseException | None, otherwise: str, reason: str | None) -> JobError:
    text = storable(otherwise) if error is None else told(error)
    if reason is not None and error is not None:
        text = f"{text} ({storable(reason)})"
    trace = "" if error is None else trace_of(error)[-TRACE_BYTES:]
    return JobError(at=at, attempt=job.attempts, error=text[:2000], trace=trace)
