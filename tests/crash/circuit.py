"""The program that is killed: two services, each with its own file, around one broker: a file, or what is in BROKER.

The shop writes an order's row and publishes it. The books post it, some of them at the second attempt
only, and publish the booking, which the shop confirms, and labels in a task. A second group of the books lets every key's
first order die, so that the later ones park behind it; in the last round it is healed and replayed.
Whatever was done before a crash is found and not done again: the program can be started any number of times.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from uuid import uuid4

from eventmill import App, Context, DeadLetter, Event, Settings, TaskContext, Transaction, fixed
from eventmill.backends.sqlite import checkpoint
from eventmill.core.crash import point
from eventmill.core.stream import Stream
from eventmill.patterns.relay import RELAY
from eventmill.runtime.supervisor import INCARNATION
from eventmill.testing import crash

ROUNDS = 3
CUSTOMERS = 8
ORDERS = ROUNDS * CUSTOMERS

PROGRAM_POINTS = ("order.written", "order.published", "posting.written", "posting.published")
"""The points of this program, beside those of eventmill."""

BROKER = "CIRCUIT_BROKER"
"""Environment variable: the URL of the broker between the two."""

SETTINGS = Settings(lease=0.6)

LIFE = uuid4().hex


class Placed(Event, name="circuit.placed", key="customer"):
    customer: str
    number: int


class Booked(Event, name="circuit.booked", key="customer"):
    customer: str
    number: int


class OrderNoted(Event, name="note.ordered", key="number"):
    number: int


def service(place: Path, name: str) -> App:
    """Around the broker that the environment names, or a file beside the stores."""
    broker = os.environ.get(BROKER) or f"sqlite:///{place}/broker.db"
    return App(f"sqlite:///{place}/{name}.db", broker=broker, name=name, settings=SETTINGS, topics={"circuit": 4})


def shop(place: Path) -> App:
    app = service(place, "shop")

    @app.setup
    async def tables(tx: Transaction) -> None:
        await tx.execute("CREATE TABLE IF NOT EXISTS orders (number INTEGER PRIMARY KEY, customer TEXT)")
        await tx.execute("CREATE TABLE IF NOT EXISTS confirmed (line INTEGER PRIMARY KEY, number, customer)")
        await tx.execute("CREATE TABLE IF NOT EXISTS labelled (number)")
        await tx.execute("CREATE TABLE IF NOT EXISTS counted (fire)")

    @app.on(Booked, retry=fixed(0.02, attempts=50))
    async def confirm(event: Booked, tx: Transaction) -> None:
        await tx.execute("INSERT INTO confirmed (number, customer) VALUES (?, ?)", (event.number, event.customer))
        tx.send(label.job(event.number))

    @app.task(retry=fixed(0.02, attempts=50))
    async def label(number: int, tx: Transaction, ctx: Context) -> None:
        await tx.execute("INSERT INTO labelled VALUES (?)", (number,))
        if number % 3 == 0 and ctx.attempt == 1:
            raise RuntimeError("at the second attempt it works")

    @app.schedule(every=0.3)
    @app.task()
    async def count_labels(tx: Transaction, ctx: TaskContext) -> None:
        assert ctx.fire is not None
        await tx.execute("INSERT INTO counted VALUES (?)", (ctx.fire.isoformat(),))

    return app


def books(place: Path) -> App:
    app = service(place, "books")

    @app.setup
    async def tables(tx: Transaction) -> None:
        await tx.execute("CREATE TABLE IF NOT EXISTS ledger (line INTEGER PRIMARY KEY, number, customer)")
        await tx.execute("CREATE TABLE IF NOT EXISTS checked (line INTEGER PRIMARY KEY, number, customer)")
        await tx.execute("CREATE TABLE IF NOT EXISTS healed (at)")

    @app.on(Placed, retry=fixed(0.02, attempts=50))
    async def post(event: Placed, tx: Transaction, ctx: Context) -> None:
        await tx.execute("INSERT INTO ledger (number, customer) VALUES (?, ?)", (event.number, event.customer))
        point("posting.written")
        tx.publish(Booked(event.customer, event.number))
        point("posting.published")
        if event.number % 3 == 0 and ctx.attempt == 1:
            raise RuntimeError("at the second attempt it works")

    @app.on(Placed, retry=fixed(0.02, attempts=50))
    async def check(event: Placed, tx: Transaction) -> DeadLetter | None:
        if not await tx.execute("SELECT 1 FROM healed"):
            return DeadLetter("not healed yet")
        await tx.execute("INSERT INTO checked (number, customer) VALUES (?, ?)", (event.number, event.customer))
        return None

    return app


async def order(app: App, number: int) -> None:
    """Once, however often it is called."""
    async with app.transaction() as tx:
        if await tx.execute("SELECT 1 FROM orders WHERE number = ?", (number,)):
            return
        customer = f"c{number % CUSTOMERS}"
        await tx.execute("INSERT INTO orders VALUES (?, ?)", (number, customer))
        point("order.written")
        # A customer's orders come one after another, so that the version is known.
        tx.append(Stream("circuit", customer), Placed(customer, number), expected=number // CUSTOMERS)
        point("order.published")


async def note(app: App, number: int) -> None:
    """The same by the event's id alone: stored once, however often it is called."""
    async with app.transaction() as tx:
        noted = tx.append(Stream("note", f"c{number % CUSTOMERS}"), OrderNoted(number), ids=[f"note-{number}"])
    assert noted.version == number // CUSTOMERS + 1, noted


