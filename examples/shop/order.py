"""Order: the shop's front door. An order lives from its events; what is accepted is in a ledger, too, in one commit."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from eventmill import Aggregate, Message, Transaction

from . import audit
from .events import (
    GoodsReturned,
    Intake,
    LinesRejected,
    OrderCancelled,
    OrderDispatched,
    OrderPlaced,
    OrderShipped,
    StockAdjusted,
)
from .wiring import NUMBER, service

app = service("order")

Part = OrderPlaced | GoodsReturned | StockAdjusted


class Order(Aggregate, name="order", snapshot_every=50):
    """All that came in under one invoice number, part by part, and how far it has left the house.

    The keys of each are the parts: the numbers of their first lines.
    """

    placed: dict[int, int] = msgspec.field(default_factory=dict)
    """What each part costs."""
    returned: dict[int, int] = msgspec.field(default_factory=dict)
    """What each part of a return is worth."""
    adjusted: dict[int, int] = msgspec.field(default_factory=dict)
    """How many lines of each part only move goods."""
    dispatched: list[int] = msgspec.field(default_factory=list)
    cancelled: list[int] = msgspec.field(default_factory=list)

    @property
    def open(self) -> int:
        """How many of its parts have neither left the house nor been cancelled."""
        return len(self.placed) - len(self.dispatched) - len(self.cancelled)

    def take(self, part: Part) -> Iterator[Part]:
        """Accept a part, unless it is here already."""
        known = {OrderPlaced: self.placed, GoodsReturned: self.returned, StockAdjusted: self.adjusted}[type(part)]
        if part.chunk not in known:
            yield part

    def dispatch(self, chunk: int) -> Iterator[OrderDispatched]:
        """A part has left the house."""
        if chunk not in self.placed:
            raise ValueError(f"order {self.id} has no part {chunk} that could have been shipped")
        if chunk not in self.dispatched:
            yield OrderDispatched(self.id, chunk, self.open - 1)

    def cancel(self, chunk: int) -> Iterator[OrderCancelled]:
        """A part will not be shipped."""
        if chunk in self.dispatched:
            raise ValueError(f"order {self.id}: part {chunk} has left the house, and cannot be cancelled")
        if chunk not in self.cancelled:
            yield OrderCancelled(self.id, chunk, self.open - 1)

    def evolve(self, event: OrderPlaced | GoodsReturned | StockAdjusted | OrderDispatched | OrderCancelled) -> None:
        match event:
            case OrderPlaced(chunk=chunk, lines=lines):
                self.placed[chunk] = sum(line.amount for line in lines)
            case GoodsReturned(chunk=chunk, lines=lines):
                self.returned[chunk] = -sum(line.amount for line in lines)
            case StockAdjusted(chunk=chunk, lines=lines):
                self.adjusted[chunk] = len(lines)
            case OrderDispatched(chunk=chunk):
                self.dispatched.append(chunk)
            case OrderCancelled(chunk=chunk):
                self.cancelled.append(chunk)


@app.setup
async def tables(tx: Transaction) -> None:
    await audit.prepare(tx)
    await tx.execute(
        f"""
        CREATE TABLE IF NOT EXISTS accepted (
            {NUMBER},
            kind TEXT NOT NULL,
            invoice TEXT NOT NULL,
            chunk BIGINT NOT NULL,
            lines BIGINT NOT NULL,
            amount BIGINT NOT NULL
        )
        """
    )
    await tx.execute(f"CREATE TABLE IF NOT EXISTS cancelled ({NUMBER}, order_id TEXT NOT NULL, chunk BIGINT NOT NULL)")


async def accept(tx: Transaction, event: Intake) -> None:
    """Take one part of an order, a return, an adjustment, or some rejected lines into the shop."""
    match event:
        case OrderPlaced():
            row = ("order", event.order_id, event.chunk, sum(line.amount for line in event.lines))
            await app.execute(Order, event.order_id, Order.take, event)
        case GoodsReturned():
            row = ("return", event.return_id, event.chunk, sum(line.amount for line in event.lines))
            await app.execute(Order, event.return_id, Order.take, event)
        case StockAdjusted():
            row = ("adjustment", event.invoice, event.chunk, 0)
            await app.execute(Order, event.invoice, Order.take, event)
        case LinesRejected():
            row = ("rejected", "", event.lines[0].number, 0)
            tx.publish(event)
    await tx.execute(
        "INSERT INTO accepted (kind, invoice, chunk, amount, lines) VALUES (?, ?, ?, ?, ?)", (*row, len(event.lines))
    )


@app.on(OrderShipped)
async def dispatched(event: OrderShipped, tx: Transaction, message: Message) -> None:
    await app.execute(Order, event.order_id, Order.dispatch, event.chunk)
    await audit.handled(tx, "order.dispatched", message)


async def cancel(tx: Transaction, order_id: str, chunk: int) -> None:
    """Give a part of an order up; the ledger says so, too."""
    await app.execute(Order, order_id, Order.cancel, chunk)
    await tx.execute("INSERT INTO cancelled (order_id, chunk) VALUES (?, ?)", (order_id, chunk))
