"""A saga's commands to another service, and its answers, through a broker: each service with a store of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from long_running import SETTINGS, in_loop, running, until

from eventmill import App, DeadLetter, Event, StepContext, Transaction

ORDERS = 30


class ServiceOrdered(Event, name="sagaorders.ordered", key="order"):
    order: str
    number: int


class ServiceReserve(Event, name="sagastock.reserve", key="order"):
    order: str
    number: int


class ServiceReserved(Event, name="sagastock.reserved", key="order"):
    order: str
    shelf: str


class ServiceOutOfStock(Event, name="sagastock.out", key="order"):
    order: str


class ServiceRelease(Event, name="sagastock.release", key="order"):
    order: str


@pytest.fixture(params=["rabbitmq", "kafka", "sqlite"])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "rabbitmq":
        return str(request.getfixturevalue("rabbitmq_url"))
    if request.param == "kafka":
        prefix = request.getfixturevalue("kafka_prefix")
        return f"{request.getfixturevalue('kafka_url')}?prefix={prefix}"
    return f"sqlite:///{tmp_path}/broker.db"


def selling(folder: Path, broker: str) -> App:
    app = App(f"sqlite:///{folder}/orders.db", broker=broker, name="orders", settings=SETTINGS)
    saga = app.saga("checkout", key="order", starts_on=ServiceOrdered)

    async def release(event: ServiceOrdered, tx: Transaction, ctx: StepContext) -> None:
        tx.publish(ServiceRelease(event.order))

    @saga.step(compensate=release, done_on=ServiceReserved, failed_on=ServiceOutOfStock, deadline=60)
    async def reserve(event: ServiceOrdered, tx: Transaction) -> None:
        tx.publish(ServiceReserve(event.order, event.number))

    @saga.step(kind="pivot")
    async def charge(event: ServiceOrdered, ctx: StepContext) -> DeadLetter | None:
        answer = ctx.answer(ServiceReserved)
        assert answer is not None
        assert answer.shelf == f"shelf {event.number}"
        return DeadLetter("card declined") if event.number % 3 == 2 else None

    return app


def stock(folder: Path, broker: str) -> App:
    app = App(f"sqlite:///{folder}/stock.db", broker=broker, name="stock", settings=SETTINGS)

    @app.setup
    async def tables(tx: Transaction) -> None:
        await tx.execute("CREATE TABLE IF NOT EXISTS reserved (order_id TEXT PRIMARY KEY)")

    @app.on(ServiceReserve)
    async def reserve(event: ServiceReserve, tx: Transaction) -> None:
        if event.number % 3 == 1:
            tx.publish(ServiceOutOfStock(event.order))
            return
        await tx.execute("INSERT INTO reserved VALUES (?)", (event.order,))
        tx.publish(ServiceReserved(event.order, f"shelf {event.number}"))

    @app.on(ServiceRelease)
    async def release(event: ServiceRelease, tx: Transaction) -> None:
        await tx.execute("DELETE FROM reserved WHERE order_id = ?", (event.order,))

    return app


@in_loop
async def test_commands_and_answers_go_through_the_broker(tmp_path: Path, broker: str) -> None:
    orders, other = selling(tmp_path, broker), stock(tmp_path, broker)
    async with running(orders, other):
        await orders.publish(*[ServiceOrdered(f"o{number}", number) for number in range(ORDERS)])

        async def all_ended() -> dict[int, str] | None:
            found = {int(i.key[1:]): str(i.state) async for i in orders.sagas("checkout").instances() if i.ended}
            return found if len(found) == ORDERS else None

        states = await until(all_ended, 45)
        assert states == {number: "COMPLETED" if number % 3 == 0 else "COMPENSATED" for number in range(ORDERS)}

        async def conserved() -> bool:
            async with other.transaction() as tx:
                left = {order for (order,) in await tx.execute("SELECT order_id FROM reserved")}
            return left == {f"o{number}" for number in range(0, ORDERS, 3)}

        await until(conserved)
        found = await orders.sagas("checkout").show("o1")
        assert found is not None
        assert [entry.what for entry in found.timeline] == [
            "started", "step.sent", "answer", "step.failed", "compensating", "compensated"
        ]  # fmt: skip
