"""What becomes of deliveries: handled, tried again later, or dead; each in one commit with its mark."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from eventmill.core.capabilities import Store, Unit
from eventmill.core.claims import Fence
from eventmill.core.clock import Clock
from eventmill.core.context import handling
from eventmill.core.crash import point
from eventmill.core.envelope import Envelopes
from eventmill.core.errors import (
    BackendError,
    ConflictError,
    DecodeError,
    DuplicateError,
    LeaseLostError,
    UnitInterruptedError,
)
from eventmill.core.failure import storable, told, trace_of
from eventmill.core.job import Job, JobError
from eventmill.core.message import Message
from eventmill.core.outcome import DeadLetter, Outcome, Released, Retry, Snooze
from eventmill.runtime.consumer import Consumer
from eventmill.runtime.delivery import Delivery, Holding
from eventmill.runtime.handler import Context
from eventmill.runtime.stages import Stages
from eventmill.runtime.transaction import Transaction, current

log = logging.getLogger("eventmill")

TRACE_BYTES = 8_000

CONFLICTS = (0.002, 0.01, 0.05, 0.2)
"""Seconds before a handler that lost a race for a stream or a document is called again. After the last of these it has failed."""

Durable = asyncio.Future[object]
Settled = Callable[[Sequence[Delivery], Durable], None]

PERSONAL = "[personal]"
"""What stands in the text of an error for a value of a personal field."""

_NOTHING: Sequence[tuple[Delivery, Durable]] = ()


class Settlement:
    """Runs a consumer's handler and stores the outcome.

    One rule everywhere: done when the handler's commit succeeded, otherwise retried, finally
    dead-lettered. A message that must wait becomes a job, and its partition goes on.
    """

    def __init__(
        self, consumer: Consumer, store: Store, envelopes: Envelopes, clock: Clock, rng: random.Random
    ) -> None:
        self._consumer = consumer
        self._store = store
        self._envelopes = envelopes
        self._clock = clock
        self._rng = rng
        self._plain = consumer.handler.plain and consumer.where is None and consumer.timeout is None

    async def handle(
        self, deliveries: Sequence[Delivery], fence: Fence, settled: Settled, conflicts: int = 0
    ) -> Sequence[tuple[Delivery, Durable]]:
        """Handle deliveries as one unit; returns those that became jobs, with the commit that makes them so.

        conflicts: how often it has lost a race already. That is nobody's fault: the handler decided on what it had read,
        often because the commit of the message before it was still on its way to the disk.

        Raises LeaseLostError and BackendError: then nothing was settled.
        """
        while True:
            try:
                return await self._handle(deliveries, fence, settled, conflicts)
            except UnitInterruptedError:
                continue  # undone with others that failed: done again, and no attempt is spent

    async def _handle(
        self, deliveries: Sequence[Delivery], fence: Fence, settled: Settled, conflicts: int
    ) -> Sequence[tuple[Delivery, Durable]]:
        first = deliveries[0]
        consumer = self._consumer
        if first.job is not None and first.job.crashed and first.attempt > consumer.retry.attempts:
            reason = DeadLetter(f"the process handling it died, {first.attempt - 1} times")
            return [(first, await self._give_up(first, fence, settled, reason, None))]
        if self._envelopes.seals:
            await make_readable(self._envelopes, deliveries)
        unit = self._store.unit(first.claim, fence)
        transaction = Transaction(unit, self._envelopes)
        stages = None
        if consumer.handler.staged:
            stages = Stages(transaction, lambda: Transaction(self._store.unit(first.claim, fence), self._envelopes))
        message_token = handling.set(deliveries[-1].message)
        transaction_token = current.set(transaction)
        error: BaseException | None = None
        outcome: Outcome | None = None
        try:
            try:
                if self._plain:
                    result = await self._consumer.handler.call_plain(first.readable, transaction)
                    if result is not None:
                        outcome = consumer.handler.refusal(result)
                else:
                    outcome = await self._call(deliveries, transaction, stages)
            finally:
                if stages is not None:
                    transaction = stages.transaction
                    unit = transaction.unit
                handling.reset(message_token)
                current.reset(transaction_token)
                transaction.close()
            if outcome is None or isinstance(outcome, Released):
                if transaction.pending:
                    await transaction.complete()
                point("handler.done")
                for delivery in deliveries:
                    why = None if outcome is None else outcome.reasons.get(delivery.message.identity)
                    if why is not None:
                        await self._release(unit, delivery, why)
                        continue
                    _mark(unit, delivery)
                    if consumer.inbox:
                        unit.receive(consumer.group, delivery.message)
                    if delivery.note is not None:
                        unit.put(*delivery.note, expected=None)
                durable = _future(await transaction.finish())
                settled(deliveries, durable)
                if transaction.finished is not None:
                    transaction.finished(durable)
                return _NOTHING
            await unit.discard()
        except (LeaseLostError, BackendError, UnitInterruptedError, KeyboardInterrupt):
            await unit.discard()
            raise
        except ConflictError as raised:
            await unit.discard()
            if conflicts < len(CONFLICTS):
                await self._clock.sleep(CONFLICTS[conflicts] * (0.5 + self._rng.random()))
                return await self.handle(deliveries, fence, settled, conflicts + 1)
            error = raised
        except DuplicateError:
            await unit.discard()
            return await self._duplicate(deliveries, fence, settled)
        except BaseException as raised:
            await unit.discard()
            task = asyncio.current_task()
            if isinstance(raised, asyncio.CancelledError) and task is not None and task.cancelling():
                raise  # we are stopping: interrupted is not failed, and spends no attempt
            error = raised
        if len(deliveries) > 1:
            return await self._one_by_one(deliveries, fence, settled)
        if consumer.inbox and await self._received(first):
            # It failed over what the message itself has left when it was handled: a row that is there, a step that is taken.
            return await self._duplicate(deliveries, fence, settled)
        return [(first, await self._failed(first, fence, settled, outcome, error))]

    async def _received(self, delivery: Delivery) -> bool:
        """Whether it is a repeat of what the group has handled. Asked of what failed: what succeeds is refused by the commit."""
        known = await self._store.received(self._consumer.group, [delivery.message.id])
        return delivery.message.identity in known

    async def _call(
        self, deliveries: Sequence[Delivery], transaction: Transaction, stages: Stages | None
    ) -> Outcome | None:
        """None where all is done, or what the handler asks for instead."""
        consumer = self._consumer
        first = deliveries[0]
        if consumer.where is not None:
            # Asked again, because a predicate that raises is a failure of the message like any other.
            deliveries = [delivery for delivery in deliveries if consumer.where(delivery.message)]
            if not deliveries:
                return None

        def context() -> Context:
            key = f"{consumer.group}:{first.message.source}:{first.message.id}"
            positions = [delivery.position for delivery in deliveries]
            return Context(consumer.group, first.attempt, key, first.position, positions)

        if consumer.timeout is None:
            result = await consumer.handler.call(deliveries, transaction, context, stages)
        else:
            async with asyncio.timeout(consumer.timeout):
                result = await consumer.handler.call(deliveries, transaction, context, stages)
        return None if result is None else consumer.handler.refusal(result)

    async def _one_by_one(
        self, deliveries: Sequence[Delivery], fence: Fence, settled: Settled
    ) -> Sequence[tuple[Delivery, Durable]]:
        """A batch failed. Which of them is to blame, each by itself will show."""
        jobs: list[tuple[Delivery, Durable]] = []
        blocked: set[str] = set()
        for delivery in deliveries:
            lane = delivery.lane
            if lane is not None and lane in blocked:
                jobs.append((delivery, await self.set_aside(delivery, fence, settled)))
                continue
            failed = await self.handle([delivery], fence, settled)
            if failed and lane is not None:
                blocked.add(lane)
            jobs += failed
        return jobs

    async def _duplicate(
        self, deliveries: Sequence[Delivery], fence: Fence, settled: Settled
    ) -> Sequence[tuple[Delivery, Durable]]:
        """Somebody of the group has handled it already: only the mark is left to do."""
        if len(deliveries) > 1:
            return await self._one_by_one(deliveries, fence, settled)
        (delivery,) = deliveries
        unit = self._store.unit(delivery.claim, fence)
        _mark(unit, delivery)
        self._finished(delivery, await unit.finish(), settled)
        return _NOTHING

    async def _failed(
        self, delivery: Delivery, fence: Fence, settled: Settled, outcome: Outcome | None, error: BaseException | None
    ) -> Durable:
        if outcome is None and error is not None:
            age = max(0.0, self._clock.now() - delivery.recorded_at / 1000)
            outcome = self._consumer.retry.decide(delivery.attempt, error, age, self._rng.random())
        elif isinstance(outcome, Retry) and delivery.attempt >= self._consumer.retry.attempts:
            outcome = DeadLetter(
                f"asked for a retry after {delivery.attempt} of {self._consumer.retry.attempts} attempts"
            )
        if isinstance(outcome, DeadLetter):
            return await self._give_up(delivery, fence, settled, outcome, error)
        if isinstance(outcome, Snooze):
            return await self._snooze(delivery, fence, settled, outcome)
        after = outcome.after if isinstance(outcome, Retry) else 0.0
        due = int((self._clock.now() + after) * 1000)
        failure = await self._failure(delivery, error, "the handler asked for a retry")
        log.info(
            "%s: %s %s failed (attempt %d), again in %.1f s: %s",
            self._consumer.group, delivery.message.type, delivery.message.id, delivery.attempt, after, failure.error,
        )  # fmt: skip
        unit = self._store.unit(delivery.claim, fence)
        if delivery.job is not None:
            unit.settle(_with(delivery.job, failure), retry_at=due)
        else:
            self._to_job(unit, delivery, self._job(delivery, attempts=1, due=due, errors=[failure]))
        point("retry.staged")
        return self._finished(delivery, await unit.finish(), settled)

    async def _snooze(self, delivery: Delivery, fence: Fence, settled: Settled, outcome: Snooze) -> Durable:
        """Again later, with no attempt spent; the key waits behind it."""
        unit = self._store.unit(delivery.claim, fence)
        due = int((self._clock.now() + outcome.seconds) * 1000)
        if delivery.job is not None:
            unit.settle(msgspec.structs.replace(delivery.job, attempts=delivery.job.attempts - 1), retry_at=due)
        else:
            self._to_job(unit, delivery, self._job(delivery, attempts=0, due=due, errors=[]))
        return self._finished(delivery, await unit.finish(), settled)

    async def park(self, delivery: Delivery, fence: Fence, settled: Settled, reason: str) -> Durable:
        """Dead-letter a message without trying it, and without holding up its key: it came out of order, or is unreadable."""
        unit = self._store.unit(delivery.claim, fence)
        log.error("%s: %s %s is dead: %s", self._consumer.group, delivery.message.type, delivery.message.id, reason)
        await self._release(unit, delivery, reason)
        return self._finished(delivery, await unit.finish(), settled)

    async def _release(self, unit: Unit, delivery: Delivery, reason: str) -> None:
        """Stage it as a dead letter that is in no lane."""
        failure = await self._failure(delivery, None, reason)
        if delivery.job is not None:
            unit.settle(msgspec.structs.replace(_with(delivery.job, failure), lane=None), dead=True)
        else:
            job = self._job(delivery, attempts=0, due=self._now(), errors=[failure])
            self._to_job(unit, delivery, msgspec.structs.replace(job, state="dead", lane=None))

    async def _give_up(
        self, delivery: Delivery, fence: Fence, settled: Settled, outcome: DeadLetter, error: BaseException | None
    ) -> Durable:
        """Dead-letter: kept, with its causes; the key waits behind it unless the consumer says `skip`."""
        failure = await self._failure(delivery, error, outcome.reason, reason=outcome.reason)
        log.error(
            "%s: %s %s is dead: %s", self._consumer.group, delivery.message.type, delivery.message.id, failure.error
        )
        unit = self._store.unit(delivery.claim, fence)
        parks = self._consumer.on_dead == "park"
        if delivery.job is not None:
            dead = _with(delivery.job, failure)
            unit.settle(dead if parks else msgspec.structs.replace(dead, lane=None), dead=True)
        else:
            job = self._job(delivery, attempts=1, due=self._now(), errors=[failure])
            job = msgspec.structs.replace(job, state="dead", lane=job.lane if parks else None)
            self._to_job(unit, delivery, job)
        point("dead.staged")
        return self._finished(delivery, await unit.finish(), settled)

    async def set_aside(self, delivery: Delivery, fence: Fence, settled: Settled) -> Durable:
        """Make a job of a message without trying it: behind its key, or due at once where that is free."""
        unit = self._store.unit(delivery.claim, fence)
        self._to_job(unit, delivery, self._job(delivery, attempts=0, due=self._now(), errors=[]))
        point("parked.staged")
        return self._finished(delivery, await unit.finish(), settled)

    async def note(self, holding: Holding, fence: Fence) -> None:
        """Store how far a partition was looked through."""
        unit = self._store.unit(holding.cursor, fence)
        unit.mark(holding.cursor, holding.tracker, holding.tracker.position)
        await (await unit.finish())

    def _to_job(self, unit: Unit, delivery: Delivery, job: Job) -> None:
        unit.send([job])
        if delivery.note is not None:
            unit.put(*delivery.note, expected=None)
        _mark(unit, delivery)

    def _now(self) -> int:
        """Milliseconds since 1970 UTC."""
        return int(self._clock.now() * 1000)

    def _finished(self, delivery: Delivery, end: Awaitable[object], settled: Settled) -> Durable:
        durable: Durable = asyncio.ensure_future(end)
        settled([delivery], durable)
        return durable

    def _job(self, delivery: Delivery, *, attempts: int, due: int, errors: list[JobError]) -> Job:
        return Job(
            queue=self._consumer.group,
            message=delivery.message,
            due=due,
            lane=delivery.lane,
            attempts=attempts,
            position=delivery.position,
            partition=delivery.holding.cursor.partition if delivery.holding is not None else None,
            recorded_at=delivery.recorded_at,
            errors=errors,
        )

    async def _failure(
        self, delivery: Delivery, error: BaseException | None, otherwise: str, *, reason: str | None = None
    ) -> JobError:
        text = storable(otherwise) if error is None else told(error)
        if reason is not None and error is not None and reason not in text:
            text = f"{text} ({storable(reason)})"
        trace = "" if error is None else trace_of(error)
        if self._envelopes.personal([delivery.message]):
            text, trace = await self._redacted(delivery.message, text, trace)
        trace = trace[-TRACE_BYTES:]
        return JobError(at=self._now(), attempt=delivery.attempt, error=text[:2000], trace=trace)

    async def _redacted(self, message: Message, *texts: str) -> list[str]:
        """The texts without the personal values of the message: what is kept of an error must not outlive a key."""
        sealer = self._envelopes.sealer
        try:
            values = [] if sealer is None else await sealer.secrets(message.type, message.version, message.data)
        except DecodeError:
            return ["an error whose text may hold personal data that could not be told apart"] * len(texts)
        for value in sorted(values, key=len, reverse=True):
            for form in (value, repr(value)[1:-1]):
                texts = tuple(text.replace(form, PERSONAL) if form else text for text in texts)
        return list(texts)


def _future(end: Awaitable[object]) -> Durable:
    return end if isinstance(end, asyncio.Future) else asyncio.ensure_future(end)


def _mark(unit: Unit, delivery: Delivery) -> None:
    """Stage that a delivery is dealt with: its position in the partition, or its job."""
    holding = delivery.holding
    if holding is not None and delivery.position is not None:
        unit.mark(holding.cursor, holding.tracker, delivery.position)
    elif delivery.job is not None:
        unit.settle(delivery.job)


def _with(job: Job, failure: JobError) -> Job:
    return msgspec.structs.replace(job, errors=[*job.errors, failure][-20:])


async def make_readable(envelopes: Envelopes, deliveries: Sequence[Delivery]) -> None:
    """Open personal fields, as far as they can be. What is stored of a message is what was received."""
    sealer = envelopes.sealer
    for delivery in deliveries:
        message = delivery.message
        if sealer is not None and envelopes.personal((message,)):
            data = await sealer.open(message.type, message.version, message.data)
            delivery.readable = msgspec.structs.replace(message, data=data)
