"""Shipping: ships a part of an order when it is told to, or when it is paid and its goods are reserved, whichever comes last."""

from __future__ import annotations

from eventmill import Message, Transaction

from . import audit
from .events import OrderShipped, PaymentCaptured, ShipOrder, StockReserved
from .wiring import CHOREOGRAPHED, NUMBER, service

app = service("shipping")


@app.setup
async def tables(tx: Transaction) -> None:
    await audit.prepare(tx)
    await tx.execute(
        f"""
        CREATE TABLE IF NOT EXISTS ready (
            {NUMBER},
            order_id TEXT NOT NULL,
            chunk BIGINT NOT NULL,
            what TEXT NOT NULL
        )
        """
    )
    await tx.execute(
        "CREATE TABLE IF NOT EXISTS parts (order_id TEXT, chunk BIGINT, conditions INTEGER, PRIMARY KEY (order_id, chunk))"
    )
    await tx.execute(
        f"""
        CREATE TABLE IF NOT EXISTS shipments (
            {NUMBER},
            order_id TEXT NOT NULL,
            chunk BIGINT NOT NULL
        )
        """
    )


async def ship(tx: Transaction, order_id: str, chunk: int) -> None:
    await tx.execute("INSERT INTO shipments (order_id, chunk) VALUES (?, ?)", (order_id, chunk))
    tx.publish(OrderShipped(order_id, chunk))


async def ship_when_ready(tx: Transaction, order_id: str, chunk: int, what: str) -> None:
    """Note one of the two conditions, and ship when it was the last one missing.

    The two may come at the same moment, in two transactions: the part's row is where one waits for the other.
    """
    part = (order_id, chunk)
    await tx.execute("INSERT INTO ready (order_id, chunk, what) VALUES (?, ?, ?)", (*part, what))
    [(conditions,)] = await tx.execute(
        "INSERT INTO parts (order_id, chunk, conditions) VALUES (?, ?, 1)"
        " ON CONFLICT (order_id, chunk) DO UPDATE SET conditions = parts.conditions + 1 RETURNING conditions",
        part,
    )
    if conditions == 2:
        await ship(tx, order_id, chunk)


if CHOREOGRAPHED:

    @app.on(PaymentCaptured)
    async def paid(event: PaymentCaptured, tx: Transaction, message: Message) -> None:
        await audit.handled(tx, "shipping.paid", message)
        await ship_when_ready(tx, event.order_id, event.chunk, "paid")

    @app.on(StockReserved)
    async def reserved(event: StockReserved, tx: Transaction, message: Message) -> None:
        await audit.handled(tx, "shipping.reserved", message)
        await ship_when_ready(tx, event.order_id, event.chunk, "reserved")

else:

    @app.on(ShipOrder, group="shipping.ship")
    async def commanded(command: ShipOrder, tx: Transaction, message: Message) -> None:
        await audit.handled(tx, "shipping.ship", message)
        await ship(tx, command.order_id, command.chunk)
