"""What a service keeps of others' messages: its own log, its own projections, whatever the broker is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from eventmill import App, Event, Transaction, on
from eventmill.core.errors import CapabilityError
from eventmill.core.message import Message, Partition
from eventmill.patterns.projection.rebuild import rebuild


class Sold(Event, name="recsale.sold", key="product"):
    product: str
    pieces: int


class Counted(Event, name="reccount.counted", key="product"):
    product: str


def reader(url: str, broker: str, *, record: bool = True) -> App:
    app = App(url, broker=broker, name="reader")
    if record:
        app.record("recsale.*")

    @app.projection("rec-totals", tables=["rec_totals"])
    class Totals:
        async def create(self, tx: Transaction) -> None:
            await tx.execute("CREATE TABLE {rec_totals} (product TEXT PRIMARY KEY, pieces BIGINT NOT NULL)")

        @on(Sold)
        async def sold(self, event: Sold, tx: Transaction) -> None:
            await tx.execute(
                "INSERT INTO {rec_totals} (product, pieces) VALUES (?, ?)"
                " ON CONFLICT (product) DO UPDATE SET pieces = {rec_totals}.pieces + excluded.pieces",
                (event.product, event.pieces),
            )

    return app


@asynccontextmanager
async def running(*apps: App) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(app.run()) for app in apps]
    try:
        yield
    finally:
        for app in apps:
            app.stop()
        await asyncio.gather(*tasks)
        for app in apps:
            await app.close()


async def totals(app: App) -> dict[str, int]:
    async with app.transaction() as tx:
        return dict(await tx.execute("SELECT product, pieces FROM rec_totals"))  # type: ignore[arg-type]


async def until(app: App, wanted: dict[str, int]) -> None:
    async with asyncio.timeout(20):
        while await totals(app) != wanted:
            await asyncio.sleep(0.02)


async def recorded_by(app: App) -> list[Message]:
    found = await app.store.read(dict.fromkeys(await app.store.end(), 0), limit=1000)
    return [each.message for each in found.messages]


async def reached(app: App) -> dict[Partition, int]:
    """How far the relay has come in the service's own log."""
    return {**dict.fromkeys(await app.store.end(), 0), **await app.store.cursors("relay")}


async def proceed(seller: App, app: App) -> None:
    """Sales reach the reader's own log once each, in order, and are not sent back; a view is built of them, and anew."""
    await app.open()
    async with running(seller, app):
        sent = []
        for number in range(40):
            sent += await seller.publish(Sold(f"p{number % 3}", 1))
        await app.publish(Counted("p0"))
        await until(app, {"p0": 14, "p1": 13, "p2": 13})
        view = app.view("rec-totals")
        assert (await view.lag()).events == 0
        await rebuild(view)
        await until(app, {"p0": 14, "p1": 13, "p2": 13})
        async with asyncio.timeout(20):
            while (await app.store.backlog("relay", await reached(app), None)).messages:
                await asyncio.sleep(0.02)
        messages = await recorded_by(app)
        sales = [message for message in messages if message.type == "recsale.sold"]
        assert len(sales) == len({message.id for message in sales}) == 40
        assert {message.source for message in sales} == {"seller"}
        for product in ("p0", "p1", "p2"):
            numbers = [message.sequence for message in sales if message.key == product]
            assert numbers == sorted(numbers)  # type: ignore[type-var]


def test_from_a_broker_that_keeps_a_log(tmp_path: Path) -> None:
    broker = f"sqlite:///{tmp_path}/broker.db"

    async def main() -> None:
        seller = App(f"sqlite:///{tmp_path}/seller.db", broker=broker, name="seller")
        app = reader(f"sqlite:///{tmp_path}/reader.db", broker)
        await proceed(seller, app)
        looker = App(broker, name="looker")
        async with looker:
            assert [each.source for each in await recorded_by(looker) if each.type == "reccount.counted"] == ["reader"]
            assert len([each for each in await recorded_by(looker) if each.type == "recsale.sold"]) == 40

    asyncio.run(main())


def test_from_a_queue(tmp_path: Path, rabbitmq_url: str) -> None:
    async def main() -> None:
        seller = App(f"sqlite:///{tmp_path}/seller.db", broker=f"{rabbitmq_url}?unroutable=drop", name="seller")
        url = f"{rabbitmq_url}?unroutable=drop"
        await proceed(seller, reader(f"sqlite:///{tmp_path}/reader.db", url))

    asyncio.run(main())


def test_a_projection_on_a_queue_says_what_helps(tmp_path: Path, rabbitmq_url: str) -> None:
    async def main() -> None:
        app = reader(f"sqlite:///{tmp_path}/reader.db", rabbitmq_url, record=False)
        with pytest.raises(CapabilityError, match=r"app\.record"):
            await app.open()

    asyncio.run(main())


def test_without_a_broker_there_is_nothing_to_record(tmp_path: Path) -> None:
    app = App(f"sqlite:///{tmp_path}/one.db", name="one")
    app.record("recsale.*")
    assert app.consumers == []