async def heal(app: App) -> None:
    async with app.transaction() as tx:
        if not await tx.execute("SELECT 1 FROM healed"):
            await tx.execute("INSERT INTO healed VALUES (1)")
    await app.store.replay([job.id for job in await app.store.jobs("books.check", state="dead")])


def count(file: Path, sql: str) -> int:
    connection = sqlite3.connect(file)
    try:
        return int(connection.execute(sql).fetchone()[0])
    finally:
        connection.close()


def drained(place: Path, turn: int) -> bool:
    orders = min(turn + 1, ROUNDS) * CUSTOMERS
    waiting = count(place / "books.db", "SELECT count(*) FROM eventmill_jobs WHERE queue = 'books.check'")
    checked = count(place / "books.db", "SELECT count(*) FROM checked")
    return (
        count(place / "books.db", "SELECT count(*) FROM ledger") >= orders
        and count(place / "shop.db", "SELECT count(*) FROM confirmed") >= orders
        and waiting + checked >= orders
        and count(place / "shop.db", "SELECT count(*) FROM labelled") >= orders
        and count(
            place / "shop.db",
            "SELECT count(*) FROM eventmill_jobs WHERE instr(message, CAST('count_labels' AS BLOB)) = 0",
        )
        == 0
        and count(place / "shop.db", "SELECT count(*) FROM counted") > turn
        and (turn < ROUNDS or waiting == 0)
    )


async def idle(app: App) -> bool:
    """Whether nothing is left to do: not the dropping of a repeat, nor the taking over from an earlier life."""
    for group in await app.store.groups():
        source = app.store if group.name == RELAY else app.broker
        waiting = await source.backlog(group.name, group.cursors, group.types)
        if group.retrying or group.parked or waiting.messages:
            return False
        if not group.members or not all(member.startswith(f"{LIFE}/") for member in group.members):
            return False
    return True


async def until(condition: Callable[[], Awaitable[bool]], running: Sequence[asyncio.Task[None]]) -> None:
    while not await condition():
        for task in running:
            if task.done():
                task.result()
                raise RuntimeError("a service ended before it was told to")
        await asyncio.sleep(0.01)


def begun(place: Path) -> int:
    """The round that an earlier life of this program was in."""
    if not (place / "shop.db").exists() or not count(place / "shop.db", _TABLES):
        return 0
    return max(0, (count(place / "shop.db", "SELECT count(*) FROM orders") - 1) // CUSTOMERS)


_TABLES = "SELECT count(*) FROM sqlite_schema WHERE name = 'orders'"


async def main(place: Path) -> None:
    for turn in range(begun(place), ROUNDS + 1):
        async with shop(place) as selling, books(place) as booking:
            if turn < ROUNDS:
                numbers = range(turn * CUSTOMERS, (turn + 1) * CUSTOMERS)
                await asyncio.gather(*(order(selling, number) for number in numbers))
                if not os.environ.get(BROKER):
                    await asyncio.gather(*(note(selling, number) for number in numbers))
            else:
                await heal(booking)
            running = [asyncio.create_task(app.run()) for app in (selling, booking)]

            async def over(turn: int = turn, apps: Sequence[App] = (selling, booking)) -> bool:
                return drained(place, turn) and (turn < ROUNDS or all([await idle(app) for app in apps]))

            await until(over, running)
            selling.stop()
            booking.stop()
            await asyncio.gather(*running)


if __name__ == "__main__":
    os.environ[INCARNATION] = LIFE
    crash.arm()
    # A few orders must do for some checkpoints.
    checkpoint.COMMITS = 6
    asyncio.run(main(Path(sys.argv[1])))
