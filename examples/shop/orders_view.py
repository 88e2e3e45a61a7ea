"""Customer-orders: a read view in a database of its own, built from the events of all services.

`invoices` and `accounts` are what a shop's pages would show; `entries` and `rejected` are the
ledgers beneath them. The services' events reach it in no common order, so every step adds up.
"""

from __future__ import annotations

from eventmill import Message, Transaction

from . import audit
from .events import (
    CustomerJoined,
    GoodsReturned,
    Line,
    LinesRejected,
    OrderPlaced,
    OrderShipped,
    PaymentCaptured,
    PaymentRefunded,
)
from .wiring import NUMBER, service

app = service("orders-view")

TABLES = (
    f"""
    CREATE TABLE IF NOT EXISTS entries (
        {NUMBER},
        invoice TEXT NOT NULL,
        chunk BIGINT NOT NULL,
        kind TEXT NOT NULL,
        line BIGINT NOT NULL,
        customer TEXT NOT NULL,
        product TEXT NOT NULL,
        quantity BIGINT NOT NULL,
        amount BIGINT NOT NULL
    )
    """,
    f"""
    CREATE TABLE IF NOT EXISTS rejected (
        {NUMBER},
        line BIGINT NOT NULL,
        reason TEXT NOT NULL,
        malformed INTEGER NOT NULL
    )
    """,
    """
    CREATE TABLE IF NOT EXISTS invoices (
        invoice TEXT NOT NULL,
        customer TEXT NOT NULL,
        lines BIGINT NOT NULL DEFAULT 0,
        ordered BIGINT NOT NULL DEFAULT 0,
        returned BIGINT NOT NULL DEFAULT 0,
        paid BIGINT NOT NULL DEFAULT 0,
        refunded BIGINT NOT NULL DEFAULT 0,
        PRIMARY KEY (invoice, customer)
    )
    """,
    f"CREATE TABLE IF NOT EXISTS shipped ({NUMBER}, invoice TEXT NOT NULL, chunk BIGINT)",
    f"CREATE TABLE IF NOT EXISTS accounts ({NUMBER}, customer TEXT NOT NULL, since TEXT)",
)


@app.setup
async def tables(tx: Transaction) -> None:
    await audit.prepare(tx)
    for table in TABLES:
        await tx.execute(table)


@app.on(OrderPlaced)
async def ordered(event: OrderPlaced, tx: Transaction, message: Message) -> None:
    await enter(tx, event.order_id, event.chunk, "ordered", event.lines, 1)
    await audit.handled(tx, "orders-view.ordered", message)


@app.on(GoodsReturned)
async def returned(event: GoodsReturned, tx: Transaction, message: Message) -> None:
    await enter(tx, event.return_id, event.chunk, "returned", event.lines, -1)
    await audit.handled(tx, "orders-view.returned", message)


@app.on("payment.*")
async def settled(event: PaymentCaptured | PaymentRefunded, tx: Transaction, message: Message) -> None:
    if isinstance(event, PaymentCaptured):
        invoice, column = event.order_id, "paid"
    else:
        invoice, column = event.return_id, "refunded"
    await add(tx, column, [(invoice, share.customer, share.amount, 0) for share in event.shares])
    await audit.handled(tx, "orders-view.settled", message)


@app.on(OrderShipped)
async def shipped(event: OrderShipped, tx: Transaction, message: Message) -> None:
    await tx.execute("INSERT INTO shipped (invoice, chunk) VALUES (?, ?)", (event.order_id, event.chunk))
    await audit.handled(tx, "orders-view.shipped", message)


@app.on(CustomerJoined)
async def joined(event: CustomerJoined, tx: Transaction, message: Message) -> None:
    await tx.execute("INSERT INTO accounts (customer, since) VALUES (?, ?)", (event.customer, event.since))
    await audit.handled(tx, "orders-view.joined", message)


@app.on(LinesRejected)
async def rejected(event: LinesRejected, tx: Transaction, message: Message) -> None:
    await tx.executemany(
        "INSERT INTO rejected (line, reason, malformed) VALUES (?, ?, ?)",
        [(line.number, line.reason, int(line.malformed)) for line in event.lines],
    )
    await audit.handled(tx, "orders-view.rejected", message)


async def enter(tx: Transaction, invoice: str, chunk: int, kind: str, lines: list[Line], sign: int) -> None:
    await tx.executemany(
        "INSERT INTO entries (invoice, chunk, kind, line, customer, product, quantity, amount)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (invoice, chunk, kind, line.number, line.customer, line.product, line.quantity, sign * line.amount)
            for line in lines
        ],
    )
    await add(tx, kind, [(invoice, line.customer, sign * line.amount, 1) for line in lines])


async def add(tx: Transaction, column: str, rows: list[tuple[str, str, int, int]]) -> None:
    """Add (invoice, customer, amount, lines) to a column of the invoices; in order, so that nobody's locks cross."""
    await tx.executemany(
        f"INSERT INTO invoices (invoice, customer, {column}, lines) VALUES (?, ?, ?, ?) "  # noqa: S608 - literals above
        f"ON CONFLICT (invoice, customer) DO UPDATE SET {column} = invoices.{column} + excluded.{column},"
        " lines = invoices.lines + excluded.lines",
        sorted(rows),
    )
