"""The verdict: what the far end says, and where it contradicts itself."""

from __future__ import annotations

import hashlib

from . import money
from .desk import Desk
from .expectation import RECORDED
from .feed import Fed

MALFORMED_SHOWN = 50

# What customers have bought and brought back, whether it was paid or not.
SPENT = "SELECT customer, sum(ordered) - sum(returned) FROM orders_view_invoices GROUP BY customer ORDER BY customer"

PRODUCTS_SOLD = """
SELECT count(*) FROM (SELECT product FROM stock_movements WHERE kind = 'reserved' GROUP BY product HAVING sum(quantity) > 0)
"""

LOST = """
SELECT count(*) FROM subscribed AS s JOIN logged AS l ON l.type = s.type
WHERE NOT EXISTS (SELECT 1 FROM handled AS h
                  WHERE h.consumer = s.consumer AND h.source = l.source AND h.id = l.id)
"""

LOST_BEFORE_THE_BROKER = """
SELECT count(*) FROM logged AS l
WHERE NOT EXISTS (SELECT 1 FROM brokered AS b WHERE b.source = l.source AND b.id = l.id)
"""

LOST_FOR_THE_RECORD = """
SELECT count(*) FROM logged AS l
WHERE substr(l.type, 1, instr(l.type, '.')) IN ({prefixes})
  AND NOT EXISTS (SELECT 1 FROM recorded AS r WHERE r.source = l.source AND r.id = l.id)
"""

DUPLICATED = """
SELECT coalesce((SELECT sum(times - 1) FROM (SELECT count(*) AS times FROM handled GROUP BY consumer, source, id)), 0)
     + (SELECT count(*) FROM recorded) - (SELECT count(*) FROM (SELECT DISTINCT source, id FROM recorded))
"""

# The sequence is counted per topic and key by the service that published; it must rise in the order of handling.
OUT_OF_ORDER = """
SELECT count(*) FROM (
    SELECT sequence, lag(sequence) OVER (PARTITION BY consumer, source, topic, key ORDER BY n) AS earlier
    FROM handled WHERE key IS NOT NULL
) WHERE sequence <= earlier OR sequence IS NULL
"""

# Positions of a log are in the order of its commits: `n` is that order.
OUT_OF_ORDER_ON_RECORD = """
SELECT count(*) FROM (
    SELECT sequence, lag(sequence) OVER (PARTITION BY source, topic, key ORDER BY n) AS earlier
    FROM recorded WHERE key IS NOT NULL
) WHERE sequence <= earlier OR sequence IS NULL
"""

# A relay may publish a message twice, which the consumers' inbox sorts out: its first arrival is what counts.
OUT_OF_ORDER_AT_BROKER = """
SELECT count(*) FROM (
    SELECT sequence, lag(sequence) OVER (PARTITION BY source, topic, key ORDER BY n) AS earlier
    FROM (SELECT min(n) AS n, source, topic, key, sequence FROM brokered WHERE key IS NOT NULL GROUP BY source, id)
) WHERE sequence <= earlier OR sequence IS NULL
"""

