"""Payment: captures what an order costs, refunds what a return is worth, customer by customer."""

from __future__ import annotations

from collections.abc import Iterable

from eventmill import Message, Transaction

from . import audit
from .events import GoodsReturned, Line, OrderPlaced, PaymentCaptured, PaymentRefunded, Share
from .wiring import NUMBER, service

app = service("payment")


@app.setup
async def tables(tx: Transaction) -> None:
    await audit.prepare(tx)
    for name in ("captures", "refunds"):
        await tx.execute(
            f"""
            CREATE TABLE IF NOT EXISTS {name} (
                {NUMBER},
                invoice TEXT NOT NULL,
                chunk BIGINT NOT NULL,
                customer TEXT NOT NULL,
                amount BIGINT NOT NULL
            )
            """
        )


def shares(lines: Iterable[Line], sign: int) -> list[Share]:
    """The lines' amounts per customer; a customer whose amounts come to nothing is still listed."""
    amounts: dict[str, int] = {}
    for line in lines:
        amounts[line.customer] = amounts.get(line.customer, 0) + sign * line.amount
    return [Share(customer, amount) for customer, amount in amounts.items()]


@app.on(OrderPlaced)
async def capture(event: OrderPlaced, tx: Transaction, message: Message) -> None:
    captured = shares(event.lines, 1)
    await tx.executemany(
        "INSERT INTO captures (invoice, chunk, customer, amount) VALUES (?, ?, ?, ?)",
        [(event.order_id, event.chunk, share.customer, share.amount) for share in captured],
    )
    await audit.handled(tx, "payment.capture", message)
    tx.publish(PaymentCaptured(event.order_id, event.chunk, event.placed_at, captured))


@app.on(GoodsReturned)
async def refund(event: GoodsReturned, tx: Transaction, message: Message) -> None:
    refunded = shares(event.lines, -1)
    await tx.executemany(
        "INSERT INTO refunds (invoice, chunk, customer, amount) VALUES (?, ?, ?, ?)",
        [(event.return_id, event.chunk, share.customer, share.amount) for share in refunded],
    )
    await audit.handled(tx, "payment.refund", message)
    tx.publish(PaymentRefunded(event.return_id, event.chunk, event.returned_at, refunded))
