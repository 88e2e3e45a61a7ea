"""Tasks: sent, run and settled, each fenced; and how long one takes to begin in another process."""

from __future__ import annotations

import asyncio
import os
import secrets
import sqlite3
import time
from contextlib import closing
from pathlib import Path

from bench.measurement import Figure, Measurement
from bench.process import all_handled, workers
from bench.rounds import Plan, Stopwatch, Work, duel
from bench.shop import with_tasks
from eventmill import App

VARIABLE = "EVENTMILL_TEST_POSTGRES"
CALLERS = 64
RATE = 50
BATCH = 100


def _raw(file: Path, count: int, *, run: bool) -> Work:
    """Bare rows of the same size: inserted, or claimed and deleted, a hundred a commit."""
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("CREATE TABLE jobs (id INTEGER PRIMARY KEY, state TEXT, due INTEGER, message BLOB)")
        connection.execute("CREATE INDEX jobs_due ON jobs (state, due)")
        rows = [("due", number, b"x" * 300) for number in range(count)]

        def insert() -> None:
            for start in range(0, count, BATCH):
                connection.execute("BEGIN IMMEDIATE")
                connection.executemany(
                    "INSERT INTO jobs (state, due, message) VALUES (?, ?, ?)", rows[start : start + BATCH]
                )
                connection.execute("COMMIT")

        def take() -> None:
            while True:
                connection.execute("BEGIN IMMEDIATE")
                claimed = connection.execute(
                    "UPDATE jobs SET state = 'running' WHERE id IN"
                    " (SELECT id FROM jobs WHERE state = 'due' ORDER BY due LIMIT ?) RETURNING id", (BATCH,)
                ).fetchall()  # fmt: skip
                connection.executemany("DELETE FROM jobs WHERE id = ?", claimed)
                connection.execute("COMMIT")
                if not claimed:
                    return

        if run:
            insert()
        with Stopwatch(count) as watch:
            take() if run else insert()
        return watch.work


async def _send(app: App, count: int) -> None:
    """As fast as 64 callers can, a task a call."""
    noop = app.tasks.by_type["task.noop"]
    left = iter(range(count))

    async def call() -> None:
        for _ in left:
            await app.send(noop.job())

    await asyncio.gather(*(call() for _ in range(CALLERS)))


async def _fill(app: App, count: int) -> None:
    noop = app.tasks.by_type["task.noop"]
    for start in range(0, count, 2_000):
        async with app.transaction() as tx:
            for _ in range(min(2_000, count - start)):
                tx.send(noop.job())


async def tasks(plan: Plan) -> list[Measurement]:
    """On SQLite: no-op tasks of one worker, 64 senders, and the time until one begins in another process."""
    count = plan.some(80_000, 20_000)

    async def run(place: Path) -> Work:
        file = place / "tasks.db"
        async with with_tasks(file) as app:
            await _fill(app, count)
        async with workers("tasks", file, 1) as crew:
            seconds = await all_handled(crew, count)
            processor = (await crew[0].stop())["processor"]
        with closing(sqlite3.connect(file)) as connection:
            (left,) = connection.execute("SELECT count(*) FROM eventmill_jobs").fetchone()
        if left:
            raise RuntimeError(f"{left} of {count} tasks are not settled")
        return Work(count, seconds, processor)

    async def send(place: Path) -> Work:
        async with with_tasks(place / "tasks.db") as app:
            with Stopwatch(count) as watch:
                await _send(app, count)
            return watch.work

    async def raw_run(place: Path) -> Work:
        return _raw(place / "raw.db", count, run=True)

    async def raw_send(place: Path) -> Work:
        return _raw(place / "raw.db", count, run=False)

    ran = (await duel(plan, run, raw_run)).measurement("tasks, no-op, one worker")
    sent = (await duel(plan, send, raw_send)).measurement("tasks, sent by 64 callers")
    with plan.place() as place:
        file = place / "tasks.db"
        async with with_tasks(file) as app, workers("tasks", file, 1) as (worker,):
            worker.tell("go")
            await _offer(app, count := RATE * plan.some(15, 4))
            await worker.until(count)
            delays = (await worker.stop())["delays"]
    return [_rated(ran, 25_000), _rated(sent, 50_000), *_latency("tasks", delays, 10, 30)]


def _rated(found: Measurement, least: float) -> Measurement:
    """The target is the rate; the ratio stands beside it."""
    details = {**found.details, "raw": round(found.peer or 0), "of_raw": round(found.ratio or 0, 3)}
    return Measurement(found.name, found.value, "tasks/s", target=least, samples=found.samples, details=details)


async def _offer(app: App, count: int) -> None:
    """50 a second in an open loop: a slow one does not hold the next back."""
    timed = app.tasks.by_type["task.timed"]
    loop = asyncio.get_running_loop()
    started = loop.time()
    calls = []
    for number in range(count):
        await asyncio.sleep(started + number / RATE - loop.time())
        calls.append(asyncio.create_task(app.send(timed.job(time.monotonic()))))
    await asyncio.gather(*calls)


def _latency(name: str, seconds: list[float], p50: float, p99: float | None) -> list[Measurement]:
    delays = sorted(1_000 * delay for delay in seconds[RATE:])
    measured: dict[str, Figure] = {"tasks": len(delays), "at": "50 a second", "worst": round(delays[-1], 2)}
    middle, high = delays[len(delays) // 2], delays[min(len(delays) * 99 // 100, len(delays) - 1)]
    return [
        Measurement(f"{name}, latency p50", middle, "ms", target=p50, bound="most", details=measured),
        Measurement(f"{name}, latency p99", high, "ms", target=p99, bound="most", details=measured),
    ]


async def tasks_postgres(plan: Plan) -> list[Measurement]:
    """The same on PostgreSQL, sender and worker on connections of their own in one process."""
    server = os.environ.get(VARIABLE)
    if server is None:
        raise SystemExit(f"tasks-postgres: set {VARIABLE} to the URL of a server")
    url = f"{server}?schema=bench_{secrets.token_hex(4)}"
    count = plan.some(40_000, 10_000)
    delays: list[float] = []
    async with App(url, name="bench") as app:

        @app.task()
        async def noop() -> None: ...

        @app.task()
        async def timed(sent: float) -> None:
            delays.append(time.monotonic() - sent)

        with Stopwatch(count) as sending:
            await _send(app, count)
        async with App(url, name="bench") as worker:
            worker.tasks.by_type.update(app.tasks.by_type)
            worker.tasks.queue("default")
            with Stopwatch(count) as running:
                task = asyncio.create_task(worker.run())
                while worker.handled < count and not task.done():
                    await asyncio.sleep(0.005)
            await _offer(app, offered := RATE * plan.some(15, 4))
            while len(delays) < offered:
                await asyncio.sleep(0.01)
            worker.stop()
            await task
        left = await app.store.jobs()
    if left:
        raise RuntimeError(f"{len(left)} of {count} tasks are not settled")
    details = {"processor_us": round(running.work.processor_us, 1)}
    sent = {"processor_us": round(sending.work.processor_us, 1)}
    return [
        Measurement("postgres: tasks, no-op, one worker", running.work.rate, "tasks/s", target=15_000, details=details),
        Measurement("postgres: tasks, sent by 64 callers", sending.work.rate, "tasks/s", details=sent),
        *_latency("postgres: tasks", delays, 5, None),
    ]
