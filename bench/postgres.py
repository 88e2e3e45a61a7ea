"""PostgreSQL: publishing with concurrent callers, and consuming with one upsert a message, exactly once.

EVENTMILL_TEST_POSTGRES says where it is; what is made there has a schema of its own, which stays. Beside the rates stands
what does not hang on the machine's mood: messages a commit, writes to the socket a message, processor time a message.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import time

from bench.measurement import Measurement
from bench.rounds import Plan
from eventmill import App, Event, Transaction
from eventmill.backends.postgres.backend import PostgresBackend

VARIABLE = "EVENTMILL_TEST_POSTGRES"
CALLERS = 32
CONCURRENCY = 256
"""Keys that the handler may work on at a time: so many of its units can share a commit."""


class BenchPlaced(Event, name="bench.placed", key="customer"):
    customer: str
    order: str
    note: str


def make(url: str, concurrency: int) -> App:
    app = App(url, name="bench")

    @app.setup
    async def create(tx: Transaction) -> None:
        await tx.execute("CREATE TABLE IF NOT EXISTS totals (customer text PRIMARY KEY, orders bigint NOT NULL)")

    @app.on(BenchPlaced, group="bench", concurrency=concurrency)
    async def count(event: BenchPlaced, tx: Transaction) -> None:
        await tx.execute(
            "INSERT INTO totals VALUES (?, 1) ON CONFLICT (customer) DO UPDATE SET orders = totals.orders + 1",
            (event.customer,),
        )

    return app


async def publish(app: App, count: int) -> Measurement:
    store = app.store
    assert isinstance(store, PostgresBackend)
    left = iter([BenchPlaced(f"c{number % 1000}", f"o{number}", "x" * 230) for number in range(count)])

    async def call() -> None:
        for event in left:
            await app.publish(event)

    began, processor = time.perf_counter(), time.process_time()
    await asyncio.gather(*(call() for _ in range(CALLERS)))
    seconds, processor = time.perf_counter() - began, time.process_time() - processor
    commits = store.server.publishes.commits
    details = {"a_commit": round(count / commits, 1), "processor_us": round(processor / count * 1e6, 1)}
    return Measurement("postgres: publish, 32 callers", count / seconds, "messages/s", target=15_000, details=details)


async def consume(app: App, count: int) -> Measurement:
    store = app.store
    assert isinstance(store, PostgresBackend)
    began, processor = time.perf_counter(), time.process_time()
    running = asyncio.create_task(app.run())
    while app.handled < count and not running.done():
        await asyncio.sleep(0.005)
    seconds, processor = time.perf_counter() - began, time.process_time() - processor
    units = store.server.units
    writes = units.pipeline.writes if units.pipeline is not None else 0
    app.stop()
    await running
    async with app.transaction() as tx:
        ((found,),) = await tx.execute("SELECT sum(orders)::bigint FROM totals")
    if found != count:
        raise RuntimeError(f"{count} messages were published, but {found} effects are in the table")
    details = {
        "a_commit": round(count / units.commits, 1),
        "writes": round(writes / count, 4),
        "processor_us": round(processor / count * 1e6, 1),
    }
    return Measurement("postgres: consume, one upsert", count / seconds, "messages/s", target=15_000, details=details)


async def postgres(plan: Plan) -> list[Measurement]:
    """Publish, then handle what was published, each with an App of its own."""
    if VARIABLE not in os.environ:
        raise SystemExit(f"{VARIABLE} is not set: scripts/servers start postgres, then read .servers/env")
    count = plan.some(40_000, 10_000)
    url = f"{os.environ[VARIABLE]}?schema=bench_{secrets.token_hex(4)}"
    async with make(url, CONCURRENCY) as app:
        published = await publish(app, count)
    async with make(url, CONCURRENCY) as app:
        return [published, await consume(app, count)]
