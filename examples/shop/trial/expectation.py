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
    "order.dispatched": ("shipping.shipped",),
}
"""Consumer group to event types. Besides, every service's relay must publish all of its log."""

RECORDER = "orders-view.record"
RECORDED = ("order.", "payment.", "shipping.", "customer.")
"""What the read database keeps of all services' events, by the beginning of their types; its projections read that."""
