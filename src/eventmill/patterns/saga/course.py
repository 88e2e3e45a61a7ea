"""The course of one delivery through its instance: each step's effects and the record of it in one commit."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec

from eventmill.core.errors import BackendError, LeaseLostError, UnitInterruptedError
from eventmill.core.failure import storable, told
from eventmill.core.message import Message
from eventmill.core.outcome import DeadLetter, Retry
from eventmill.core.retry import RetryPolicy
from eventmill.patterns.saga import decide, locks
from eventmill.patterns.saga.decide import End, Expire, Interrupted, Run, Undo, Wait
from eventmill.patterns.saga.definition import Saga
from eventmill.patterns.saga.instance import Instance, StepRecord, document_key, encode, ended_key
from eventmill.patterns.saga.shape import StepShape
from eventmill.patterns.saga.step import Function, Step, StepContext
from eventmill.patterns.saga.wake import wake
from eventmill.patterns.surroundings import Surroundings
from eventmill.runtime.stages import Stages

NOT_ITS_OWN = (LeaseLostError, BackendError)
"""What a step may meet that is no failure of its own: the runtime sees to it."""


class Course:
    """From where the instance stands to where it rests: it waits, it has ended, or it needs a person.

    careful: note that a step begins before it is run, even where it acts on nothing outside: its process died before.
    """

    def __init__(
        self,
        saga: Saga,
        instance: Instance,
        version: int,
        message: Message,
        stages: Stages,
        where: Surroundings,
        *,
        careful: bool,
    ) -> None:
        self._saga = saga
        self._instance = instance
        self._version = version
        self._message = message
        self._stages = stages
        self._where = where
        self._careful = careful
        self._place = document_key(instance.saga, instance.key)
        self._state: Any = None
        self._written = False
        self.commits = 0

    async def run(self) -> None:
        """Go on until it rests. What is open then is for the runtime to commit, with the message's mark."""
        while True:
            do = decide.following(self._saga.shape, self._instance, self._where.now())
            if isinstance(do, Wait | End):
                await self._rest(do)
                return
            if self._written:
                await self._store()
            if isinstance(do, Run):
                await self._run(self._saga.steps[do.step.name])
            elif isinstance(do, Undo):
                await self._undo(self._saga.steps[do.step.name], do.outcome)
            elif isinstance(do, Expire):
                within = self._saga.steps[do.step.name].answer_within
                self._failed(do.step, TimeoutError(f"no answer within {within:g} s"), known=False)
            elif isinstance(do, Interrupted):
                error = InterruptedError("the process that ran it is gone")
                self._failed(do.step, error, known=not do.step.outside)

    # Storing

    async def _store(self, *, durable: bool = False) -> None:
        """Commit the record with what was done, and go on."""
        self._instance.driver = self._message.id
        self._stages.transaction.put(self._place, encode(self._instance), expected=self._version)
        await self._stages.commit(durable=durable)
        self._version += 1
        self._written = False
        self.commits += 1

    async def _rest(self, do: Wait | End) -> None:
        instance, tx, now = self._instance, self._stages.transaction, self._where.now()
        jobs = []
        if isinstance(do, End):
            decide.ended(instance, do.state, now)
            if instance.locks or instance.wants:
                jobs += [
                    wake(self._where.ids(), each.saga, each.key, each.queue, each.topic, due=now)
                    for each in await locks.release(tx, instance, now)
                ]
            tx.put(ended_key(instance), b"", expected=None)
        elif do.until is not None and (instance.timer is None or not now < instance.timer <= do.until):
            instance.timer = do.until
            jobs.append(
                wake(self._where.ids(), instance.saga, instance.key, instance.queue, instance.topic,
                     due=do.until, because=instance)
            )  # fmt: skip
        if jobs:
            tx.unit.send(jobs)
        instance.driver = None
        tx.put(self._place, encode(instance), expected=self._version)

    # Doing

    async def _run(self, step: Step) -> None:
        shape, instance = step.shape, self._instance
        held = (list(instance.locks), list(instance.wants))
        if step.locks is not None:
            try:
                resources = step.resources(self._read())
            except Exception as error:
                decide.begun(instance, shape, self._where.now())
                self._failed(shape, error, known=True)
                return
            if not await self._lock(step, resources):
                return
        record = decide.begun(instance, shape, self._where.now())
        if shape.outside or self._careful:
            await self._store(durable=True)
            held = (list(instance.locks), list(instance.wants))
        context = StepContext(instance, shape.name, record.attempts, None, self._saga.registry)
        while True:
            try:
                returned = await self._call(step.run, step.timeout, context)
                if not isinstance(returned, DeadLetter | Retry):
                    self._keep(returned)
                break
            except UnitInterruptedError:
                if not shape.outside:
                    raise
                await self._stages.undo()  # nobody's failure; what it did outside, it does again under the same key
            except NOT_ITS_OWN:
                raise
            except Exception as error:
                await self._back(held)
                self._failed(shape, error, known=not shape.outside)
                return
        if isinstance(returned, DeadLetter | Retry):
            await self._back(held)
            self._refused(step, record, returned)
            return
        now = self._where.now()
        answer_by = None if step.answer_within is None else now + int(step.answer_within * 1000)
        decide.done(instance, shape, now, answer_by)
        self._written = True

    async def _undo(self, step: Step, outcome: decide.Outcome) -> None:
        assert step.undo is not None
        shape, instance = step.shape, self._instance
        record = instance.step(shape.name)
        assert record is not None
        context = StepContext(instance, shape.name, record.undo_attempts + 1, outcome, self._saga.registry)
        try:
            returned = await self._call(step.undo, step.timeout, context)
            if not isinstance(returned, DeadLetter | Retry):
                self._keep(returned)
        except (UnitInterruptedError, *NOT_ITS_OWN):
            raise
        except Exception as error:
            await self._stages.undo()
            self._undo_failed(step, record, error)
            return
        if isinstance(returned, Retry):
            await self._stages.undo()
            self._undo_failed(step, record, None, after=returned.after)
        elif isinstance(returned, DeadLetter):
            await self._stages.undo()
            decide.undo_failed(instance, shape, self._where.now(), error=storable(returned.reason), retry_at=None)
        else:
            decide.undone(instance, shape, self._where.now())
            self._written = True

    async def _call(self, function: Function, timeout: float | None, context: StepContext) -> object:
        try:
            async with asyncio.timeout(timeout):
                return await function(self._read(), self._stages.transaction, context)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise  # we are stopping
            raise RuntimeError("the step cancelled itself") from error

    async def _lock(self, step: Step, resources: Sequence[str]) -> bool:
        instance, now = self._instance, self._where.now()
        wait = step.on_locked == "wait"
        held = (list(instance.locks), list(instance.wants))
        taken = await locks.take(self._stages.transaction, instance, resources, now, wait=wait)
        if taken is None:
            return True
        if wait:
            decide.locked(instance, step.shape, now, patience=now + int(step.lock_timeout * 1000), resource=taken)
            self._written = True
        else:
            await self._back(held)
            decide.begun(instance, step.shape, now)
            decide.failed(self._saga.shape, instance, step.shape, now, error=f"{taken} is locked", known=True)
        return False

    async def _back(self, held: tuple[list[str], list[str]]) -> None:
        """Take back what the step wrote, and the locks it took."""
        await self._stages.undo()
        self._instance.locks, self._instance.wants = held
        self._state = None

    # The user's state

    def _read(self) -> Any:
        if self._state is None:
            self._state = self._saga.read(self._instance.data, self._instance.schema)
        return self._state

    def _keep(self, returned: object) -> None:
        if returned is not None and not self._saga.is_state(returned):
            raise TypeError(f"a step returned {type(returned).__name__}: it may return the saga's state, or nothing")
        if returned is not None:
            self._state = returned
        if returned is not None or self._saga.mutable:
            self._instance.data = msgspec.Raw(self._saga.write(self._state))
            self._instance.schema = self._saga.schema

    # Failing

    def _failed(self, shape: StepShape, error: Exception, *, known: bool) -> None:
        record = self._instance.step(shape.name)
        assert record is not None
        at = self._again(self._saga.steps[shape.name].retry, record.attempts, error, record.started_at)
        decide.failed(
            self._saga.shape, self._instance, shape, self._where.now(), error=_words(error), known=known, retry_at=at
        )
        self._state = None

    def _refused(self, step: Step, record: StepRecord, outcome: DeadLetter | Retry) -> None:
        now = self._where.now()
        if isinstance(outcome, DeadLetter):
            error, known, at = storable(outcome.reason), True, None
        else:
            error, known = "it asked for another attempt", not step.shape.outside
            at = now + int(outcome.after * 1000) if record.attempts < step.retry.attempts else None
        decide.failed(self._saga.shape, self._instance, step.shape, now, error=error, known=known,
                      refused=isinstance(outcome, DeadLetter), retry_at=at)  # fmt: skip

    def _undo_failed(self, step: Step, record: StepRecord, error: Exception | None, after: float = 0.0) -> None:
        now, attempt, policy = self._where.now(), record.undo_attempts + 1, step.undo_retry
        if error is not None:
            at = self._again(policy, attempt, error, record.ended_at or now)
        else:
            at = now + int(after * 1000) if attempt < policy.attempts else None
        words = "it asked for another attempt" if error is None else _words(error)
        decide.undo_failed(self._instance, step.shape, now, error=words, retry_at=at)
        self._state = None

    def _again(self, policy: RetryPolicy, attempt: int, error: Exception, since: int) -> int | None:
        """When to try again (milliseconds), or None."""
        now = self._where.now()
        outcome = policy.decide(attempt, error, max(0.0, (now - since) / 1000), self._where.rng.random())
        return now + int(outcome.after * 1000) if isinstance(outcome, Retry) else None


def _words(error: Exception) -> str:
    return told(error)[:2_000]
