"""Projecting: events to totals per customer, on SQLite and on PostgreSQL; and how soon another process sees them.

Beside it stands bare SQL doing the same: read a page, decode, upsert, note how far, commit. Where the `eventsourcing`
library is installed, its projection runner is measured in the same run; else that is left out, with a word.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import secrets
import sqlite3
import sys
import time
from contextlib import closing
from pathlib import Path

import msgspec

from bench.measurement import Figure, Measurement
from bench.process import workers
from bench.rounds import Plan, Stopwatch, Work, duel
from bench.totals import Sold, make, sales, totals

VARIABLE = "EVENTMILL_TEST_POSTGRES"
CHUNK = 5_000
PAGE = 500
"""Events in one commit of bare SQL."""

RATE = 50
WARM = RATE

UPSERT = (
    "INSERT INTO totals (customer, sold, amount) VALUES (?, 1, ?)"
    " ON CONFLICT (customer) DO UPDATE SET sold = totals.sold + 1, amount = totals.amount + excluded.amount"
)
CREATE = "CREATE TABLE totals (customer TEXT PRIMARY KEY, sold INTEGER NOT NULL, amount INTEGER NOT NULL)"


async def _projected(url: str, events: list[Sold], *, batch: bool) -> Work:
    """From the start of a worker until a reader sees all of them."""
    async with make(url, batch=batch) as app:
        for start in range(0, len(events), CHUNK):
            positions = await app.publish(*events[start : start + CHUNK])
        with Stopwatch(len(events)) as watch:
            running = asyncio.create_task(app.run())
            await app.view("totals").at_least(positions, timeout=300)
        app.stop()
        await running
        found = await app.store.query("SELECT customer, sold, amount FROM totals ORDER BY customer")
        if [(name, int(sold), int(amount)) for name, sold, amount in found] != totals(events):
            raise RuntimeError("the view is not the fold of the events")
        return watch.work


def _bare_sqlite(file: Path, events: list[Sold]) -> Work:
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("CREATE TABLE log (position INTEGER PRIMARY KEY, data BLOB NOT NULL)")
        connection.execute("CREATE TABLE place (position INTEGER NOT NULL)")
        connection.execute("INSERT INTO place VALUES (0)")
        connection.execute(CREATE)
        connection.execute("BEGIN")
        connection.executemany("INSERT INTO log (data) VALUES (?)", [(msgspec.json.encode(each),) for each in events])
        connection.execute("COMMIT")
        decode = msgspec.json.Decoder(Sold).decode
        with Stopwatch(len(events)) as watch:
            at = 0
            while True:
                connection.execute("BEGIN IMMEDIATE")
                page = connection.execute(
                    "SELECT position, data FROM log WHERE position > ? ORDER BY position LIMIT ?", (at, PAGE)
                ).fetchall()
                sold = [decode(data) for _, data in page]
                connection.executemany(UPSERT, [(each.customer, each.amount) for each in sold])
                at = page[-1][0] if page else at
                connection.execute("UPDATE place SET position = ?", (at,))
                connection.execute("COMMIT")
                if not page:
                    break
        return watch.work


def _bare_postgres(url: str, events: list[Sold]) -> Work:
    import psycopg

    schema = f"raw_{secrets.token_hex(4)}"
    upsert = UPSERT.replace("?", "%s")
    with psycopg.connect(url, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE SCHEMA {schema}")
        cursor.execute(f"SET search_path = {schema}")
        cursor.execute("CREATE TABLE log (position BIGSERIAL PRIMARY KEY, data BYTEA NOT NULL)")
        cursor.execute("CREATE TABLE place (position BIGINT NOT NULL)")
        cursor.execute("INSERT INTO place VALUES (0)")
        cursor.execute(CREATE)
        with cursor.copy("COPY log (data) FROM STDIN (FORMAT BINARY)") as copy:
            copy.set_types(["bytea"])
            for each in events:
                copy.write_row((msgspec.json.encode(each),))
        decode = msgspec.json.Decoder(Sold).decode
        with Stopwatch(len(events)) as watch:
            at = 0
            while True:
                with connection.transaction():
                    page = cursor.execute(
                        "SELECT position, data FROM log WHERE position > %s ORDER BY position LIMIT %s", (at, PAGE),
                        binary=True,
                    ).fetchall()  # fmt: skip
                    sold = [decode(data) for _, data in page]
                    if sold:
                        cursor.executemany(upsert, [(each.customer, each.amount) for each in sold])
                        at = page[-1][0]
                    cursor.execute("UPDATE place SET position = %s", (at,))
                if not page:
                    break
        cursor.execute(f"DROP SCHEMA {schema} CASCADE")
        return watch.work


async def projection(plan: Plan) -> list[Measurement]:
    """SQLite, both kinds of method; then how soon another process sees it."""
    events = sales(plan.some(100_000, 20_000))

    async def bare(place: Path) -> Work:
        return _bare_sqlite(place / "raw.db", events)

    def ours(batch: bool) -> object:
        return lambda place: _projected(f"sqlite:///{place}/shop.db", events, batch=batch)

    batched = await duel(plan, ours(True), bare)  # type: ignore[arg-type]
    single = await duel(plan, ours(False), bare)  # type: ignore[arg-type]
    found = [
        _at_least(batched.measurement("projection, a list a method"), 40_000),
        single.measurement("projection, an event a method"),
    ]
    return [*found, *await _peer(plan, events), *await _visible(plan)]


async def projection_postgres(plan: Plan) -> list[Measurement]:
    """The same on PostgreSQL."""
    if VARIABLE not in os.environ:
        raise SystemExit(f"{VARIABLE} is not set: scripts/servers start postgres, then read .servers/env")
    url = os.environ[VARIABLE]
    events = sales(plan.some(100_000, 20_000))

    async def bare(place: Path) -> Work:
        return await asyncio.to_thread(_bare_postgres, url, events)

    def ours(batch: bool) -> object:
        return lambda place: _projected(f"{url}?schema=bench_{secrets.token_hex(4)}", events, batch=batch)

    batched = await duel(plan, ours(True), bare)  # type: ignore[arg-type]
    single = await duel(Plan(plan.folder, plan.quick, 1), ours(False), bare)  # type: ignore[arg-type]
    return [
        _at_least(batched.measurement("projection on PostgreSQL, a list a method"), 15_000),
        single.measurement("projection on PostgreSQL, an event a method"),
    ]


def _at_least(found: Measurement, rate: float) -> Measurement:
    """What is asked for is a rate, not a ratio: the peer stands beside it."""
    details: dict[str, Figure] = {**found.details, "raw": round(found.peer or 0), "ratio": round(found.ratio or 0, 3)}
    return Measurement(found.name, found.value, "events/s", target=rate, samples=found.samples, details=details)


async def _visible(plan: Plan) -> list[Measurement]:
    """From the call to publish until a reader may be told that the view has it; the projection runs in another process."""
    count = RATE * plan.some(15, 4)
    with plan.place() as place:
        file = place / "shop.db"
        async with make(f"sqlite:///{file}", batch=True) as app, workers("projected", file, 1) as (worker,):
            worker.tell("go")
            view = app.view("totals")
            await view.at_least(await app.publish(Sold("c", "o", 1)), timeout=30)
            loop = asyncio.get_running_loop()
            delays: list[float] = []

            async def one(number: int) -> None:
                began = time.perf_counter()
                await view.at_least(await app.publish(Sold(f"c{number % 100}", "o", 1)))
                delays.append(1_000 * (time.perf_counter() - began))

            started = loop.time()
            calls = []
            for number in range(count):
                await asyncio.sleep(started + number / RATE - loop.time())
                calls.append(asyncio.create_task(one(number)))
            await asyncio.gather(*calls)
            await worker.stop()
    counted = sorted(delays[WARM:])
    p50, p99 = counted[len(counted) // 2], counted[min(len(counted) * 99 // 100, len(counted) - 1)]
    details: dict[str, Figure] = {"messages": len(counted), "at": "50 a second", "worst": round(counted[-1], 2)}
    return [
        Measurement("projection visible elsewhere, p50", p50, "ms", target=10, bound="most", details=details),
        Measurement("projection visible elsewhere, p99", p99, "ms", target=30, bound="most", details=details),
    ]


async def _peer(plan: Plan, events: list[Sold]) -> list[Measurement]:
    """The `eventsourcing` library's own way: a projection runner, one transaction an event."""
    if importlib.util.find_spec("eventsourcing") is None:
        print("projection: the eventsourcing library is not installed, so it is not measured beside", file=sys.stderr)
        return []
    from bench.eventsourcing_projection import rate

    with plan.place() as place:
        measured = await asyncio.to_thread(rate, place, events[: plan.some(10_000, 2_000)])
    details: dict[str, Figure] = {"events": min(len(events), plan.some(10_000, 2_000))}
    return [Measurement("projection by the eventsourcing library", measured, "events/s", details=details)]
