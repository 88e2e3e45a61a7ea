"""Customer: what each customer has spent, returns taken off, and since when the shop knows them."""

from __future__ import annotations

from collections.abc import Sequence

from eventmill import Message, Transaction

from . import audit
from .events import CustomerJoined, PaymentCaptured, PaymentRefunded, Share
from .wiring import NUMBER, service

app = service("customer")


@app.setup
async def tables(tx: Transaction) -> None:
    await audit.prepare(tx)
    await tx.execute(
        f"""
        CREATE TABLE IF NOT EXISTS entries (
            {NUMBER},
            invoice TEXT NOT NULL,
            chunk BIGINT NOT NULL,
            customer TEXT NOT NULL,
            amount BIGINT NOT NULL
        )
        """
    )
    await tx.execute(
        """
        CREATE TABLE IF NOT EXISTS customers (
            customer TEXT PRIMARY KEY,
            spent BIGINT NOT NULL,
            since TEXT NOT NULL
        )
        """
    )


@app.on(PaymentCaptured)
async def charge(event: PaymentCaptured, tx: Transaction, message: Message) -> None:
    await book(tx, event.order_id, event.chunk, event.placed_at, event.shares)
    await audit.handled(tx, "customer.charge", message)


@app.on(PaymentRefunded)
async def credit(event: PaymentRefunded, tx: Transaction, message: Message) -> None:
    taken_off = [Share(share.customer, -share.amount) for share in event.shares]
    await book(tx, event.return_id, event.chunk, event.returned_at, taken_off)
    await audit.handled(tx, "customer.credit", message)


async def book(tx: Transaction, invoice: str, chunk: int, when: str, shares: Sequence[Share]) -> None:
    """Add the shares to their customers' accounts, and welcome the new ones.

    Orders arrive in no particular order of date, so `since` is the earliest date seen so far.
    """
    for share in shares:
        new = await tx.execute(
            "INSERT INTO customers VALUES (?, ?, ?) ON CONFLICT DO NOTHING", (share.customer, share.amount, when)
        )
        if new.rowcount:
            tx.publish(CustomerJoined(share.customer, when))
            continue
        await tx.execute(
            "UPDATE customers SET spent = spent + ?, since = CASE WHEN since < ? THEN since ELSE ? END"
            " WHERE customer = ?",
            (share.amount, when, when, share.customer),
        )
    await tx.executemany(
        "INSERT INTO entries (invoice, chunk, customer, amount) VALUES (?, ?, ?, ?)",
        [(invoice, chunk, share.customer, share.amount) for share in shares],
    )
