"""One attempt at a task: decoded, run in a transaction, and what becomes of it."""

from __future__ import annotations

import asyncio
import logging
import random
import traceback
from collections.abc import Awaitable, Mapping
from concurrent.futures import Executor
from contextvars import copy_context
from functools import partial
from typing import Any

import msgspec

from eventmill.core.capabilities import Store
from eventmill.core.claims import Fence
from eventmill.core.clock import Clock
from eventmill.core.context import handling
from eventmill.core.crash import point
from eventmill.core.envelope import Envelopes
from eventmill.core.errors import (
    BackendError,
    ConfigurationError,
    LeaseLostError,
    UnitInterruptedError,
)
from eventmill.core.job import Job, JobError
from eventmill.core.outcome import DeadLetter, Outcome, Retry, Snooze
from eventmill.core.retry import RetryPolicy, exponential
from eventmill.patterns.tasks.context import TaskContext
from eventmill.patterns.tasks.task import Task
from eventmill.runtime.ending import Ending
from eventmill.runtime.transaction import SyncTransaction, Transaction, current

log = logging.getLogger("eventmill")

TRACE_BYTES = 8_000
ERRORS_KEPT = 20

UNKNOWN = exponential(1.0, factor=3.0, attempts=8)
"""While services are deployed, an old worker may meet a new task: a new one will claim it."""


class Attempts:
    """Runs claimed jobs as the tasks they are of. Done when the commit succeeded, otherwise retried, finally dead.

    A task's own writes and the end of its job are one commit. A task that wrote nothing needs none of its own: its end is
    returned, and settled together with others.
    """

    def __init__(
        self,
        tasks: Mapping[str, Task[..., Any]],
        *,
        store: Store,
        envelopes: Envelopes,
        clock: Clock,
        rng: random.Random,
        threads: Executor,
    ) -> None:
        self._tasks = tasks
        self._store = store
        self._envelopes = envelopes
        self._clock = clock
        self._rng = rng
        self._threads = threads

    async def run(self, job: Job, fence: Fence) -> Ending | asyncio.Future[object]:
        """One attempt. Raises LeaseLostError and BackendError: then nothing was settled."""
        task = self._tasks.get(job.message.type)
        if task is None:
            return self._failed(
                job, UNKNOWN, None, ConfigurationError(f"{job.message.type}: no such task is known here")
            )
        if job.crashed and job.attempts > task.retry.attempts:
            reason = f"the process running it died, {job.attempts - 1} times"
            return self._failed(job, task.retry, DeadLetter(reason), None)
        unit = self._store.unit(job, fence)
        transaction = Transaction(unit, self._envelopes)
        message_token = handling.set(job.message)
        transaction_token = current.set(transaction)
        outcome: Outcome | None = None
        error: BaseException | None = None
        try:
            try:
                if task.timeout is None:
                    result = await self._call(task, job, transaction)
                else:
                    async with asyncio.timeout(task.timeout):
                        result = await self._call(task, job, transaction)
            finally:
                handling.reset(message_token)
                current.reset(transaction_token)
                transaction.close()
            if result is not None:
                outcome = task.refusal(result)
            if outcome is None:
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
            return await self.run(job, fence)
        except BaseException as raised:
            await unit.discard()
            running = asyncio.current_task()
            if isinstance(raised, asyncio.CancelledError) and running is not None and running.cancelling():
                raise  # we are stopping: interrupted is not failed, and spends no attempt
            error = raised
        return self._failed(job, task.retry, outcome, error)

    def _call(self, task: Task[..., Any], job: Job, transaction: Transaction) -> Awaitable[Any]:
        """Begin the call; what it returns is to be awaited. Raises DecodeError."""
        arguments = task.arguments
        values: list[object] = []
        if not arguments.none:
            given = arguments.decode(job.message.data)
            for want in arguments.wants:
                if want[0] != "@":
                    values.append(getattr(given, want))
                elif want == "@transaction":
                    values.append(transaction)
                elif want == "@sync":
                    values.append(SyncTransaction(transaction, asyncio.get_running_loop()))
                elif want == "@message":
                    values.append(job.message)
                else:
                    values.append(self._context(task, job))
        function = task.function
        if arguments.keywords:
            last = len(values) - len(arguments.keywords)
            function = partial(function, **dict(zip(arguments.keywords, values[last:], strict=True)))
            del values[last:]
        if task.sync:
            scope = copy_context()
            return asyncio.get_running_loop().run_in_executor(self._threads, scope.run, function, *values)
        called: Awaitable[Any] = function(*values)
        return called

    def _context(self, task: Task[..., Any], job: Job) -> TaskContext:
        return TaskContext(task.name, job.attempts, f"{task.name}:{job.message.id}", None, id=job.message.id)

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


def _future(durable: Awaitable[object]) -> asyncio.Future[object]:
    return durable if isinstance(durable, asyncio.Future) else asyncio.ensure_future(durable)


def _failure(job: Job, at: int, error: BaseException | None, otherwise: str, reason: str | None) -> JobError:
    text = otherwise if error is None else f"{type(error).__name__}: {error}"
    if reason is not None and reason not in text:
        text = f"{text} ({reason})"
    trace = "" if error is None else "".join(traceback.format_exception(error))[-TRACE_BYTES:]
    return JobError(at=at, attempt=job.attempts, error=text[:2000], trace=trace)
