"""Three fine events to one coarse event, over so many keys that a group's events lie far apart; durable all the way.

Beside it, what bare `sqlite3` takes to write each fine event into its key's row, 1,000 a commit.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
import time
from contextlib import closing
from pathlib import Path

from bench.measurement import Measurement
from bench.rounds import Plan, Stopwatch, Work, duel
from eventmill import App, Collected, Event

CHUNK = 2_000
UPSERT = (
    "INSERT INTO raw_groups VALUES (?, 1, ?) ON CONFLICT (key) DO UPDATE SET n = n + 1, data = data || excluded.data"
)


class BenchContact(Event, name="bench.contact.added", key="customer"):
    customer: str
    note: str


class BenchAccount(Event, name="bench.account.opened", key="customer"):
    customer: str
    note: str


class BenchAddress(Event, name="bench.address.added", key="customer"):
    customer: str
    note: str


class BenchRegistered(Event, name="benchcoarse.registered", key="customer"):
    customer: str
    parts: int


PARTS = (BenchContact, BenchAccount, BenchAddress)


def make(url: str) -> App:
    app = App(url, name="bench")

    @app.aggregator("registered", key="customer", all_of=PARTS)
    def registered(group: Collected) -> BenchRegistered:
        return BenchRegistered(group.key, len(group))

    return app


def shuffled(keys: int) -> list[Event]:
    events = [kind(f"customer-{number}", "x" * 60) for number in range(keys) for kind in PARTS]
    random.Random(1).shuffle(events)
    return events  # type: ignore[return-value]


async def run(url: str, events: list[Event]) -> Work:
    """From the start of the worker until all fine events are in, and each group's coarse event is out."""
    async with make(url) as app:
        for start in range(0, len(events), CHUNK):
            await app.publish(*events[start : start + CHUNK])
    async with make(url) as app:
        began, processor = time.perf_counter(), time.process_time()
        running = asyncio.create_task(app.run())
        while app.handled < len(events) and not running.done():
            await asyncio.sleep(0.005)
        seconds, processor = time.perf_counter() - began, time.process_time() - processor
        app.stop()
        await running
        async with app.transaction() as tx:
            ((found,),) = await tx.execute("SELECT count(*) FROM eventmill_log WHERE type = 'benchcoarse.registered'")
    if found != len(events) // len(PARTS):
        raise RuntimeError(f"{len(events)} events make {len(events) // len(PARTS)} groups, but {found} were published")
    return Work(len(events), seconds, processor)


def raw(place: Path, events: list[Event]) -> Work:
    with closing(sqlite3.connect(place / "raw.db", isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("CREATE TABLE raw_groups (key TEXT PRIMARY KEY, n INTEGER, data TEXT) WITHOUT ROWID")
        rows = [(each.customer, each.note) for each in events]  # type: ignore[attr-defined]
        with Stopwatch(len(rows)) as watch:
            for start in range(0, len(rows), 1_000):
                connection.execute("BEGIN IMMEDIATE")
                connection.executemany(UPSERT, rows[start : start + 1_000])
                connection.execute("COMMIT")
        return watch.work


async def aggregation(plan: Plan) -> list[Measurement]:
    """On SQLite."""
    events = shuffled(plan.some(100_000, 20_000))

    async def peer(place: Path) -> Work:
        return raw(place, events)

    found = await duel(plan, lambda place: run(f"sqlite:///{place}/shop.db", events), peer)
    made = found.measurement("aggregation, 3 fine events to 1 coarse", against="raw")
    return [made, Measurement("aggregation: fine events a second", made.value, "events/s", target=30_000)]
