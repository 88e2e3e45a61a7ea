"""Handing events to a projection's methods, in the tables of one generation."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any, cast

from eventmill.core.capabilities import Unit
from eventmill.core.context import handling
from eventmill.core.errors import ConfigurationError, LeaseLostError
from eventmill.core.job import Job
from eventmill.core.message import Message, Partition
from eventmill.core.outcome import DeadLetter, Outcome, Retry
from eventmill.core.rows import Rows, SqlParameters
from eventmill.core.stream import Append, Query
from eventmill.patterns.projection.definition import Branch, Projection
from eventmill.patterns.projection.generations import Ledger
from eventmill.patterns.projection.tables import Tables
from eventmill.runtime.delivery import Delivery
from eventmill.runtime.handler import Context
from eventmill.runtime.stages import Stages
from eventmill.runtime.transaction import Sendable, Transaction, current

Gone = Callable[[], Awaitable[bool]]


Effect = Callable[[Transaction], None]
"""Something that leaves with the commit, staged in the transaction that it is given."""


class _Held:
    """Takes what `send` stages, until it is known whether it leaves. It stands for a transaction, and for its unit."""

    def __init__(self) -> None:
        self.effects: list[Effect] = []

    @property
    def unit(self) -> _Held:
        return self

    def send(self, jobs: Sequence[Job]) -> None:
        self.effects.append(lambda transaction: transaction.unit.send(jobs))

    def put(self, key: str, data: bytes | None, *, expected: int | None) -> None:
        self.effects.append(lambda transaction: transaction.unit.put(key, data, expected=expected))

    def defer(self, work: Callable[[Unit], Awaitable[None]]) -> None:
        self.effects.append(lambda transaction: transaction.defer(work))


class ProjectionTransaction(Transaction):
    """The transaction that a projection's methods get: `{name}` in SQL is the table, and side effects wait for a verdict."""

    __slots__ = ("_delivery", "_resolve", "effects")

    def __init__(self, transaction: Transaction, tables: Tables) -> None:
        super().__init__(transaction.unit, transaction._envelopes)
        self._resolve = resolve = tables.resolve
        execute = transaction.unit.execute
        self.execute: Callable[..., Awaitable[Rows]] = lambda sql, parameters=(): execute(resolve(sql), parameters)
        self._delivery: Delivery | None = None
        self.effects: list[tuple[Delivery, Effect]] = []

    def at(self, delivery: Delivery | None) -> None:
        """What leaves from here on, leaves because of this delivery; None: of none in particular."""
        self._delivery = delivery

    def _because(self) -> Delivery:
        if self._delivery is None:
            raise ConfigurationError(
                "a method with batch=True cannot publish or send: which of its events it does so for is not known; "
                "give these types a method that takes one event"
            )
        return self._delivery

    def executemany(self, sql: str, rows: Sequence[SqlParameters]) -> Awaitable[int]:
        return self._unit.executemany(self._resolve(sql), rows)

    def publish(self, *events: object) -> None:
        """Publish when this commits, if this generation is the one whose side effects count for the event."""
        delivery = self._because()
        token = handling.set(delivery.message)
        try:
            messages = [self._envelopes(event, unsealed=True) for event in events]
        finally:
            handling.reset(token)
        self.effects.append((delivery, lambda transaction: transaction.publish(*messages)))

    def send(self, call: Sendable, *, after: float | None = None, at: datetime | None = None) -> str:
        """Let a worker run a task when this commits, if this generation is the one whose side effects count."""
        delivery = self._because()
        held = _Held()
        identity = call.stage(cast(Transaction, held), after=after, at=at)
        self.effects += [(delivery, effect) for effect in held.effects]
        return identity

    def stage(self, append: Append) -> None:
        raise ConfigurationError(
            "a projection decides nothing: append to streams in a handler (@app.on), which runs once"
        )

    def require(self, *queries: Query, after: int) -> None:
        raise ConfigurationError("a projection decides nothing: put conditions in a handler (@app.on), which runs once")

    def defer(self, work: Callable[[Unit], Awaitable[None]]) -> None:
        raise ConfigurationError(
            "a projection sends no task that has to be unique: publish an event that a handler sends it for"
        )

    def put(self, key: str, data: bytes | None, *, expected: int | None = None) -> None:
        raise ConfigurationError(
            "a projection keeps what it knows in its tables: a document would not be rebuilt beside the live one"
        )


class ProjectionHandler:
    """A consumer's handler that folds events into one generation."""

    plain = False
    staged = False
    event_class: object = None

    def __init__(self, projection: Projection, tables: Tables, ledger: Ledger | None, gone: Gone | None = None) -> None:
        """ledger: where it stands whose side effects count; None where none of them leaves. gone: whether the
        generation has been dropped."""
        self.name = f"projection {projection.name}"
        self._projection = projection
        self._tables = tables
        self._ledger = ledger
        self._gone = gone

    def call_plain(self, message: Message, transaction: Transaction) -> Awaitable[Any]:
        raise NotImplementedError("a projection is handed batches")

    def refusal(self, result: object) -> Outcome | None:
        return result if isinstance(result, Retry | DeadLetter) else None

    async def call(
        self,
        deliveries: Sequence[Delivery],
        transaction: Transaction,
        context: Callable[[], Context],
        stages: Stages | None = None,
    ) -> object:
        """Raises whatever a method raises, and LeaseLostError where the generation's tables are not there any more."""
        own = ProjectionTransaction(transaction, self._tables)
        token = current.set(own)
        try:
            outcome = await self._fold(deliveries, own, context)
        except Exception:
            if self._gone is not None and await self._gone():
                raise LeaseLostError(f"{self.name}: generation {self._tables.generation} was dropped") from None
            raise
        finally:
            current.reset(token)
            own.close()
        if outcome is None and own.effects:
            await self._emit(own.effects, transaction)
        return outcome

    async def _fold(
        self, deliveries: Sequence[Delivery], own: ProjectionTransaction, context: Callable[[], Context]
    ) -> object:
        branch_of = self._projection.branch
        at, end = 0, len(deliveries)
        while at < end:
            delivery = deliveries[at]
            branch = branch_of(delivery.message.type)
            together: Sequence[Delivery] = (delivery,)
            if branch.batch:
                together = self._run(deliveries, at, branch)
            own.at(None if branch.batch else delivery)
            outcome = branch.handler.refusal(await branch.handler.call(together, own, context))
            if outcome is not None:
                return outcome
            at += len(together)
        return None

    def _run(self, deliveries: Sequence[Delivery], at: int, branch: Branch) -> Sequence[Delivery]:
        """As many as follow each other and are the same method's."""
        branch_of = self._projection.branch
        end = at + 1
        while end < len(deliveries) and branch_of(deliveries[end].message.type) is branch:
            end += 1
        return deliveries[at:end]

    async def _emit(self, effects: Sequence[tuple[Delivery, Effect]], transaction: Transaction) -> None:
        """Stage those that leave. The state is read within the transaction: no swap comes between verdict and commit."""
        if self._ledger is None:
            return
        state, _ = await self._ledger.read(transaction.unit)
        number = self._tables.generation
        if state is None or number not in state.generations:
            raise LeaseLostError(f"{self.name}: generation {number} was dropped")
        for by, effect in effects:
            if state.emits(number, _partition(by), by.position):
                effect(transaction)


def _partition(delivery: Delivery) -> Partition | None:
    if delivery.holding is not None:
        return delivery.holding.cursor.partition
    return None if delivery.job is None else delivery.job.partition
