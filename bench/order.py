"""The event that everything is measured with: an order of 300 bytes."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from eventmill import Event

SIZE = 300
"""Bytes of one encoded order."""

CUSTOMERS = 1_000


class Line(msgspec.Struct, frozen=True):
    """One line of an order."""

    product: str
    quantity: int
    price: int


class OrderPlaced(Event, name="order.placed", key="order_id"):
    """An order, keyed by its own number: nearly every message has a key that was not seen before.

    sent: `time.monotonic()` of the call to publish, where latency is measured.
    """

    order_id: str
    customer: str
    currency: str
    total: int
    lines: list[Line]
    sent: float = 0.0
    note: str = ""


def order(number: int, sent: float = 0.0) -> OrderPlaced:
    """Order number so and so, padded to the size."""
    made = OrderPlaced(
        order_id=f"order-{number:08d}",
        customer=f"customer-{number * 7919 % CUSTOMERS:04d}",
        currency="EUR",
        total=1_000 + number % 9_000,
        lines=[Line("teapot, blue, 1.2 litres", 1, 3_450), Line("cup and saucer, white", 6, 895)],
        sent=sent,
    )
    missing = SIZE - len(msgspec.json.encode(made))
    return msgspec.structs.replace(made, note="." * missing)


def orders(count: int, first: int = 0) -> list[OrderPlaced]:
    return [order(number) for number in range(first, first + count)]


def rows(events: Sequence[OrderPlaced]) -> list[tuple[str, bytes]]:
    """The same orders as a bare table would hold them: key and data."""
    return [(event.order_id, msgspec.json.encode(event)) for event in events]
