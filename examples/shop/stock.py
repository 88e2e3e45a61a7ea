"""Stock: a ledger of movements, and what they come to per product.

What is there of a product is free, reserved for orders, or shipped, and together that is always what there was in the
beginning. Free may fall below zero: the input begins in the middle of a trading year, and the shop takes orders for what
its suppliers still have to bring. Goods that come back, and corrections, are counted apart: they are not sold again.
"""

from __future__ import annotations

from collections.abc import Iterable

from eventmill import Message, Transaction

from . import audit
from .events import (
    GoodsReturned,
    Line,
    OrderPlaced,
    OrderShipped,
    PaymentDeclined,
    PaymentExpired,
    ReleaseStock,
    ReserveStock,
    StockAdjusted,
    StockReleased,
    StockReserved,
)
from .wiring import CHOREOGRAPHED, NUMBER, service

OPENING = 1_000
"""Pieces of each product in the beginning."""

app = service("stock")


@app.setup
async def tables(tx: Transaction) -> None:
    await audit.prepare(tx)
    await tx.execute(
        f"""
        CREATE TABLE IF NOT EXISTS movements (
            {NUMBER},
            kind TEXT NOT NULL,
            invoice TEXT NOT NULL,
            chunk BIGINT NOT NULL,
            product TEXT NOT NULL,
            quantity BIGINT NOT NULL
        )
        """
    )
    await tx.execute("CREATE INDEX IF NOT EXISTS movements_by_part ON movements (invoice, chunk, kind)")
    await tx.execute(
        """
        CREATE TABLE IF NOT EXISTS products (
            product TEXT PRIMARY KEY,
            opening BIGINT NOT NULL,
            free BIGINT NOT NULL,
            reserved BIGINT NOT NULL DEFAULT 0,
            shipped BIGINT NOT NULL DEFAULT 0,
            returned BIGINT NOT NULL DEFAULT 0,
            adjusted BIGINT NOT NULL DEFAULT 0
        )
        """
    )

    await tx.execute(
        "CREATE TABLE IF NOT EXISTS unpaid (order_id TEXT NOT NULL, chunk BIGINT NOT NULL, PRIMARY KEY (order_id, chunk))"
    )


MOVES = {
    "reserved": {"free": -1, "reserved": 1},
    "released": {"reserved": -1, "free": 1},
    "shipped": {"reserved": -1, "shipped": 1},
    "returned": {"returned": 1},
    "adjusted": {"adjusted": 1},
}
"""What a movement of each kind takes from where, and puts where."""


async def move(tx: Transaction, kind: str, invoice: str, chunk: int, lines: Iterable[tuple[str, int]]) -> None:
    """Book (product, quantity) movements of a kind."""
    rows = list(lines)
    await tx.executemany(
        "INSERT INTO movements (kind, invoice, chunk, product, quantity) VALUES (?, ?, ?, ?, ?)",
        [(kind, invoice, chunk, product, quantity) for product, quantity in rows],
    )
    # In the order of the products, so that two transactions never wait for each other's rows.
    quantities: dict[str, int] = {}
    for product, quantity in sorted(rows):
        quantities[product] = quantities.get(product, 0) + quantity
    await tx.executemany(
        f"INSERT INTO products (product, opening, free) VALUES (?, {OPENING}, {OPENING}) ON CONFLICT DO NOTHING",  # noqa: S608
        [(product,) for product in quantities],
    )
    changes = ", ".join(f"{column} = {column} {'+-'[sign < 0]} ?" for column, sign in MOVES[kind].items())
    await tx.executemany(
        f"UPDATE products SET {changes} WHERE product = ?",  # noqa: S608 - from the table above
        [(*[quantity] * len(MOVES[kind]), product) for product, quantity in quantities.items()],
    )


def pieces(lines: Iterable[Line]) -> Iterable[tuple[str, int]]:
    return ((line.product, line.quantity) for line in lines)


async def reserve(tx: Transaction, order: OrderPlaced | ReserveStock) -> None:
    await move(tx, "reserved", order.order_id, order.chunk, pieces(order.lines))
    tx.publish(StockReserved(order.order_id, order.chunk, sum(line.quantity for line in order.lines)))


async def reserved(tx: Transaction, order_id: str, chunk: int) -> list[tuple[str, int]]:
    """What was reserved for a part."""
    rows = await tx.execute(
        "SELECT product, quantity FROM movements WHERE invoice = ? AND chunk = ? AND kind = 'reserved'",
        (order_id, chunk),
    )
    return [(product, quantity) for product, quantity in rows]


async def release(tx: Transaction, order_id: str, chunk: int) -> None:
    await move(tx, "released", order_id, chunk, await reserved(tx, order_id, chunk))
    if CHOREOGRAPHED:  # a saga does not wait for it, and a queue takes no event that nobody wants
        tx.publish(StockReleased(order_id, chunk))


if CHOREOGRAPHED:

    @app.on(OrderPlaced, group="stock.reserve")
    async def placed(event: OrderPlaced, tx: Transaction, message: Message) -> None:
        await reserve(tx, event)
        if await tx.execute("SELECT 1 FROM unpaid WHERE order_id = ? AND chunk = ?", (event.order_id, event.chunk)):
            await release(tx, event.order_id, event.chunk)
        await audit.handled(tx, "stock.reserve", message)

    @app.on(PaymentDeclined, PaymentExpired, group="stock.release")
    async def unpaid(event: PaymentDeclined | PaymentExpired, tx: Transaction, message: Message) -> None:
        """May come before the order itself, which is then told by the row."""
        await tx.execute("INSERT INTO unpaid (order_id, chunk) VALUES (?, ?)", (event.order_id, event.chunk))
        if await reserved(tx, event.order_id, event.chunk):
            await release(tx, event.order_id, event.chunk)
        await audit.handled(tx, "stock.release", message)

else:

    @app.on(ReserveStock, group="stock.reserve")
    async def commanded(command: ReserveStock, tx: Transaction, message: Message) -> None:
        await reserve(tx, command)
        await audit.handled(tx, "stock.reserve", message)

    @app.on(ReleaseStock, group="stock.release")
    async def released(command: ReleaseStock, tx: Transaction, message: Message) -> None:
        await release(tx, command.order_id, command.chunk)
        await audit.handled(tx, "stock.release", message)


@app.on(OrderShipped)
async def ship(event: OrderShipped, tx: Transaction, message: Message) -> None:
    await move(tx, "shipped", event.order_id, event.chunk, await reserved(tx, event.order_id, event.chunk))
    await audit.handled(tx, "stock.ship", message)


@app.on(GoodsReturned)
async def restock(event: GoodsReturned, tx: Transaction, message: Message) -> None:
    await move(tx, "returned", event.return_id, event.chunk, pieces(event.lines))
    await audit.handled(tx, "stock.restock", message)


@app.on(StockAdjusted)
async def adjust(event: StockAdjusted, tx: Transaction, message: Message) -> None:
    await move(tx, "adjusted", event.invoice, event.chunk, pieces(event.lines))
    await audit.handled(tx, "stock.adjust", message)
