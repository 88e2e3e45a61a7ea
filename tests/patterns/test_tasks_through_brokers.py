"""Tasks whose calls are messages of a broker: competing consumers run them, with the promises of all tasks."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from eventmill import App, Settings, TaskContext, Transaction, fixed
from eventmill.testing.conformance.apps import running, waiting

NUMBERS = 60
LATER = range(NUMBERS, NUMBERS + 5)


def make(place: Path, broker: str, topic: str, name: str) -> App:
    app = App(
        f"sqlite:///{place / 'tasks.db'}", broker=broker, name=name, settings=Settings(lease=5.0), topics={topic: 4}
    )

    @app.setup
    async def create(tx: Transaction) -> None:
        await tx.execute("CREATE TABLE IF NOT EXISTS done (number INTEGER, attempt INTEGER)")

    @app.task(topic=topic, retry=fixed(0.05, attempts=5))
    async def work(number: int, tx: Transaction, context: TaskContext) -> None:
        await tx.execute("INSERT INTO done VALUES (?, ?)", (number, context.attempt))
        if number % 5 == 0 and context.attempt == 1:
            raise ValueError("at the second attempt it works")

    return app


async def case(place: Path, broker: str, topic: str) -> None:
    one, two = (make(place, broker, topic, "crew") for _ in range(2))
    work = one.tasks.by_type["task.work"]
    async with one, two:
        async with one.transaction() as tx:
            for number in range(NUMBERS):
                tx.send(work.job(number))
        for number in LATER:
            await one.send(work.job(number), after=0.5)

        async def done() -> bool:
            async with one.transaction() as tx:
                return len(await tx.execute("SELECT 1 FROM done")) >= NUMBERS + len(LATER)

        async with running(one, two):
            await waiting(done, seconds=60)
            await asyncio.sleep(0.5)
        async with one.transaction() as tx:
            rows = await tx.execute("SELECT number, attempt FROM done ORDER BY number")
        assert rows == [(number, 2 if number % 5 == 0 else 1) for number in range(NUMBERS + len(LATER))]
        assert not await one.store.jobs()


@pytest.mark.timeout(120)
def test_through_rabbitmq(tmp_path: Path, rabbitmq_url: str) -> None:
    asyncio.run(case(tmp_path, rabbitmq_url, "work"))


@pytest.mark.timeout(120)
def test_through_kafka(tmp_path: Path, kafka_url: str, kafka_prefix: str) -> None:
    asyncio.run(case(tmp_path, f"{kafka_url}?prefix={kafka_prefix}", "work"))