# Each counts the cases that should not be.
VIOLATIONS = {
    "message-from-nowhere": """
        SELECT (SELECT count(*) FROM handled AS h
                WHERE NOT EXISTS (SELECT 1 FROM logged AS l WHERE l.source = h.source AND l.id = h.id))
             + (SELECT count(*) FROM brokered AS b
                WHERE NOT EXISTS (SELECT 1 FROM logged AS l WHERE l.source = b.source AND l.id = b.id))
    """,
    "message-logged-twice": "SELECT count(*) - count(DISTINCT source || ' ' || id) FROM logged",
    "sequence-has-gaps": """
        SELECT count(*) FROM (SELECT 1 FROM logged WHERE key IS NOT NULL GROUP BY source, topic, key
                              HAVING min(sequence) <> 1 OR max(sequence) <> count(*))
    """,
    "money-not-conserved": """
        WITH captured (x) AS (SELECT sum(amount) FROM payment_captures),
             refunded (x) AS (SELECT sum(amount) FROM payment_refunds),
             accepted (x) AS (SELECT sum(amount) FROM order_accepted WHERE kind = 'order')
        SELECT count(*) FROM captured, refunded, accepted
        WHERE coalesce(captured.x, 0) <> (SELECT coalesce(sum(amount), 0) FROM shipped_parts)
           OR accepted.x IS NOT (SELECT sum(amount) FROM orders_view_entries WHERE kind = 'ordered')
           OR refunded.x IS NOT (SELECT sum(amount) FROM orders_view_entries WHERE kind = 'returned')
    """,
    "view-differs-from-ledger": """
        WITH ledger AS (
            SELECT invoice, customer, count(*) AS lines,
                   sum(CASE kind WHEN 'ordered' THEN amount ELSE 0 END) AS ordered,
                   sum(CASE kind WHEN 'returned' THEN amount ELSE 0 END) AS returned
            FROM orders_view_entries GROUP BY invoice, customer
        )
        SELECT (SELECT count(*) FROM (SELECT invoice, customer, lines, ordered, returned FROM ledger
                                      EXCEPT SELECT invoice, customer, lines, ordered, returned
                                      FROM orders_view_invoices))
             + (SELECT count(*) FROM (SELECT invoice, customer, lines, ordered, returned FROM orders_view_invoices
                                      EXCEPT SELECT invoice, customer, lines, ordered, returned FROM ledger))
    """,
    "paid-differs-from-captures": """
        WITH captured AS (SELECT invoice, customer, sum(amount) AS paid FROM payment_captures GROUP BY 1, 2)
        SELECT (SELECT count(*) FROM (SELECT * FROM captured
                                      EXCEPT SELECT invoice, customer, paid FROM orders_view_invoices))
             + (SELECT count(*) FROM (SELECT invoice, customer, paid FROM orders_view_invoices WHERE paid <> 0
                                      EXCEPT SELECT * FROM captured))
    """,
    "return-not-refunded": "SELECT count(*) FROM orders_view_invoices WHERE returned <> refunded",
    "stock-not-conserved": """
        WITH ordered AS (
            SELECT product, sum(quantity) AS reserved FROM orders_view_entries WHERE kind = 'ordered' GROUP BY product
        ), booked AS (
            SELECT product, sum(quantity) AS reserved FROM stock_movements WHERE kind = 'reserved' GROUP BY product
        )
        SELECT (SELECT count(*) FROM (SELECT * FROM ordered EXCEPT SELECT * FROM booked))
             + (SELECT count(*) FROM (SELECT * FROM booked EXCEPT SELECT * FROM ordered))
             + (SELECT count(*) FROM stock_products WHERE opening <> free + reserved + shipped)
    """,
    "stock-differs-from-ledger": """
        WITH ledger AS (
            SELECT product,
                   sum(CASE kind WHEN 'reserved' THEN -quantity WHEN 'released' THEN quantity ELSE 0 END) AS moved,
                   sum(CASE kind WHEN 'reserved' THEN quantity WHEN 'released' THEN -quantity
                                 WHEN 'shipped' THEN -quantity ELSE 0 END) AS reserved,
                   sum(CASE kind WHEN 'shipped' THEN quantity ELSE 0 END) AS shipped,
                   sum(CASE kind WHEN 'returned' THEN quantity ELSE 0 END) AS returned,
                   sum(CASE kind WHEN 'adjusted' THEN quantity ELSE 0 END) AS adjusted
            FROM stock_movements GROUP BY product
        )
        SELECT (SELECT count(*) FROM (SELECT product, free - opening, reserved, shipped, returned, adjusted
                                      FROM stock_products EXCEPT SELECT * FROM ledger))
             + (SELECT count(*) FROM (SELECT * FROM ledger
                                      EXCEPT SELECT product, free - opening, reserved, shipped, returned, adjusted
                                      FROM stock_products))
    """,
    "stock-still-reserved": "SELECT count(*) FROM stock_products WHERE reserved <> 0",
    "order-shipped-twice": """
        SELECT count(*) FROM (SELECT 1 FROM shipping_shipments GROUP BY order_id, chunk HAVING count(*) > 1)
    """,
    "shipment-not-in-view": """
        SELECT (SELECT count(*) FROM shipping_shipments) <> (SELECT count(*) FROM orders_view_shipped)
            OR (SELECT count(*) FROM (SELECT order_id, chunk FROM shipping_shipments
                                      EXCEPT SELECT invoice, chunk FROM orders_view_shipped))
    """,
}

