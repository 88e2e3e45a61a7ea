"""What the services tell each other. Money is in thousandths of a pound, quantities in pieces.

An invoice may arrive in several parts; `chunk` is the number of a part's first line in the input,
so `(order_id, chunk)` names a part for good.
"""

from __future__ import annotations

from collections.abc import Iterable
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


class OrderCancelled(Event, frozen=True, name="order.cancelled", key="order_id"):
    """A part of an order will not be shipped: it was not paid. remaining: how many parts of it are still open."""

    order_id: str
    chunk: int
    remaining: int


class LinesRejected(Event, frozen=True, name="order.rejected"):
    """Input lines that nobody will process. They belong together by nothing, so there is no key."""

    lines: list[Rejection]


class ReserveStock(Event, frozen=True, name="stock.reserve", key="order_id"):
    """A command of the orchestrated checkout, as are the others that are named by a verb."""

    order_id: str
    chunk: int
    lines: list[Line]


class StockReserved(Event, frozen=True, name="stock.reserved", key="order_id"):
    order_id: str
    chunk: int
    quantity: int


class ReleaseStock(Event, frozen=True, name="stock.release", key="order_id"):
    order_id: str
    chunk: int


class StockReleased(Event, frozen=True, name="stock.released", key="order_id"):
    """What was reserved for a part is free again."""

    order_id: str
    chunk: int


class ChargePayment(Event, frozen=True, name="payment.charge", key="order_id"):
    order_id: str
    chunk: int
    placed_at: str
    shares: list[Share]


class PaymentCaptured(Event, frozen=True, name="payment.captured", key="order_id"):
    order_id: str
    chunk: int
    placed_at: str
    shares: list[Share]


class PaymentDeclined(Event, frozen=True, name="payment.declined", key="order_id"):
    """A part will not be paid, and nothing was taken for it."""

    order_id: str
    chunk: int
    reason: str


class PaymentExpired(Event, frozen=True, name="payment.expired", key="order_id"):
    """A part was not paid in time, as far as one can know: the provider may have charged it, and has not said so."""

    order_id: str
    chunk: int


class VoidPayment(Event, frozen=True, name="payment.void", key="order_id"):
    order_id: str
    chunk: int


class PaymentRefunded(Event, frozen=True, name="payment.refunded", key="return_id"):
    """A customer has got back what returned goods were worth."""

    return_id: str
    chunk: int
    returned_at: str
    shares: list[Share]


class ShipOrder(Event, frozen=True, name="shipping.ship", key="order_id"):
    order_id: str
    chunk: int


class OrderShipped(Event, frozen=True, name="shipping.shipped", key="order_id"):
    order_id: str
    chunk: int


class ContactEntered(Event, frozen=True, name="customer.contact-entered", key="customer"):
    customer: str
    name: str
    email: str | None


class AccountOpened(Event, frozen=True, name="customer.account-opened", key="customer"):
    customer: str
    terms: str


class AddressEntered(Event, frozen=True, name="customer.address-entered", key="customer"):
    customer: str
    street: str
    city: str


@event(name="customer.registered", key="customer")
@dataclass(frozen=True)
class CustomerRegistered:
    """All that makes a customer is known. An event may be a dataclass as well."""

    customer: str
    name: str
    terms: str
    city: str


Checkout = (
    OrderPlaced | StockReserved | PaymentCaptured | PaymentDeclined | PaymentExpired | OrderShipped | OrderCancelled
)
"""What a checkout hears."""


def part(event: Checkout) -> str:
    """Which part of an order an event of its checkout is about."""
    return f"{event.order_id}/{event.chunk}"


def shares(lines: Iterable[Line], sign: int) -> list[Share]:
    """The lines' amounts per customer; a customer whose amounts come to nothing is still listed."""
    amounts: dict[str, int] = {}
    for line in lines:
        amounts[line.customer] = amounts.get(line.customer, 0) + sign * line.amount
    return [Share(customer, amount) for customer, amount in amounts.items()]


Intake = OrderPlaced | GoodsReturned | StockAdjusted | LinesRejected
"""What comes in from outside, through the order service."""
