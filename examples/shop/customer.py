"""Customer: what each customer has spent, returns taken off, and since when the shop knows them."""

from __future__ import annotations

from collections.abc import Sequence

from eventmill import Message, Transaction

from . import audit
from .events import CustomerJoined, PaymentCaptured, PaymentRefunded, Share
from .wiring import service

app = service("customer")


@app.setup
async def tables(tx: Transaction) -> None:
    await audit.prepare(tx)
    await tx.execute(
        """
        CREATE TABLE IF NOT EXISTS entries (
            n INTEGER PRIMARY KEY AUTOINCREMENT,
            invoice TEXT NOT NULL,
            chunk INTEGER NOT NULL,
            customer TEXT NOT NULL,
            amount INTEGER NOT NULL
        )
        """
    )
    await tx.execute(
        """
        CREATE TABLE IF NOT EXISTS customers (
            customer TEXT PRIMARY KEY,
            spent INTEGER NOT NULL,
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
        known = await tx.execute(
            "UPDATE customers SET spent = spent + ?, since = min(since, ?) WHERE customer = ?",
            (share.amount, when, share.customer),
        )
        if not known.rowcount:
            await tx.execute("INSERT INTO customers VALUES (?, ?, ?)", (share.customer, share.amount, when))
            tx.publish(CustomerJoined(share.customer, when))
    await tx.executemany(
        "INSERT INTO entries (invoice, chunk, customer, amount) VALUES (?, ?, ?, ?)",
        [(invoice, chunk, share.customer, share.amount) for share in shares],
    )