VIOLATIONS |= money.VIOLATIONS


def figures(desk: Desk) -> dict[str, object]:
    """What the input came to, read at the far end: the view, stock's and the customers' ledgers."""
    one = desk.one
    adjustments = one("SELECT count(*) FROM stock_movements WHERE kind = 'adjusted'")
    rejected = one("SELECT count(*) FROM orders_view_rejected")
    gross = one("SELECT sum(ordered) FROM orders_view_invoices")
    refunded = one("SELECT sum(returned) FROM orders_view_invoices")
    digest = hashlib.sha256()
    for customer, spent in desk.sql.execute(SPENT):
        digest.update(f"{customer},{spent}\n".encode())
    return {
        "lines": one("SELECT sum(lines) FROM orders_view_invoices") + adjustments + rejected,
        "orders": one("SELECT count(DISTINCT invoice) FROM orders_view_entries WHERE kind = 'ordered'"),
        "returns": one("SELECT count(DISTINCT invoice) FROM orders_view_entries WHERE kind = 'returned'"),
        "adjustments": adjustments,
        "rejected": rejected,
        "gross": gross,
        "refunded": refunded,
        "net": gross - refunded,
        "customers": one("SELECT count(DISTINCT customer) FROM orders_view_invoices"),
        "products_sold": one(PRODUCTS_SOLD),
        "customers_sha256": digest.hexdigest(),
    }


def delivery(desk: Desk, *, broker: bool) -> dict[str, int]:
    """Whether every message was handled by everyone it was for, once and in order.

    broker: whether the broker keeps what it was given, and can be looked at; a queue cannot.
    """
    return {
        "published": desk.one("SELECT count(*) FROM logged"),
        "handled": desk.one("SELECT count(*) FROM handled") + desk.one("SELECT count(*) FROM recorded"),
        "lost": desk.one(LOST)
        + desk.one(LOST_FOR_THE_RECORD.format(prefixes=", ".join(f"'{prefix}'" for prefix in RECORDED)))
        + (desk.one(LOST_BEFORE_THE_BROKER) if broker else 0),
        "duplicated": desk.one(DUPLICATED),
        "out_of_order": desk.one(OUT_OF_ORDER) + desk.one(OUT_OF_ORDER_ON_RECORD) + desk.one(OUT_OF_ORDER_AT_BROKER),
    }


def violations(desk: Desk, fed: Fed, far: dict[str, object]) -> list[str]:
    """What does not add up between the services, in words."""
    words = [word for word, query in VIOLATIONS.items() if desk.one(query)]
    if (far["lines"], far["gross"], far["refunded"]) != (fed.lines, fed.gross, fed.refunded):
        words.append("input-not-conserved")
    return words


def malformed(desk: Desk) -> dict[str, object]:
    """How many lines could not be read, and the first of them with the reason."""
    rows = desk.sql.execute(
        "SELECT line, reason FROM orders_view_rejected WHERE malformed ORDER BY line LIMIT ?", (MALFORMED_SHOWN,)
    )
    return {
        "malformed": desk.one("SELECT count(*) FROM orders_view_rejected WHERE malformed"),
        "malformed_lines": [{"line": line, "reason": reason} for line, reason in rows],
    }
