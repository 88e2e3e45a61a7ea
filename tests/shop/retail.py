"""What a file of invoice lines comes to, computed the plain way, without the shop's importer."""

from __future__ import annotations

import csv
import hashlib
import io
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

from shop.events import GoodsReturned, LinesRejected, OrderPlaced, StockAdjusted
from shop.trial.orders_file import OrdersFile

ROOT = Path(__file__).resolve().parents[2]
HEADER = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country"


def truth(text: str) -> dict[str, Any]:
    """The figures of well-formed lines."""
    gross = refunded = adjustments = rejected = lines = 0
    orders: set[str] = set()
    returns: set[str] = set()
    spent: Counter[str] = Counter()
    sold: set[str] = set()
    for row in csv.DictReader(io.StringIO(text, newline="")):
        lines += 1
        invoice, amount = row["InvoiceNo"], int(row["Quantity"]) * int(Decimal(row["UnitPrice"]) * 1000)
        customer = row["CustomerID"].removesuffix(".0") or "guest"
        if invoice.isdigit():
            if int(row["Quantity"]) > 0 and Decimal(row["UnitPrice"]) * 1000 >= 1:
                orders.add(invoice)
                sold.add(row["StockCode"])
                gross += amount
                spent[customer] += amount
            else:
                adjustments += 1
        elif invoice[:1] == "C" and invoice[1:].isdigit():
            returns.add(invoice)
            refunded -= amount
            spent[customer] += amount
        else:
            rejected += 1
    return {
        "lines": lines,
        "orders": len(orders),
        "returns": len(returns),
        "adjustments": adjustments,
        "rejected": rejected,
        "gross": gross,
        "refunded": refunded,
        "net": gross - refunded,
        "customers": len(spent),
        "products_sold": len(sold),
        "customers_sha256": hashlib.sha256(
            "".join(f"{customer},{amount}\n" for customer, amount in sorted(spent.items())).encode()
        ).hexdigest(),
    }


def tally(path: Path) -> tuple[dict[str, Any], list[tuple[int, str]]]:
    """The same figures from the events that the importer makes of a file, and its malformed lines."""
    orders: set[str] = set()
    returns: set[str] = set()
    spent: Counter[str] = Counter()
    sold: set[str] = set()
    counts: Counter[str] = Counter()
    malformed: list[tuple[int, str]] = []
    with OrdersFile(path) as source:
        for event in (event for events in source for event in events):
            counts["lines"] += len(event.lines)
            match event:
                case OrderPlaced():
                    orders.add(event.order_id)
                    for line in event.lines:
                        counts["gross"] += line.amount
                        spent[line.customer] += line.amount
                        sold.add(line.product)
                case GoodsReturned():
                    returns.add(event.return_id)
                    for line in event.lines:
                        counts["refunded"] -= line.amount
                        spent[line.customer] += line.amount
                case StockAdjusted():
                    counts["adjustments"] += len(event.lines)
                case LinesRejected():
                    counts["rejected"] += len(event.lines)
                    malformed += [(line.number, line.reason) for line in event.lines if line.malformed]
    figures = {
        "lines": counts["lines"],
        "orders": len(orders),
        "returns": len(returns),
        "adjustments": counts["adjustments"],
        "rejected": counts["rejected"],
        "gross": counts["gross"],
        "refunded": counts["refunded"],
        "net": counts["gross"] - counts["refunded"],
        "customers": len(spent),
        "products_sold": len(sold),
        "customers_sha256": hashlib.sha256(
            "".join(f"{customer},{amount}\n" for customer, amount in sorted(spent.items())).encode()
        ).hexdigest(),
    }
    return figures, malformed
