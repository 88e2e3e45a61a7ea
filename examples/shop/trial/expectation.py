"""Who must have handled what, written down by hand: the trial does not ask the library under trial."""

from __future__ import annotations

from ..wiring import CHOREOGRAPHED, CRM, LEGACY_TABLES

SUBSCRIPTIONS: dict[str, tuple[str, ...]] = {
    "payment.refund": ("order.returned",),
    "payment.void": ("payment.void",),
    "stock.restock": ("order.returned",),
    "stock.adjust": ("order.adjusted",),
    "stock.ship": ("shipping.shipped",),
    "customer.entered": tuple(f"{CRM}.{table}" for table in LEGACY_TABLES.values()),
    "order.dispatched": ("shipping.shipped",),
}
"""Consumer group to event types. Besides, every service's relay must publish all of its log."""

if CHOREOGRAPHED:
    SUBSCRIPTIONS |= {
        "payment.charge": ("order.placed",),
        "stock.reserve": ("order.placed",),
        "stock.release": ("payment.declined", "payment.expired"),
        "shipping.paid": ("payment.captured",),
        "shipping.reserved": ("stock.reserved",),
        "order.cancelled": ("stock.released",),
    }
else:
    SUBSCRIPTIONS |= {
        "payment.charge": ("payment.charge",),
        "stock.reserve": ("stock.reserve",),
        "stock.release": ("stock.release",),
        "shipping.ship": ("shipping.ship",),
    }

CHECKOUT = "order.checkout"
"""The group of the saga, or of what listens to the choreography."""

CHECKOUT_TYPES = (
    "order.placed", "order.cancelled", "payment.captured", "payment.declined", "payment.expired", "shipping.shipped",
    "stock.reserved",
)  # fmt: skip

REGISTRATION = "customer.registered"
"""The group of the aggregator."""

REGISTRATION_TYPES = ("customer.contact-entered", "customer.account-opened", "customer.address-entered")

TASKS = ("provider", "night")
"""The payment service's queues of tasks."""

RECORDER = "orders-view.record"
RECORDED = ("order.", "payment.", "shipping.", "customer.", f"{CRM}.")
"""What the read database keeps of all services' events, by the beginning of their types; its projections read that."""
