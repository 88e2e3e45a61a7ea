"""The program that is killed in the middle of sagas: reserve from the stock, charge a provider outside, ship.

    python saga_program.py URL FOLDER [steady]

The provider keeps a ledger of its own, a file that it commits by itself: what it has charged and refunded under which
key. Whatever was done before a crash is found and not done again: it can be started any number of times. `steady` says
who it is, and goes on for ever.
"""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from pathlib import Path

from eventmill import App, DeadLetter, Event, Settings, StepContext, Transaction, fixed
from eventmill.core.crash import point
from eventmill.testing import crash

ORDERS = 24
STOCK = 1_000
PROGRAM_POINTS = ("saga.reserved", "saga.charging", "saga.charged", "saga.shipped", "saga.refunded", "saga.released")


class CrashPlaced(Event, name="crashsaga.placed", key="order"):
    order: str
    number: int


class CrashShip(Event, name="crashsaga.ship", key="order"):
    order: str
    number: int


class CrashShipped(Event, name="crashsaga.shipped", key="order"):
    order: str


class CrashRefused(Event, name="crashsaga.refused", key="order"):
    order: str


class Provider:
    """Commits by itself, once a key."""

    def __init__(self, folder: Path) -> None:
        self._connection = sqlite3.connect(folder / "provider.db", isolation_level=None, timeout=20)
        self._connection.execute("CREATE TABLE IF NOT EXISTS entries (key TEXT, what TEXT, PRIMARY KEY (key, what))")

    def book(self, key: str, what: str) -> None:
        self._connection.execute("INSERT OR IGNORE INTO entries VALUES (?, ?)", (key, what))


def make(url: str, folder: Path) -> App:
    provider = Provider(folder)
    app = App(url, name="shop", settings=Settings(lease=0.6), topics={"crashsaga": 4})
    quick = fixed(0.02, attempts=4)

    @app.setup
    async def tables(tx: Transaction) -> None:
        await tx.execute("CREATE TABLE IF NOT EXISTS stock (free integer NOT NULL, reserved integer NOT NULL)")
        await tx.execute("CREATE TABLE IF NOT EXISTS orders (number integer PRIMARY KEY)")
        await tx.execute("CREATE TABLE IF NOT EXISTS shipped (order_id text)")

    saga = app.saga("checkout", key="order", starts_on=CrashPlaced)

    async def release(event: CrashPlaced, tx: Transaction) -> None:
        await tx.execute("UPDATE stock SET free = free + 1, reserved = reserved - 1")
        point("saga.released")

    async def refund(event: CrashPlaced, tx: Transaction, ctx: StepContext) -> None:
        provider.book(ctx.idempotency_key, "refund")
        point("saga.refunded")

    @saga.step(compensate=release, locks=lambda event: [f"shelf/{event.number % 5}"])
    async def reserve(event: CrashPlaced, tx: Transaction) -> None:
        await tx.execute("UPDATE stock SET free = free - 1, reserved = reserved + 1")
        point("saga.reserved")

    @saga.step(compensate=refund, outside=True, retry=quick)
    async def charge(event: CrashPlaced, tx: Transaction, ctx: StepContext) -> DeadLetter | None:
        if event.number % 4 == 1:
            return DeadLetter("card declined")
        point("saga.charging")
        provider.book(ctx.idempotency_key, "charge")
        point("saga.charged")
        if event.number % 4 == 2 and ctx.attempt == 1:
            raise ConnectionError("charged, but no answer")
        return None

    async def no_shipping(event: CrashPlaced, tx: Transaction, ctx: StepContext) -> None: ...

    @saga.step(compensate=no_shipping, done_on=CrashShipped, failed_on=CrashRefused)
    async def ship(event: CrashPlaced, tx: Transaction) -> None:
        tx.publish(CrashShip(event.order, event.number))

    @saga.step(kind="retriable")
    async def book(event: CrashPlaced, tx: Transaction) -> None:
        await tx.execute("UPDATE stock SET reserved = reserved - 1")

    @app.on(CrashShip)
    async def carrier(event: CrashShip, tx: Transaction) -> None:
        if event.number % 4 == 3:
            tx.publish(CrashRefused(event.order))
            return
        await tx.execute("INSERT INTO shipped VALUES (?)", (event.order,))
        tx.publish(CrashShipped(event.order))
        point("saga.shipped")

    return app


async def order(app: App, number: int) -> None:
    async with app.transaction() as tx:
        if not await tx.execute("SELECT 1 FROM stock"):
            await tx.execute("INSERT INTO stock VALUES (?, 0)", (STOCK,))
        if (await tx.execute("INSERT INTO orders VALUES (?) ON CONFLICT DO NOTHING", (number,))).rowcount:
            tx.publish(CrashPlaced(f"o{number}", number))


async def states(app: App) -> dict[str, str]:
    return {each.key: str(each.state) async for each in app.sagas("checkout").instances()}


async def main(url: str, folder: Path, *, steady: bool) -> None:
    async with make(url, folder) as app:
        for number in range(ORDERS):
            await order(app, number)
        running = asyncio.create_task(app.run())
        while steady or sum(state in ("COMPLETED", "COMPENSATED") for state in (await states(app)).values()) < ORDERS:
            await asyncio.sleep(0.01)
            if running.done():
                running.result()
                raise RuntimeError("the app ended before it was told to")
        app.stop()
        await running


def check(folder: Path, found: dict[str, str], stock: tuple[int, int], shipped: list[str], locks: int) -> None:
    """All has ended, and adds up: stock, money by the provider's own ledger, parcels, locks."""
    completed = {key for key, state in found.items() if state == "COMPLETED"}
    assert len(found) == ORDERS
    assert set(found.values()) == {"COMPLETED", "COMPENSATED"}
    # In three of four something fails for good; but an interrupted process may cost an attempt, never a promise.
    assert completed <= {f"o{number}" for number in range(ORDERS) if number % 4 in (0, 2)}
    assert {f"o{number}" for number in range(0, ORDERS, 4)} <= completed
    assert stock == (STOCK - len(completed), 0)
    assert sorted(shipped) == sorted(completed)
    assert locks == 0
    with sqlite3.connect(folder / "provider.db") as connection:
        entries = connection.execute("SELECT key, what FROM entries").fetchall()
    connection.close()
    charged = {key for key, what in entries if what == "charge"}
    refunded = {key for key, what in entries if what == "refund"}
    assert len(charged - refunded) == len(completed), "captured less refunded is what was shipped"


if __name__ == "__main__":
    crash.arm()
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), steady="steady" in sys.argv))
