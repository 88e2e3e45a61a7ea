"""Made-up orders by seed: an open loop, in which customers do not wait for the shop."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import NamedTuple

from ..events import GoodsReturned, Intake, Line, LinesRejected, OrderPlaced, Rejection, StockAdjusted

CUSTOMERS = 500
HOT_CUSTOMERS = 5
PRODUCTS = 200


class Arrival(NamedTuple):
    """Something that comes in, `at` so many seconds after the start."""

    at: float
    events: list[Intake]


class Generator:
    """Orders at random moments, `rate` a second for `seconds`: the same for the same three figures.

    A third of the orders come from five hot customers and some from guests; one in twenty arrivals
    is a return of an earlier order, and now and then comes a stock adjustment or a foreign line.
    """

    def __init__(self, seed: int, rate: float, seconds: float) -> None:
        self._random = random.Random(seed)  # noqa: S311 - repeatable is the point
        self._rate = rate
        self._seconds = seconds
        self._line = 0
        self._recent: list[OrderPlaced] = []

    def __iter__(self) -> Iterator[Arrival]:
        at = self._random.expovariate(self._rate)
        order = 500_000
        while at < self._seconds:
            order += 1
            yield Arrival(at, [self._event(str(order), f"day {int(at) // 10:05d}")])
            at += self._random.expovariate(self._rate)

    def _event(self, order: str, date: str) -> Intake:
        draw = self._random.random()
        if draw < 0.05 and self._recent:
            sold = self._recent.pop(self._random.randrange(len(self._recent)))
            lines = [Line(self._next(), x.product, x.customer, -x.quantity, x.price) for x in sold.lines]
            return GoodsReturned(f"C{order}", lines[0].number, date, lines)
        if draw < 0.06:
            line = Line(self._next(), self._product(), "guest", -self._random.randint(1, 20), 0)
            return StockAdjusted(order, line.number, [line])
        if draw < 0.065:
            return LinesRejected([Rejection(self._next(), f"invoice 'A{order}' is made up", malformed=False)])
        customer = self._customer()
        lines = [
            Line(self._next(), self._product(), customer, self._random.randint(1, 12), self._random.randint(1, 20_000))
            for _ in range(self._random.randint(1, 6))
        ]
        placed = OrderPlaced(order, lines[0].number, date, lines)
        self._recent = [*self._recent[-99:], placed]
        return placed

    def _next(self) -> int:
        self._line += 1
        return self._line

    def _product(self) -> str:
        return f"P{self._random.randrange(PRODUCTS):04d}"

    def _customer(self) -> str:
        draw = self._random.random()
        if draw < 0.05:
            return "guest"
        return str(10_000 + self._random.randrange(HOT_CUSTOMERS if draw < 0.38 else CUSTOMERS))
