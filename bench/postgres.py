"""PostgreSQL: publishing with concurrent callers, and consuming with one upsert a message, exactly once.

    EVENTMILL_TEST_POSTGRES=postgresql://… python -m bench.postgres [MESSAGES] [CONCURRENCY]

Beside the rates it says what does not hang on the machine's mood: messages a commit, writes to the socket a message,
processor time of this process a message.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
import time

from eventmill import App, Event, Transaction
from eventmill.backends.postgres.backend import PostgresBackend

CALLERS = 32


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


async def publish(app: App, count: int) -> None:
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
    print(
        f"publish, {CALLERS} callers: {count / seconds:,.0f}/s, {count / commits:.0f} a commit, "
        f"{processor / count * 1e6:.0f} µs of processor"
    )


async def consume(app: App, count: int) -> None:
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
    print(
        f"consume, one upsert a message: {count / seconds:,.0f}/s, {count / units.commits:.0f} a commit, "
        f"{writes / count:.3f} writes, {processor / count * 1e6:.0f} µs of processor"
    )


async def main(count: int, concurrency: int) -> None:
    url = f"{os.environ['EVENTMILL_TEST_POSTGRES']}?schema=bench_{secrets.token_hex(4)}"
    async with make(url, concurrency) as app:
        await publish(app, count)
    async with make(url, concurrency) as app:
        await consume(app, count)


if __name__ == "__main__":
    asyncio.run(main(int((sys.argv[1:2] or ["60000"])[0]), int((sys.argv[2:3] or ["128"])[0])))
