"""Order: the shop's front door. What it accepts is in its own ledger and on its way in one commit."""

from __future__ import annotations

from eventmill import Transaction

from .events import GoodsReturned, Intake, LinesRejected, OrderPlaced, StockAdjusted
from .wiring import NUMBER, service

app = service("order")


@app.setup
async def tables(tx: Transaction) -> None:
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


async def accept(tx: Transaction, event: Intake) -> None:
    """Take one part of an order, a return, an adjustment, or some rejected lines into the shop."""
    match event:
        case OrderPlaced():
            row = ("order", event.order_id, event.chunk, sum(line.amount for line in event.lines))
        case GoodsReturned():
            row = ("return", event.return_id, event.chunk, sum(line.amount for line in event.lines))
        case StockAdjusted():
            row = ("adjustment", event.invoice, event.chunk, 0)
        case LinesRejected():
            row = ("rejected", "", event.lines[0].number, 0)
    await tx.execute(
        "INSERT INTO accepted (kind, invoice, chunk, amount, lines) VALUES (?, ?, ?, ?, ?)", (*row, len(event.lines))
    )
    tx.publish(event)
