"""What a message costs in SQL: figures that do not depend on the machine.

Every statement that SQLite runs is counted, on all connections, `BEGIN`, `COMMIT` and savepoints
included, each row of an `executemany` by itself; not the handler's own, nor `PRAGMA data_version`:
looking for other processes' commits goes by time, not by messages, and is reported apart.
"""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.consume import fill
from bench.measurement import Measurement
from bench.order import orders
from bench.rounds import Plan
from bench.shop import in_batches, one_by_one, shop
from eventmill import App

CALLERS = 64
POLL = "PRAGMA data_version"
COMMENTS = re.compile(r"^(--.*\n)+")


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """Counts the statements of all connections that are opened meanwhile, by their first word."""
    words: Counter[str] = Counter()
    connect = sqlite3.connect

    def note(sql: str) -> None:
        if POLL in sql:
            words["polls"] += 1
        elif "bench_totals" not in sql:
            words["statements"] += 1
            words[COMMENTS.sub("", sql).split(None, 1)[0].upper()] += 1

    def watched(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*arguments, **options)
        connection.set_trace_callback(note)
        return connection

    sqlite3.connect = watched  # type: ignore[assignment]
    try:
        yield words
    finally:
        sqlite3.connect = connect


async def _consumed(make: Callable[[Path], App], file: Path, count: int) -> Counter[str]:
    """The statements from the start of handling until all is handled."""
    with counted() as words:
        app = make(file)
        async with app:
            words.clear()
            running = asyncio.create_task(app.run())
            while app.handled < count:
                await asyncio.sleep(0.005)
            found = words.copy()
            app.stop()
            await running
    return found


async def _published(file: Path, count: int, callers: int) -> Counter[str]:
    events = iter(orders(count))
    with counted() as words:
        async with shop(file) as app:

            async def call() -> None:
                for event in events:
                    await app.publish(event)

            await app.publish(next(events))  # the topic comes to be
            words.clear()
            await asyncio.gather(*(call() for _ in range(callers)))
            return words.copy()


def _measured(name: str, words: Counter[str], count: int, target: float | None = None) -> Measurement:
    details = {
        "commits_per_message": round(words["COMMIT"] / count, 4),
        "polls_per_message": round(words["polls"] / count, 4),
        "messages": count,
    }
    value = words["statements"] / count
    return Measurement(name, value, "statements/message", target=target, bound="most", details=details)


async def statements(plan: Plan) -> list[Measurement]:
    """Consuming in batches, consuming one by one, publishing from 64 callers."""
    count = plan.some(40_000, 10_000)
    with plan.place() as place:
        await fill(place / "batch.db", orders(count))
        batch = await _consumed(in_batches, place / "batch.db", count)
        await fill(place / "single.db", orders(count))
        single = await _consumed(one_by_one, place / "single.db", count)
        published = await _published(place / "publish.db", count, CALLERS)
    return [
        _measured("statements, consuming in batches", batch, count, target=0.2),
        _measured("statements, consuming one by one", single, count),
        _measured("statements, publishing (64 callers)", published, count),
    ]
