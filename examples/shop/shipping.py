"""Shipping: ships a part of an order when it is paid and its goods are reserved, whichever comes last."""

from __future__ import annotations

from eventmill import Message, Transaction

from . import audit
from .events import OrderShipped, PaymentCaptured, StockReserved
from .wiring import service

app = service("shipping")


@app.setup
async def tables(tx: Transaction) -> None:
    await audit.prepare(tx)
    await tx.execute(
        """
        CREATE TABLE IF NOT EXISTS ready (
            n INTEGER PRIMARY KEY AUTOINCREMENT,
            order_id TEXT NOT NULL,
            chunk INTEGER NOT NULL,
            what TEXT NOT NULL
        )
        """
    )
    await tx.execute("CREATE INDEX IF NOT EXISTS ready_by_part ON ready (order_id, chunk)")
    await tx.execute(
        """
        CREATE TABLE IF NOT EXISTS shipments (
            n INTEGER PRIMARY KEY AUTOINCREMENT,
            order_id TEXT NOT NULL,
            chunk INTEGER NOT NULL
        )
        """
    )


@app.on(PaymentCaptured)
async def paid(event: PaymentCaptured, tx: Transaction, message: Message) -> None:
    await audit.handled(tx, "shipping.paid", message)
    await ship_when_ready(tx, event.order_id, event.chunk, "paid")


@app.on(StockReserved)
async def reserved(event: StockReserved, tx: Transaction, message: Message) -> None:
    await audit.handled(tx, "shipping.reserved", message)
    await ship_when_ready(tx, event.order_id, event.chunk, "reserved")


async def ship_when_ready(tx: Transaction, order_id: str, chunk: int, what: str) -> None:
    """Note one of the two conditions, and ship when it was the last one missing."""
    part = (order_id, chunk)
    await tx.execute("INSERT INTO ready (order_id, chunk, what) VALUES (?, ?, ?)", (*part, what))
    [(conditions,)] = await tx.execute("SELECT count(DISTINCT what) FROM ready WHERE order_id = ? AND chunk = ?", part)
    if conditions == 2:
        await tx.execute("INSERT INTO shipments (order_id, chunk) VALUES (?, ?)", part)
        tx.publish(OrderShipped(order_id, chunk))
