"""Event-sourced aggregates: commands end to end, loading, and the bare fold."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from statistics import median

from bench.measurement import Measurement
from bench.rounds import Plan, Stopwatch, Work, duel
from eventmill import Aggregate, App, Event
from eventmill.core.aggregate import AggregateEntity
from eventmill.core.registry import REGISTRY

HISTORY = 20
CALLERS = 64
LONG = 100


class Booked(Event, name="ledger.booked"):
    account: str
    amount: int
    note: str


class Ledger(Aggregate, name="ledger"):
    balance: int = 0
    last: str = ""

    def book(self, amount: int) -> Iterator[Booked]:
        if self.balance + amount < 0:
            raise ValueError("not covered")
        yield Booked(self.id, amount, "at the counter")

    def evolve(self, event: Booked) -> None:
        match event:
            case Booked(account=account, amount=amount):
                self.balance += amount
                self.last = account


async def aggregates(plan: Plan) -> list[Measurement]:
    """Everything that an aggregate's day is made of."""
    return [*await _commands(plan), await _load(plan), _fold(plan)]


async def _filled(place: Path, count: int, each: int) -> App:
    app = App(f"sqlite:///{place / 'ledger.db'}", name="bench")
    await app.open()
    events = [Booked("a", 1, "at the counter") for _ in range(each)]
    await asyncio.gather(*(app.append(f"ledger/{number}", *events) for number in range(count)))
    return app


async def _commands(plan: Plan) -> list[Measurement]:
    """Load 20 events, decide, append: 64 callers on different aggregates, and one alone; the `eventsourcing` library beside."""
    count = plan.some(8_000, 2_000)

    async def ours(place: Path) -> Work:
        app = await _filled(place, count, HISTORY)
        async with app:
            left = iter(range(count))

            async def call() -> None:
                for number in left:
                    await app.execute(Ledger, str(number), Ledger.book, 1)

            with Stopwatch(count) as watch:
                await asyncio.gather(*(call() for _ in range(CALLERS)))
            return watch.work

    async def alone(place: Path) -> Work:
        some = count // 8
        app = await _filled(place, some, HISTORY)
        async with app:
            with Stopwatch(some) as watch:
                for number in range(some):
                    await app.execute(Ledger, str(number), Ledger.book, 1)
            return watch.work

    async def peer(place: Path) -> Work:
        return load_and_book(place, count // 8, HISTORY)

    try:
        # Optional, and only for the comparison.
        from bench.eventsourcing_peer import load_and_book
    except ImportError:
        print("eventsourcing is not installed: its figures are left out (pip install eventsourcing)", file=sys.stderr)
        works = []
        for _ in range(plan.rounds):
            with plan.place() as place:
                works.append(await ours(place))
        rates = [work.rate for work in works]
        return [Measurement("commands, 64 callers", median(rates), "commands/s", samples=rates)]
    return [
        (await duel(plan, ours, peer)).measurement("commands, 64 callers", 5.0, "eventsourcing"),
        (await duel(plan, alone, peer)).measurement("commands, one by one", None, "eventsourcing"),
    ]


async def _load(plan: Plan) -> Measurement:
    """An aggregate of 100 events, no snapshot; beside it, its rows selected and nothing done with them."""
    count = plan.some(300, 100)
    times = 10

    async def ours(place: Path) -> Work:
        async with await _filled(place, count, LONG) as app:
            with Stopwatch(count * times) as watch:
                for _ in range(times):
                    for number in range(count):
                        await app.load(Ledger, str(number))
            return watch.work

    async def peer(place: Path) -> Work:
        async with await _filled(place, count, LONG):
            pass
        with closing(sqlite3.connect(place / "ledger.db", isolation_level=None)) as connection:
            with Stopwatch(count * times) as watch:
                for _ in range(times):
                    for number in range(count):
                        rows = connection.execute(
                            "SELECT * FROM eventmill_log WHERE topic = 'ledger' AND key = ? ORDER BY sequence",
                            (str(number),),
                        ).fetchall()
                        assert len(rows) == LONG
            return watch.work

    return (await duel(plan, ours, peer)).measurement("load 100 events", 0.6)


def _fold(plan: Plan) -> Measurement:
    """Decode and evolve, from rows in memory; events a second."""
    count = plan.some(200_000, 50_000)
    data = REGISTRY.of(Booked("a", 1, "x")).encode(Booked("account", 1, "at the counter"))
    events = [(number, "ledger.booked", 1, data, f"id{number}") for number in range(1, 1_001)]
    entity = AggregateEntity(Ledger, REGISTRY)
    rates = []
    for _ in range(plan.rounds):
        with Stopwatch(count) as watch:
            for _ in range(count // len(events)):
                entity.fold(entity.new("a"), events)
        rates.append(watch.work.rate)
    return Measurement("fold", median(rates), "events/s", target=400_000, samples=rates)
