"""The clerk: somebody who works with the old customer administration while the shop runs.

Whoever orders for the first time is entered, in three places, in transactions of their own and in any order; later some
customers change their names or terms, move, or have their address deleted and entered again. By seed, and by customer.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterable, Sequence

from sqlalchemy import Engine
from sqlalchemy.exc import IntegrityError, OperationalError

from .. import legacy
from ..events import GoodsReturned, Intake, OrderPlaced
from ..legacy import Write

HOUSE = tuple(f"house-{number}" for number in range(5))
"""Customers who were there before anybody captured anything."""

LAST = "nothing is written after this"
"""The first one's name, in the end."""

CITIES = ("Bath", "Leeds", "York", "Truro", "Ely")
PATIENCE = 60.0


class Clerk:
    """Enters customers; told of them by `meet`, until it may `leave`."""

    def __init__(self, seed: int, database: Engine) -> None:
        self._seed = seed
        self._database = database
        self._known: set[str] = set(HOUSE)
        self._new: list[str] = []
        self._later: list[Write] = []
        self._leaving = False
        self._order = random.Random(f"clerk {seed}")  # noqa: S311 - repeatable is the point

    def open(self) -> None:
        """Enter those who were there before."""
        for customer in HOUSE:
            self._save(self._entries(customer))

    def meet(self, events: Iterable[Intake]) -> None:
        for event in events:
            if isinstance(event, OrderPlaced | GoodsReturned):
                for customer in dict.fromkeys(line.customer for line in event.lines):
                    if customer not in self._known:
                        self._known.add(customer)
                        self._new.append(customer)

    def leave(self) -> None:
        """Nobody else will be met."""
        self._leaving = True

    async def work(self) -> None:
        """Write what is to be written until told to leave; then the rest, the last change at the end."""
        while not self._leaving:
            await self._write_all()
            await asyncio.sleep(0.05)
        await self._write_all()
        await asyncio.to_thread(self._write, self._later)
        await asyncio.to_thread(self._save, [legacy.rename(HOUSE[0], LAST)])

    async def _write_all(self) -> None:
        while self._new:
            customers, self._new = self._new[:50], self._new[50:]
            # What was due later comes between the entries of others.
            later, self._later = self._later, []
            entries = [write for customer in customers for write in self._entries(customer)]
            self._order.shuffle(entries)
            for customer in customers:
                self._later += self._changes(customer)
            await asyncio.to_thread(self._write, later + entries)

    def _entries(self, customer: str) -> list[Write]:
        city = random.Random(f"{self._seed} {customer}").choice(CITIES)  # noqa: S311
        return [
            legacy.enter_contact(customer, f"Customer {customer}", None),
            legacy.open_account(customer, "30 days"),
            legacy.enter_address(customer, "1 High Street", city),
        ]

    def _changes(self, customer: str) -> list[Write]:
        draw = random.Random(f"{self._seed} {customer} later").random()  # noqa: S311
        if draw < 0.1:
            return [legacy.rename(customer, f"Customer {customer} & Sons")]
        if draw < 0.2:
            return [legacy.change_terms(customer, "in advance")]
        if draw < 0.4:
            return [legacy.relocate(customer, "2 Low Road", "Ripon")]
        if draw < 0.45:
            return [legacy.forget_address(customer), legacy.enter_address(customer, "3 Back Lane", "Wells")]
        return []

    def _write(self, writes: Sequence[Write]) -> None:
        """In transactions of one to three."""
        done = 0
        while done < len(writes):
            size = self._order.randint(1, 3)
            self._save(writes[done : done + size])
            done += size

    def _save(self, writes: Sequence[Write]) -> None:
        until = time.monotonic() + PATIENCE
        again = False
        while True:
            try:
                legacy.save(self._database, *writes)
            except IntegrityError:
                if not again:
                    raise
                return  # the commit whose answer was lost had taken place
            except OperationalError:
                # A trial that strikes at the servers strikes its own clerk, too.
                if time.monotonic() > until:
                    raise
                again = True
                time.sleep(0.2)
            else:
                return
