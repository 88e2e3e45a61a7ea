"""What the services tell each other. Money is in thousandths of a pound, quantities in pieces.

An invoice may arrive in several parts; `chunk` is the number of a part's first line in the input,
so `(order_id, chunk)` names a part for good.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from eventmill import Event, event


class Line(msgspec.Struct, frozen=True, gc=False):
    """One line of an invoice. number: where it stood in the input. price: of one piece."""

    number: int
    product: str
    customer: str
    quantity: int
    price: int

    @property
    def amount(self) -> int:
        return self.quantity * self.price


class Share(msgspec.Struct, frozen=True, gc=False):
    """What one customer pays, or gets back, of a part."""

    customer: str
    amount: int


class Rejection(msgspec.Struct, frozen=True, gc=False):
    """An input line that is no business of the shop. malformed: it could not be read at all."""

    number: int
    reason: str
    malformed: bool


class OrderPlaced(Event, frozen=True, name="order.placed", key="order_id"):
    """A part of an order: all its quantities and prices are above zero."""

    order_id: str
    chunk: int
    placed_at: str
    lines: list[Line]


class GoodsReturned(Event, frozen=True, name="order.returned", key="return_id"):
    """A part of a return, to be refunded: quantities are below zero as a rule."""

    return_id: str
    chunk: int
    returned_at: str
    lines: list[Line]


class StockAdjusted(Event, frozen=True, name="order.adjusted", key="invoice"):
    """Lines of an invoice that move goods without a sale: breakage, samples, corrections."""

    invoice: str
    chunk: int
    lines: list[Line]


class OrderDispatched(Event, frozen=True, name="order.dispatched", key="order_id"):
    """A part of an order has left the house. remaining: how many parts of it, placed by then, have not."""

    order_id: str
    chunk: int
    remaining: int


class LinesRejected(Event, frozen=True, name="order.rejected"):
    """Input lines that nobody will process. They belong together by nothing, so there is no key."""

    lines: list[Rejection]


class PaymentCaptured(Event, frozen=True, name="payment.captured", key="order_id"):
    order_id: str
    chunk: int
    placed_at: str
    shares: list[Share]


class PaymentRefunded(Event, frozen=True, name="payment.refunded", key="return_id"):
    return_id: str
    chunk: int
    returned_at: str
    shares: list[Share]


class StockReserved(Event, frozen=True, name="stock.reserved", key="order_id"):
    order_id: str
    chunk: int
    quantity: int


class OrderShipped(Event, frozen=True, name="shipping.shipped", key="order_id"):
    order_id: str
    chunk: int


@event(name="customer.joined", key="customer")
@dataclass(frozen=True)
class CustomerJoined:
    """Somebody's first payment or refund. An event may be a dataclass as well."""

    customer: str
    since: str


Intake = OrderPlaced | GoodsReturned | StockAdjusted | LinesRejected
"""What comes in from outside, through the order service."""
