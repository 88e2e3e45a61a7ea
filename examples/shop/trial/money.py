"""Money and goods: what the provider's own ledger says, and whether nothing was made or lost on the way.

Captured is what the provider has charged for parts of orders, refunded what it gave back of that. What customers get
back for returned goods is paid out, and is neither: so captured less refunded is what all shipped parts cost.
"""

from __future__ import annotations

from .desk import Desk

VIOLATIONS = {
    "provider-differs-from-shipped": """
        SELECT (SELECT coalesce(sum(amount), 0) FROM provider WHERE kind = 'charge')
             - (SELECT coalesce(sum(amount), 0) FROM provider WHERE kind = 'refund')
            <> (SELECT coalesce(sum(amount), 0) FROM shipped_parts)
    """,
    "provider-differs-from-captures": """
        WITH charged AS (
            SELECT key, sum(CASE kind WHEN 'charge' THEN amount ELSE -amount END) AS amount
            FROM provider WHERE kind IN ('charge', 'refund') GROUP BY key
        ), captured AS (SELECT invoice || '/' || chunk AS key, sum(amount) AS amount FROM payment_captures GROUP BY 1)
        SELECT (SELECT count(*) FROM (SELECT * FROM charged WHERE amount <> 0 EXCEPT SELECT * FROM captured))
             + (SELECT count(*) FROM (SELECT * FROM captured WHERE amount <> 0 EXCEPT SELECT * FROM charged))
    """,
    "payout-differs-from-return": """
        WITH paid AS (SELECT key, amount FROM provider WHERE kind = 'payout'),
             owed AS (SELECT invoice || '/' || chunk AS key, sum(amount) AS amount FROM payment_refunds GROUP BY 1)
        SELECT (SELECT count(*) FROM (SELECT * FROM paid EXCEPT SELECT * FROM owed))
             + (SELECT count(*) FROM (SELECT * FROM owed EXCEPT SELECT * FROM paid))
    """,
    "shipped-unpaid": """
        SELECT count(*) FROM shipped_parts AS s
        WHERE s.amount IS NOT (SELECT sum(c.amount) FROM payment_captures AS c
                               WHERE c.invoice = s.invoice AND c.chunk = s.chunk)
    """,
    "cancelled-but-paid": """
        SELECT count(*) FROM order_cancelled AS x
        WHERE (SELECT coalesce(sum(c.amount), 0) FROM payment_captures AS c
               WHERE c.invoice = x.order_id AND c.chunk = x.chunk) <> 0
    """,
    "neither-shipped-nor-cancelled": """
        SELECT count(*) FROM (SELECT invoice, chunk FROM order_accepted WHERE kind = 'order'
                              EXCEPT SELECT order_id, chunk FROM shipping_shipments
                              EXCEPT SELECT order_id, chunk FROM order_cancelled)
    """,
    "shipped-and-cancelled": """
        SELECT count(*) FROM (SELECT order_id, chunk FROM shipping_shipments
                              INTERSECT SELECT order_id, chunk FROM order_cancelled)
    """,
    "cancelled-twice": """
        SELECT count(*) FROM (SELECT 1 FROM order_cancelled GROUP BY order_id, chunk HAVING count(*) > 1)
    """,
    "settlement-differs": """
        SELECT (SELECT coalesce(sum(captured), 0) FROM payment_settlements)
            <> (SELECT coalesce(sum(amount), 0) FROM payment_captures WHERE settled IS NOT NULL)
    """,
}


def figures(desk: Desk) -> dict[str, int]:
    """What the provider's ledger and stock's have come to."""
    one = desk.one
    return {
        "money_captured": one("SELECT sum(amount) FROM provider WHERE kind = 'charge'"),
        "money_refunded": one("SELECT sum(amount) FROM provider WHERE kind = 'refund'"),
        "money_shipped": one("SELECT sum(amount) FROM shipped_parts"),
        "provider_charges": one("SELECT count(*) FROM provider WHERE kind = 'charge'"),
        "stock_opening": one("SELECT sum(opening) FROM stock_products"),
        "stock_reserved": one("SELECT sum(reserved) FROM stock_products"),
        "stock_shipped": one("SELECT sum(shipped) FROM stock_products"),
        "stock_free": one("SELECT sum(free) FROM stock_products"),
    }
