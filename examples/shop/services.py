"""All of the shop, to be run in one process: `eventmill run shop.services:APPS`, or one service each."""

from __future__ import annotations

from . import checkout, customer, order, orders_view, payment, shipping, stock

__all__ = ["APPS", "checkout"]

APPS = (order.app, customer.app, payment.app, stock.app, shipping.app, orders_view.app)
