"""Kafka as the broker of a store on SQLite or PostgreSQL: the relay to it, and consuming from it.

EVENTMILL_TEST_KAFKA says where it is; each round has topics of its own there.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from bench.measurement import Measurement
from bench.order import OrderPlaced, orders
from bench.rounds import Plan, Work
from bench.shop import CREATE, UPSERT
from bench.stores import POSTGRESQL, SQLITE, Kind
from eventmill import App, Transaction
from eventmill.backends.connect import as_log

VARIABLE = "EVENTMILL_TEST_KAFKA"
CHUNK = 2_000
PATIENCE = 120.0


def _app(place: Path, name: str, kind: Kind) -> App:
    url = os.environ.get(VARIABLE)
    if url is None:
        raise SystemExit(f"{VARIABLE} is not set: scripts/servers start kafka, then read .servers/env")
    return App(kind.url(place, name), broker=f"{url}?prefix={place.name}.", name=name)


def _clock() -> Callable[[int], Work]:
    """Begins to measure; called at the end with the number of messages. The broker's own work is not in the processor time."""
    clock, processor = time.perf_counter(), time.process_time()
    return lambda count: Work(count, time.perf_counter() - clock, time.process_time() - processor)


@asynccontextmanager
async def _running(app: App) -> AsyncIterator[None]:
    run = asyncio.create_task(app.run())
    try:
        yield
    finally:
        app.stop()
        await run


async def _fill(app: App, events: Sequence[OrderPlaced]) -> None:
    for first in range(0, len(events), CHUNK):
        await app.publish(*events[first : first + CHUNK])


async def _until_at_broker(app: App, count: int) -> None:
    log = as_log(app.broker)
    assert log is not None
    async with asyncio.timeout(PATIENCE):
        while sum((await log.end()).values()) < count:
            await asyncio.sleep(0.01)


async def _relayed(place: Path, events: Sequence[OrderPlaced], kind: Kind) -> Work:
    """From a full outbox to the broker's last confirmation."""
    async with _app(place, "shop", kind) as app:
        await _fill(app, events)
        end = _clock()
        async with _running(app):
            await _until_at_broker(app, len(events))
            return end(len(events))


async def _consumed(place: Path, events: Sequence[OrderPlaced], kind: Kind, batch: int | None) -> Work:
    """From a full topic to the last commit; the inbox is kept."""
    await _relayed(place, events, SQLITE)
    app = _app(place, "books", kind)

    @app.setup
    async def table(tx: Transaction) -> None:
        await tx.execute(CREATE)

    if batch is None:

        @app.on(OrderPlaced, concurrency=kind.concurrency)
        async def total(event: OrderPlaced, tx: Transaction) -> None:
            await tx.execute(UPSERT, (event.customer, event.total))

    else:

        @app.on(OrderPlaced, batch=batch)
        async def totals(events: list[OrderPlaced], tx: Transaction) -> None:
            await tx.executemany(UPSERT, [(event.customer, event.total) for event in events])

    async with app:
        end = _clock()
        async with _running(app), asyncio.timeout(PATIENCE):
            while app.handled < len(events):
                await asyncio.sleep(0.01)
            work = end(len(events))
        async with app.transaction() as tx:
            ((found,),) = await tx.execute("SELECT CAST(sum(orders) AS BIGINT) FROM bench_totals")
        if found != len(events):
            raise RuntimeError(f"{len(events)} messages were published, but {found} effects are in the table")
        return work


def _measurement(name: str, rounds: Sequence[Work], target: float | None) -> Measurement:
    middle = sorted(rounds, key=lambda work: work.rate)[len(rounds) // 2]
    return Measurement(
        name,
        middle.rate,
        "messages/s",
        target=target,
        samples=[work.rate for work in rounds],
        details={"processor_us": round(middle.processor_us, 1)},
    )


async def kafka(plan: Plan) -> list[Measurement]:
    """One process each, the broker beside it on the same machine."""
    return await _with(plan, SQLITE)


async def from_postgres(plan: Plan) -> list[Measurement]:
    """The same with the services' stores on PostgreSQL, which is a third on the machine."""
    return await _with(plan, POSTGRESQL)


async def _with(plan: Plan, kind: Kind) -> list[Measurement]:
    events = orders(plan.some(80_000, 20_000))
    relayed, single, batches = [], [], []
    for _ in range(plan.rounds):
        with plan.place() as place:
            relayed.append(await _relayed(place, events, kind))
        with plan.place() as place:
            single.append(await _consumed(place, events, kind, None))
        with plan.place() as place:
            batches.append(await _consumed(place, events, kind, 100))
    return [
        _measurement(f"outbox {kind.name} to Kafka, acks=all", relayed, 25_000),
        _measurement(f"consume Kafka into {kind.name}, inbox, one upsert a message", single, 15_000),
        _measurement(f"consume Kafka into {kind.name}, inbox, batches of 100", batches, None),
    ]
