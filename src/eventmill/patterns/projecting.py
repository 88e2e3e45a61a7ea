"""Handing events to a projection's methods, in the tables of one generation."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from eventmill.core.context import handling
from eventmill.core.errors import ConfigurationError, LeaseLostError
from eventmill.core.message import Message, Partition
from eventmill.core.outcome import DeadLetter, Outcome, Retry
from eventmill.core.rows import Rows, SqlParameters
from eventmill.patterns.generations import Ledger
from eventmill.patterns.projection import Branch, Projection
from eventmill.patterns.tables import Tables
from eventmill.runtime.delivery import Delivery
from eventmill.runtime.handler import Context
from eventmill.runtime.stages import Stages
from eventmill.runtime.transaction import Transaction, current

Gone = Callable[[], Awaitable[bool]]


class ProjectionTransaction(Transaction):
    """The transaction that a projection's methods get: `{name}` in SQL is the table, and side effects wait for a verdict."""

    __slots__ = ("_delivery", "_resolve", "published")

    def __init__(self, transaction: Transaction, tables: Tables) -> None:
        super().__init__(transaction.unit, transaction._envelopes)
        self._resolve = resolve = tables.resolve
        execute = transaction.unit.execute
        self.execute: Callable[..., Awaitable[Rows]] = lambda sql, parameters=(): execute(resolve(sql), parameters)
        self._delivery: Delivery | None = None
        self.published: list[tuple[Delivery, Message]] = []

    def at(self, delivery: Delivery | None) -> None:
        """What is published from here on, is published because of this delivery; None: of none in particular."""
        self._delivery = delivery

    def executemany(self, sql: str, rows: Sequence[SqlParameters]) -> Awaitable[int]:
        return self._unit.executemany(self._resolve(sql), rows)

    def publish(self, *events: object) -> None:
        """Publish when this commits, if this generation is the one whose side effects count for the event."""
        delivery = self._delivery
        if delivery is None:
            raise ConfigurationError(
                "a method with batch=True cannot publish: which of its events it publishes for is not known; "
                "give these types a method that takes one event"
            )
        token = handling.set(delivery.message)
        try:
            self.published += [(delivery, self._envelopes(event)) for event in events]
        finally:
            handling.reset(token)

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
        if outcome is None and own.published:
            await self._emit(own.published, transaction)
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

    async def _emit(self, published: Sequence[tuple[Delivery, Message]], transaction: Transaction) -> None:
        """Stage those that leave. The state is read within the transaction: no swap comes between verdict and commit."""
        if self._ledger is None:
            return
        state, _ = await self._ledger.read(transaction.unit)
        number = self._tables.generation
        if state is None or number not in state.generations:
            raise LeaseLostError(f"{self.name}: generation {number} was dropped")
        transaction.unit.append(
            [message for by, message in published if state.emits(number, _partition(by), by.position)]
        )


def _partition(delivery: Delivery) -> Partition | None:
    if delivery.holding is not None:
        return delivery.holding.cursor.partition
    return None if delivery.job is None else delivery.job.partition
