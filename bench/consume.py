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
from bench.rounds import Plan, duel
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


async def _handled(kind: str, place: Path, events: list[OrderPlaced], processes: int) -> float:
    """Messages a second from the word go until all are handled."""
    file = place / "shop.db"
    await fill(file, events)
    async with workers(kind, file, processes) as crew:
        seconds = await all_handled(crew, len(events))
        for worker in crew:
            await worker.stop()
    _check(file, len(events))
    return len(events) / seconds


async def one_worker(plan: Plan) -> list[Measurement]:
    """One process, one upsert a message; bare fetch, upserts and cursor at 100 a commit beside it. Then batches."""
    events = orders(plan.some(80_000, 16_000))
    bare = rows(events)

    async def peer(place: Path) -> float:
        return len(bare) / raw.consume(place / "raw.db", bare)

    single = await duel(plan, lambda place: _handled("one-by-one", place, events, 1), peer)
    batch = await duel(plan, lambda place: _handled("in-batches", place, events, 1), peer)
    return [
        Measurement(
            "consume, one upsert a message", single.value, "messages/s",
            target=0.35, peer=single.peer, samples=single.ours,
        ),
        Measurement("consume, batches of 100", batch.value, "messages/s", peer=batch.peer, samples=batch.ours),
    ]  # fmt: skip


async def two_workers(plan: Plan) -> list[Measurement]:
    """Two processes of one group against one. Sharing out the partitions is within the time."""
    events = orders(plan.some(100_000, 30_000))
    found = await duel(
        plan,
        lambda place: _handled("one-by-one", place, events, 2),
        lambda place: _handled("one-by-one", place, events, 1),
    )
    return [
        Measurement(
            "consume, two processes", found.value, "messages/s",
            target=1.2, peer=found.peer, against="one process", samples=found.ours,
        )
    ]  # fmt: skip
