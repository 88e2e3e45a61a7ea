"""Checkout: goods reserved, money charged, parcel shipped; or all of it undone. One saga for each part of an order.

Orchestrated, the order service commands the others and hears their answers. Choreographed, each service reacts to what
the others have done, and the order service only listens, so that both have the same history and end in the same states.
"""

from __future__ import annotations

from eventmill import Message, StepContext, Transaction

from . import audit, order
from .events import (
    ChargePayment,
    OrderCancelled,
    OrderPlaced,
    OrderShipped,
    PaymentCaptured,
    PaymentDeclined,
    PaymentExpired,
    ReleaseStock,
    ReserveStock,
    ShipOrder,
    StockReleased,
    StockReserved,
    VoidPayment,
    part,
    shares,
)
from .wiring import CHOREOGRAPHED

NAME = "checkout"

PATIENCE = 3600.0
"""Seconds that a checkout waits for an answer. It is the payment service that gives up on an order that is not paid."""


def direct() -> None:
    """The orchestrated saga."""
    checkout = order.app.saga(NAME, key=part, starts_on=OrderPlaced)

    async def cancel(placed: OrderPlaced, tx: Transaction) -> None:
        await order.cancel(tx, placed.order_id, placed.chunk)

    @checkout.step(compensate=cancel)
    async def confirm(placed: OrderPlaced) -> None:
        """There is nothing to do for it: the order is in the books already."""

    async def release(placed: OrderPlaced, tx: Transaction, context: StepContext) -> None:
        tx.publish(ReleaseStock(placed.order_id, placed.chunk))

    @checkout.step(compensate=release, done_on=StockReserved, deadline=PATIENCE)
    async def reserve(placed: OrderPlaced, tx: Transaction) -> None:
        tx.publish(ReserveStock(placed.order_id, placed.chunk, placed.lines))

    async def void(placed: OrderPlaced, tx: Transaction, context: StepContext) -> None:
        """Whether there was a charge may be unknown: the provider gives back what is there."""
        tx.publish(VoidPayment(placed.order_id, placed.chunk))

    @checkout.step(
        compensate=void,
        done_on=PaymentCaptured,
        failed_on=PaymentDeclined,
        unknown_on=PaymentExpired,
        deadline=PATIENCE,
    )
    async def charge(placed: OrderPlaced, tx: Transaction) -> None:
        tx.publish(ChargePayment(placed.order_id, placed.chunk, placed.placed_at, shares(placed.lines, 1)))

    @checkout.step(kind="pivot", done_on=OrderShipped, deadline=PATIENCE)
    async def ship(placed: OrderPlaced, tx: Transaction) -> None:
        tx.publish(ShipOrder(placed.order_id, placed.chunk))


def listen() -> None:
    """The choreographed one: what is told apart here is done by the services themselves."""
    order.app.choreography(
        NAME, key=part, starts=OrderPlaced, completes=[PaymentCaptured, OrderShipped],
        turns=[PaymentDeclined, PaymentExpired], fails=OrderCancelled, events=StockReserved, deadline=PATIENCE,
    )  # fmt: skip

    @order.app.on(StockReleased)
    async def cancelled(event: StockReleased, tx: Transaction, message: Message) -> None:
        await order.cancel(tx, event.order_id, event.chunk)
        await audit.handled(tx, "order.cancelled", message)


if CHOREOGRAPHED:
    listen()
else:
    direct()
