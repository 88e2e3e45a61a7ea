"""Sagas of three steps, each a local transaction with a row of its own; many in flight; also with one in five undone.

Beside them, in the same minute, what the database takes for the same rows with no library in between: four commits a saga
(it is begun, then each step with the saga's record), one saga after another.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import psycopg

from bench.measurement import Measurement
from bench.rounds import Duel, Plan, Stopwatch, Work, duel
from eventmill import NO_RETRY, App, DeadLetter, Event, Transaction
from eventmill.patterns.saga.instance import ended_prefix

VARIABLE = "EVENTMILL_TEST_POSTGRES"
STEPS = ("reserve", "charge", "ship")
CHUNK = 1_000
CREATE = "CREATE TABLE IF NOT EXISTS bench_steps (saga text NOT NULL, step text NOT NULL)"
INSERT = "INSERT INTO bench_steps VALUES (?, ?)"


class CheckoutBegun(Event, name="bench.checkout.begun", key="order"):
    order: str
    fails: bool = False


def make(url: str) -> App:
    """Three steps; the last one refuses where the event says so, and then two are undone."""
    app = App(url, name="bench")

    @app.setup
    async def create(tx: Transaction) -> None:
        await tx.execute(CREATE)

    saga = app.saga("checkout", key="order", starts_on=CheckoutBegun, concurrency=128)

    async def undo(event: CheckoutBegun, tx: Transaction) -> None:
        await tx.execute(INSERT, (event.order, "undone"))

    @saga.step(compensate=undo)
    async def reserve(event: CheckoutBegun, tx: Transaction) -> None:
        await tx.execute(INSERT, (event.order, "reserve"))

    @saga.step(compensate=undo)
    async def charge(event: CheckoutBegun, tx: Transaction) -> None:
        await tx.execute(INSERT, (event.order, "charge"))

    @saga.step(retry=NO_RETRY)
    async def ship(event: CheckoutBegun, tx: Transaction) -> DeadLetter | None:
        if event.fails:
            return DeadLetter("out of stock")
        await tx.execute(INSERT, (event.order, "ship"))
        return None

    return app


async def run(url: str, count: int, failing: int) -> Work:
    """From the start of the worker until all have ended. failing: one in so many is undone; 0 for none."""
    async with make(url) as app:
        for start in range(0, count, CHUNK):
            numbers = range(start, min(start + CHUNK, count))
            await app.publish(*[CheckoutBegun(f"o{n}", bool(failing) and n % failing == 0) for n in numbers])
    async with make(url) as app:
        began, processor = time.perf_counter(), time.process_time()
        running = asyncio.create_task(app.run())
        while app.handled < count and not running.done():
            await asyncio.sleep(0.005)
        seconds, processor = time.perf_counter() - began, time.process_time() - processor
        app.stop()
        await running
        async with app.transaction() as tx:
            ((rows,),) = await tx.execute("SELECT count(*) FROM bench_steps")
            ((ended,),) = await tx.execute(
                f"SELECT count(*) FROM eventmill_documents WHERE key LIKE '{ended_prefix('bench.checkout')}%'"
            )
    undone = len([n for n in range(count) if failing and n % failing == 0])
    if ended != count or rows != 3 * count + undone:
        raise RuntimeError(f"{count} sagas were begun, {ended} have ended, with {rows} rows")
    return Work(count, seconds, processor)


RECORD = (
    "INSERT INTO raw_sagas VALUES (?, ?)",
    "UPDATE raw_sagas SET record = ? WHERE saga = ?",
    "CREATE TABLE raw_sagas (saga text PRIMARY KEY, record text NOT NULL)",
)


def raw(count: int, execute: Callable[..., object], commit: Callable[[], object]) -> Work:
    """Four commits a saga."""
    with Stopwatch(count) as watch:
        for number in range(count):
            saga, done = f"o{number}", [0.0]
            execute(RECORD[0], (saga, json.dumps(done)))
            commit()
            for step in STEPS:
                done.append(time.time())
                execute(INSERT, (saga, step))
                execute(RECORD[1], (json.dumps(done), saga))
                commit()
    return watch.work


def raw_sqlite(place: Path, count: int) -> Work:
    with closing(sqlite3.connect(place / "raw.db", isolation_level="IMMEDIATE")) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(CREATE)
        connection.execute(RECORD[2])
        return raw(count, connection.execute, connection.commit)


def raw_postgres(url: str, count: int) -> Work:
    schema = f"raw_{secrets.token_hex(4)}"
    with psycopg.connect(url) as connection:
        connection.execute(f"CREATE SCHEMA {schema}")
        connection.execute(f"SET search_path TO {schema}")
        connection.execute(CREATE)
        connection.execute(RECORD[2])
        connection.commit()
        found = raw(count, lambda sql, values: connection.execute(sql.replace("?", "%s"), values), connection.commit)
        connection.execute(f"DROP SCHEMA {schema} CASCADE")
    return found


def judged(name: str, plain: Duel, undone: Duel, target: float) -> list[Measurement]:
    first = plain.measurement(name, against="raw")
    second = undone.measurement(f"{name}, one in five undone", against="raw")
    rates = Measurement(f"{name}: a second", first.value, "sagas/s", target=target)
    share = Measurement(f"{name}: one in five undone against none", second.value / first.value, "", target=0.7)
    return [rates, share, first, second]


async def saga(plan: Plan) -> list[Measurement]:
    """On SQLite."""
    count = plan.some(8_000, 2_000)

    async def peer(place: Path) -> Work:
        return raw_sqlite(place, count // 4)

    plain = await duel(plan, lambda place: run(f"sqlite:///{place}/shop.db", count, 0), peer)
    undone = await duel(plan, lambda place: run(f"sqlite:///{place}/shop.db", count, 5), peer)
    return judged("sagas of three steps", plain, undone, 1_500)


async def saga_postgres(plan: Plan) -> list[Measurement]:
    """On PostgreSQL; EVENTMILL_TEST_POSTGRES says where it is. What is made there has schemas of its own, which stay."""
    if VARIABLE not in os.environ:
        raise SystemExit(f"{VARIABLE} is not set: scripts/servers start postgres, then read .servers/env")
    count, url = plan.some(8_000, 2_000), os.environ[VARIABLE]

    async def peer(place: Path) -> Work:
        return raw_postgres(url, count // 4)

    def ours(failing: int) -> Callable[[Path], object]:
        return lambda place: run(f"{url}?schema=bench_{secrets.token_hex(4)}", count, failing)

    plain = await duel(plan, ours(0), peer)  # type: ignore[arg-type]
    undone = await duel(plan, ours(5), peer)  # type: ignore[arg-type]
    return judged("postgres: sagas of three steps", plain, undone, 1_200)
