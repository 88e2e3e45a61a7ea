"""Consuming: what was published is handled by worker processes, exactly once."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from itertools import islice
from pathlib import Path

from bench import raw
from bench.measurement import Measurement
from bench.order import OrderPlaced, orders, rows
from bench.process import all_handled, workers
from bench.rounds import Plan, Work, duel
from bench.shop import shop

CHUNK = 2_000
"""Messages published in one call where publishing is not what is measured."""


async def fill(file: Path, events: Iterable[OrderPlaced]) -> None:
    """Publish the events before the clock starts."""
    pending = iter(events)
    async with shop(file) as app:
        while chunk := list(islice(pending, CHUNK)):
            await app.publish(*chunk)


def _check(file: Path, count: int) -> None:
    """A fast consumer that loses or repeats messages is not fast."""
    with closing(sqlite3.connect(file)) as connection:
        (found,) = connection.execute("SELECT sum(orders) FROM bench_totals").fetchone()
    if found != count:
        raise RuntimeError(f"{count} messages were published, but {found} effects are in the table")


async def _handled(kind: str, place: Path, events: list[OrderPlaced], processes: int) -> Work:
    """From the word go until all are handled."""
    file = place / "shop.db"
    await fill(file, events)
    async with workers(kind, file, processes) as crew:
        seconds = await all_handled(crew, len(events))
        processor = sum([(await worker.stop())["processor"] for worker in crew])
    _check(file, len(events))
    return Work(len(events), seconds, processor)


async def one_worker(plan: Plan) -> list[Measurement]:
    """One process, one upsert a message; bare fetch, upserts and cursor at 100 a commit beside it. Then batches."""
    events = orders(plan.some(80_000, 16_000))
    bare = rows(events)

    async def peer(place: Path) -> Work:
        return raw.consume(place / "raw.db", bare)

    single = await duel(plan, lambda place: _handled("one-by-one", place, events, 1), peer)
    batch = await duel(plan, lambda place: _handled("in-batches", place, events, 1), peer)
    return [
        single.measurement("consume, one upsert a message", target=0.35),
        batch.measurement("consume, batches of 100"),
    ]


async def two_workers(plan: Plan) -> list[Measurement]:
    """Two processes of one group against one. Sharing out the partitions is within the time."""
    events = orders(plan.some(100_000, 30_000))
    found = await duel(
        plan,
        lambda place: _handled("one-by-one", place, events, 2),
        lambda place: _handled("one-by-one", place, events, 1),
    )
    return [found.measurement("consume, two processes", target=1.2, against="one process")]
