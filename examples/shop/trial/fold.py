"""A fresh fold of all that was ever published, in plain Python, held against what the shop remembers.

It shares nothing with the aggregate's `evolve`, with the projections' SQL, or with the logs they read: it
goes through every service's own log from the beginning.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from eventmill import App

from .. import events, order, orders_view
from ..services import APPS

PAGE = 5_000


@dataclass
class History:
    """What an order has gone through: part by part."""

    placed: dict[int, int] = field(default_factory=dict)
    returned: dict[int, int] = field(default_factory=dict)
    adjusted: dict[int, int] = field(default_factory=dict)
    dispatched: list[int] = field(default_factory=list)
    cancelled: list[int] = field(default_factory=list)


class Fold:
    """What all events come to."""

    def __init__(self) -> None:
        self.orders: dict[str, History] = defaultdict(History)
        self.invoices: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        self.progress: dict[str, int] = {}
        self.shipped: Counter[tuple[str, int]] = Counter()
        self.accounts: Counter[tuple[str, str]] = Counter()
        self.rejected: Counter[tuple[int, str, int]] = Counter()
        self.entries: Counter[tuple[str, int, str, int, str, str, int, int]] = Counter()
        self.sales: dict[str, Counter[str]] = defaultdict(Counter)

    def take(self, event: object) -> None:
        match event:
            case events.OrderPlaced(order_id=invoice, chunk=chunk, lines=lines):
                self.orders[invoice].placed[chunk] = sum(line.quantity * line.price for line in lines)
                self._lines("ordered", invoice, chunk, lines, 1)
            case events.GoodsReturned(return_id=invoice, chunk=chunk, lines=lines):
                self.orders[invoice].returned[chunk] = -sum(line.quantity * line.price for line in lines)
                self._lines("returned", invoice, chunk, lines, -1)
            case events.StockAdjusted(invoice=invoice, chunk=chunk, lines=lines):
                self.orders[invoice].adjusted[chunk] = len(lines)
            case events.OrderDispatched(order_id=invoice, chunk=chunk, remaining=remaining):
                self.orders[invoice].dispatched.append(chunk)
                self.progress[invoice] = remaining
            case events.OrderCancelled(order_id=invoice, chunk=chunk, remaining=remaining):
                self.orders[invoice].cancelled.append(chunk)
                self.progress[invoice] = remaining
            case events.PaymentCaptured(order_id=invoice, shares=shares):
                for share in shares:
                    self.invoices[invoice, share.customer]["paid"] += share.amount
            case events.PaymentRefunded(return_id=invoice, shares=shares):
                for share in shares:
                    self.invoices[invoice, share.customer]["refunded"] += share.amount
            case events.OrderShipped(order_id=invoice, chunk=chunk):
                self.shipped[invoice, chunk] += 1
            case events.CustomerRegistered(customer=customer, city=city):
                self.accounts[customer, city] += 1
            case events.LinesRejected(lines=rejections):
                self.rejected.update((each.number, each.reason, int(each.malformed)) for each in rejections)

    def _lines(self, kind: str, invoice: str, chunk: int, lines: list[events.Line], sign: int) -> None:
        for line in lines:
            amount = line.quantity * line.price
            known = self.invoices[invoice, line.customer]
            known[kind] += sign * amount
            known["lines"] += 1
            self.entries[
                invoice, chunk, kind, line.number, line.customer, line.product, line.quantity, sign * amount
            ] += 1
            sale = self.sales[line.product]
            sale["sold" if sign > 0 else "returned"] += sign * line.quantity
            sale["revenue"] += amount


async def fresh() -> Fold:
    """Everything that was ever published, folded."""
    fold = Fold()
    for app in APPS:
        if app is not orders_view.app:
            async for fact in app.read_all():
                fold.take(fact.event)
    return fold


async def mismatches(fold: Fold) -> int:
    """How many orders and rows of the read database differ from the fold, missing and surplus ones included."""
    return await _orders(fold) + await _views(fold)


async def _orders(fold: Fold) -> int:
    wrong = 0
    seen = 0
    async for key in _keys(order.app, "order"):
        loaded = await order.app.load(order.Order, key)
        seen += 1
        wrong += fold.orders.get(key) != History(
            loaded.placed, loaded.returned, loaded.adjusted, loaded.dispatched, loaded.cancelled
        )
    return wrong + abs(len(fold.orders) - seen)


async def _keys(app: App, topic: str) -> AsyncIterator[str]:
    after = ""
    while page := await app.store.streams(topic, after=after, limit=PAGE):
        for stream, _ in page:
            yield stream.key
        after = page[-1][0].key


async def _views(fold: Fold) -> int:
    columns = ("lines", "ordered", "returned", "paid", "refunded")
    invoices = Counter((*key, *(row[column] for column in columns)) for key, row in fold.invoices.items())
    sales = Counter((product, row["sold"], row["returned"], row["revenue"]) for product, row in fold.sales.items())
    progress = Counter(
        (key, len(fold.orders[key].dispatched), len(fold.orders[key].cancelled), remaining)
        for key, remaining in fold.progress.items()
    )
    return (
        await differences("entries", "invoice, chunk, kind, line, customer, product, quantity, amount", fold.entries)
        + await differences("invoices", "invoice, customer, " + ", ".join(columns), invoices)
        + await differences("progress", "invoice, dispatched, cancelled, remaining", progress)
        + await differences("shipped", "invoice, chunk", fold.shipped)
        + await differences("accounts", "customer, city", fold.accounts)
        + await differences("rejected", "line, reason, malformed", fold.rejected)
        + await differences("product_sales", "product, sold, returned, revenue", sales)
    )  # fmt: skip


async def differences(table: str, columns: str, expected: Counter[Any]) -> int:
    """Rows that only one of the two has, counted as often as they are there."""
    async with orders_view.app.transaction() as tx:
        found: Counter[Any] = Counter(await tx.execute(f"SELECT {columns} FROM {table}"))  # noqa: S608 - names from above
    return (expected - found).total() + (found - expected).total()
