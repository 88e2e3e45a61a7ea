"""Who must have handled what, written down by hand: the trial does not ask the library under trial."""

from __future__ import annotations

SUBSCRIPTIONS: dict[str, tuple[str, ...]] = {
    "payment.capture": ("order.placed",),
    "payment.refund": ("order.returned",),
    "stock.reserve": ("order.placed",),
    "stock.restock": ("order.returned",),
    "stock.adjust": ("order.adjusted",),
    "stock.ship": ("shipping.shipped",),
    "shipping.paid": ("payment.captured",),
    "shipping.reserved": ("stock.reserved",),
    "customer.charge": ("payment.captured",),
    "customer.credit": ("payment.refunded",),
    "orders-view.ordered": ("order.placed",),
    "orders-view.returned": ("order.returned",),
    "orders-view.settled": ("payment.captured", "payment.refunded"),
    "orders-view.shipped": ("shipping.shipped",),
    "orders-view.joined": ("customer.joined",),
    "orders-view.rejected": ("order.rejected",),
}
"""Consumer group to event types. Besides, every service's relay must publish all of its log."""
