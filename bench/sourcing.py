"""The event store: appends under an expected version, reads of a stream and of everything.

Beside each stands bare SQL that does the same: a table with a unique index on stream and version, and no more than that.
With the `eventsourcing` library installed (`pip install eventsourcing`), it takes its turn, too.
"""

from __future__ import annotations

import asyncio
import importlib.util
import sqlite3
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median

from bench import library
from bench.measurement import Measurement
from bench.rounds import Plan, Stopwatch, Work, duel
from bench.shop import shop
from eventmill import App, Event
from eventmill.core.stream import Stream

CALLERS = 64
EVENTS = 100
"""Events of the stream that is read."""

TABLE = """
CREATE TABLE events (
    position INTEGER PRIMARY KEY, stream TEXT NOT NULL, version INTEGER NOT NULL, type TEXT NOT NULL, id TEXT NOT NULL,
    at INTEGER NOT NULL, attributes BLOB NOT NULL, data BLOB NOT NULL)
"""
INDEX = "CREATE UNIQUE INDEX versions ON events (stream, version)"
VERSION = "SELECT coalesce(max(version), 0) FROM events WHERE stream = ?"
INSERT = "INSERT INTO events (stream, version, type, id, at, attributes, data) VALUES (?, ?, ?, ?, ?, ?, ?)"
READ = "SELECT position, stream, version, type, id, at, attributes, data FROM events"
ATTRIBUTES = b'{"source":"bench","time":1700000000000000}'


class LineAdded(Event, name="basket.line-added", key="basket"):
    basket: str
    product: str
    quantity: int


def _event(stream: int, number: int) -> LineAdded:
    return LineAdded(f"b{stream}", f"product-{number % 50}", number)


def _open(place: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(place / "raw.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(TABLE)
    connection.execute(INDEX)
    return connection


def _row(stream: int, number: int) -> tuple[object, ...]:
    data = b'{"basket":"b%d","product":"product-%d","quantity":%d}' % (stream, number % 50, number)
    return (
        f"basket/b{stream}",
        number + 1,
        "basket.line-added",
        f"{stream:016x}{number:016x}",
        1_700_000_000_000,
        ATTRIBUTES,
        data,
    )


def _append_raw(place: Path, count: int) -> Work:
    connection = _open(place)
    with Stopwatch(count) as watch:
        for number in range(count):
            connection.execute("BEGIN IMMEDIATE")
            ((version,),) = connection.execute(VERSION, ("basket/b0",)).fetchall()
            if version != number:
                raise RuntimeError(f"version {version}, not {number}")
            connection.execute(INSERT, _row(0, number))
            connection.execute("COMMIT")
    connection.close()
    return watch.work


async def _append(app: App, stream: Stream, count: int) -> None:
    for number in range(count):
        async with app.transaction() as tx:
            tx.append(stream, LineAdded(stream.key, f"product-{number % 50}", number), expected=number)


async def sequential(plan: Plan) -> list[Measurement]:
    """One event an append, one append at a time."""
    count = plan.some(6_000, 1_500)

    async def ours(place: Path) -> Work:
        async with shop(place / "shop.db") as app:
            with Stopwatch(count) as watch:
                await _append(app, Stream("basket", "b0"), count)
            return watch.work

    async def peer(place: Path) -> Work:
        return _append_raw(place, count)

    found = await duel(plan, ours, peer)
    return [found.measurement("append with expected version, one caller", target=0.8), *await _library(plan, count)]


async def _library(plan: Plan, count: int) -> list[Measurement]:
    if importlib.util.find_spec("eventsourcing") is None:
        print("the peer is not installed (pip install eventsourcing): left out", file=sys.stderr)
        return []
    rates = []
    for _ in range(plan.rounds):
        with plan.place() as place:
            rates.append(library.append(place, count).rate)
    return [Measurement("the eventsourcing library: the same", median(rates), "messages/s", samples=rates)]


async def concurrent(plan: Plan) -> list[Measurement]:
    """64 tasks, each appending to a stream of its own; beside it, one alone."""
    each = plan.some(1_000, 250)

    async def ours(place: Path) -> Work:
        async with shop(place / "shop.db") as app:
            with Stopwatch(CALLERS * each) as watch:
                await asyncio.gather(*(_append(app, Stream("basket", f"b{n}"), each) for n in range(CALLERS)))
            return watch.work

    async def peer(place: Path) -> Work:
        async with shop(place / "shop.db") as app:
            with Stopwatch(each) as watch:
                await _append(app, Stream("basket", "b0"), each)
            return watch.work

    found = await duel(plan, ours, peer)
    rates = [work.rate for work in found.ours]
    return [
        Measurement(
            "append, 64 callers on streams of their own", median(rates), "messages/s", target=40_000, samples=rates
        ),
        found.measurement("the same, beside one caller", target=8, against="alone"),
    ]


async def _filled(place: Path, streams: int) -> App:
    app = shop(place / "shop.db")
    await app.open()
    for start in range(0, streams, 100):
        async with app.transaction() as tx:
            for stream in range(start, min(streams, start + 100)):
                tx.append(Stream("basket", f"b{stream}"), *(_event(stream, number) for number in range(EVENTS)))
    return app


def _filled_raw(place: Path, streams: int) -> sqlite3.Connection:
    connection = _open(place)
    connection.execute("BEGIN")
    for stream in range(streams):
        connection.executemany(INSERT, [_row(stream, number) for number in range(EVENTS)])
    connection.execute("COMMIT")
    return connection


async def reading(plan: Plan) -> list[Measurement]:
    """A stream of 100 events, and everything, decoded to messages; bare SELECT of the same columns beside both."""
    streams = plan.some(1_000, 200)

    async def our_stream(place: Path) -> Work:
        app = await _filled(place, streams)
        with Stopwatch(streams) as watch:
            for stream in range(streams):
                found = await app.store.read_stream(Stream("basket", f"b{stream}"), limit=1_000)
                assert len(found) == EVENTS
        await app.close()
        return watch.work

    async def raw_stream(place: Path) -> Work:
        connection = _filled_raw(place, streams)
        with Stopwatch(streams) as watch:
            for stream in range(streams):
                sql = f"{READ} WHERE stream = ? AND version > ? ORDER BY version"
                assert len(connection.execute(sql, (f"basket/b{stream}", 0)).fetchall()) == EVENTS
        connection.close()
        return watch.work

    async def our_all(place: Path) -> Work:
        app = await _filled(place, streams)
        with Stopwatch(streams * EVENTS) as watch:
            after, count = 0, 0
            while True:
                found, after = await app.store.read_all(after=after, limit=500)
                if not found:
                    break
                count += len(found)
        assert count == streams * EVENTS
        await app.close()
        return watch.work

    async def raw_all(place: Path) -> Work:
        connection = _filled_raw(place, streams)
        with Stopwatch(streams * EVENTS) as watch:
            after = 0
            while rows := connection.execute(
                f"{READ} WHERE position > ? ORDER BY position LIMIT 500", (after,)
            ).fetchall():
                after = rows[-1][0]
        connection.close()
        return watch.work

    stream = await duel(plan, our_stream, raw_stream)
    everything = await duel(plan, our_all, raw_all)
    return [
        stream.measurement("read a stream of 100 events", target=0.6),
        everything.measurement("read everything", target=0.5),
    ]


async def sourcing(plan: Plan) -> list[Measurement]:
    """All of them."""
    parts: list[Callable[[Plan], Awaitable[list[Measurement]]]] = [sequential, concurrent, reading]
    return [measurement for part in parts for measurement in await part(plan)]
