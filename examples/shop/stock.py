"""Stock: a ledger of movements, and what they come to per product.

Goods are reserved when an order is placed and leave when it ships. It may sell what it does not
have: the input begins in the middle of a trading year.
"""

from __future__ import annotations

from collections.abc import Iterable

from eventmill import Message, Transaction

from . import audit
from .events import GoodsReturned, Line, OrderPlaced, OrderShipped, StockAdjusted, StockReserved
from .wiring import NUMBER, service

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
            reserved BIGINT NOT NULL DEFAULT 0,
            shipped BIGINT NOT NULL DEFAULT 0,
            returned BIGINT NOT NULL DEFAULT 0,
            adjusted BIGINT NOT NULL DEFAULT 0
        )
        """
    )


async def move(tx: Transaction, kind: str, invoice: str, chunk: int, lines: Iterable[tuple[str, int]]) -> None:
    """Book (product, quantity) movements of a kind, which is also the name of the column they count in."""
    rows = list(lines)
    await tx.executemany(
        "INSERT INTO movements (kind, invoice, chunk, product, quantity) VALUES (?, ?, ?, ?, ?)",
        [(kind, invoice, chunk, product, quantity) for product, quantity in rows],
    )
    await tx.executemany(
        f"INSERT INTO products (product, {kind}) VALUES (?, ?) "  # noqa: S608 - one of four literals below
        f"ON CONFLICT (product) DO UPDATE SET {kind} = products.{kind} + excluded.{kind}",
        sorted(rows),  # so that two transactions never wait for each other's rows
    )


def pieces(lines: Iterable[Line]) -> Iterable[tuple[str, int]]:
    return ((line.product, line.quantity) for line in lines)


@app.on(OrderPlaced)
async def reserve(event: OrderPlaced, tx: Transaction, message: Message) -> None:
    await move(tx, "reserved", event.order_id, event.chunk, pieces(event.lines))
    await audit.handled(tx, "stock.reserve", message)
    tx.publish(StockReserved(event.order_id, event.chunk, sum(line.quantity for line in event.lines)))


@app.on(OrderShipped)
async def ship(event: OrderShipped, tx: Transaction, message: Message) -> None:
    reserved = await tx.execute(
        "SELECT product, quantity FROM movements WHERE invoice = ? AND chunk = ? AND kind = 'reserved'",
        (event.order_id, event.chunk),
    )
    await move(tx, "shipped", event.order_id, event.chunk, [(product, quantity) for product, quantity in reserved])
    await audit.handled(tx, "stock.ship", message)


@app.on(GoodsReturned)
async def restock(event: GoodsReturned, tx: Transaction, message: Message) -> None:
    await move(tx, "returned", event.return_id, event.chunk, pieces(event.lines))
    await audit.handled(tx, "stock.restock", message)


@app.on(StockAdjusted)
async def adjust(event: StockAdjusted, tx: Transaction, message: Message) -> None:
    await move(tx, "adjusted", event.invoice, event.chunk, pieces(event.lines))
    await audit.handled(tx, "stock.adjust", message)
