"""The program that is killed on PostgreSQL: orders, each written with its event, and posted by a handler.

    python ledger.py URL

Whatever was done before a crash is found and not done again: it can be started any number of times.
"""

from __future__ import annotations

import asyncio
import sys

from eventmill import App, Context, DeadLetter, Event, Settings, Transaction, fixed
from eventmill.testing import crash

ORDERS = 40
CUSTOMERS = 8


class LedgerPlaced(Event, name="ledger.placed", key="customer"):
    customer: str
    number: int


def make(url: str) -> App:
    app = App(url, name="ledger", settings=Settings(lease=0.6))

    @app.setup
    async def tables(tx: Transaction) -> None:
        await tx.execute("CREATE TABLE IF NOT EXISTS orders (number integer PRIMARY KEY)")
        for table in ("posted", "checked"):
            await tx.execute(
                f"CREATE TABLE IF NOT EXISTS {table} (line bigserial PRIMARY KEY, number integer, customer text)"
            )
        await tx.execute("CREATE TABLE IF NOT EXISTS healed (at integer)")

    @app.on(LedgerPlaced, retry=fixed(0.02, attempts=50))
    async def post(event: LedgerPlaced, tx: Transaction, ctx: Context) -> None:
        await tx.execute("INSERT INTO posted (number, customer) VALUES (?, ?)", (event.number, event.customer))
        if event.number % 5 == 0 and ctx.attempt == 1:
            raise RuntimeError("at the second attempt it works")

    @app.on(LedgerPlaced, retry=fixed(0.02, attempts=50))
    async def check(event: LedgerPlaced, tx: Transaction) -> DeadLetter | None:
        if not await tx.execute("SELECT 1 FROM healed"):
            return DeadLetter("not healed yet")
        await tx.execute("INSERT INTO checked (number, customer) VALUES (?, ?)", (event.number, event.customer))
        return None

    return app


async def order(app: App, number: int) -> None:
    async with app.transaction() as tx:
        if (await tx.execute("INSERT INTO orders VALUES (?) ON CONFLICT DO NOTHING", (number,))).rowcount:
            tx.publish(LedgerPlaced(f"c{number % CUSTOMERS}", number))


async def count(app: App, sql: str) -> int:
    async with app.transaction() as tx:
        ((number,),) = await tx.execute(sql)
    return int(number)


async def main(url: str) -> None:
    async with make(url) as app:
        for number in range(ORDERS):
            await order(app, number)
        running = asyncio.create_task(app.run())
        jobs = "SELECT count(*) FROM eventmill_jobs WHERE queue = 'ledger.check'"
        while await count(app, "SELECT count(*) FROM posted") < ORDERS or (
            await count(app, jobs) + await count(app, "SELECT count(*) FROM checked") < ORDERS
        ):
            await asyncio.sleep(0.01)
        async with app.transaction() as tx:
            await tx.execute("INSERT INTO healed VALUES (1)")
        while await count(app, "SELECT count(*) FROM checked") < ORDERS or await count(app, jobs):
            await app.store.replay([job.id for job in await app.store.jobs("ledger.check", state="dead")])
            await asyncio.sleep(0.02)
        app.stop()
        await running


if __name__ == "__main__":
    crash.arm()
    asyncio.run(main(sys.argv[1]))
