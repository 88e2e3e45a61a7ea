"""RabbitMQ beside the same work done with bare aio-pika: the outbox relayed, and queues consumed.

EVENTMILL_TEST_RABBITMQ says where the server is; `scripts/servers start rabbitmq` starts one.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast
from uuid import uuid4

import aio_pika

from bench import raw
from bench.measurement import Measurement
from bench.order import OrderPlaced, order, orders, rows
from bench.rounds import Plan, Stopwatch, Work, duel
from bench.shop import CREATE, UPSERT
from bench.stores import POSTGRESQL, SQLITE, Kind
from eventmill import App, Transaction
from eventmill.backends.connect import connect
from eventmill.backends.rabbitmq.backend import RabbitBackend
from eventmill.core.clock import SystemClock
from eventmill.core.message import Message, Partition
from eventmill.core.partition import DEFAULT_PARTITIONS, partition_of

TOPIC = "order"
SINK = "sink"
BATCH = 256
PREFETCH = 200
CHUNK = 2_000
PARTS = [Partition(TOPIC, number) for number in range(DEFAULT_PARTITIONS)]


def _server() -> str:
    try:
        return os.environ["EVENTMILL_TEST_RABBITMQ"]
    except KeyError:
        raise SystemExit(
            "EVENTMILL_TEST_RABBITMQ is not set: scripts/servers start rabbitmq, then . .servers/env"
        ) from None


@asynccontextmanager
async def _queues() -> AsyncIterator[tuple[str, RabbitBackend]]:
    """Sixteen queues under a prefix of their own; they are gone afterwards."""
    prefix = f"bench-{uuid4().hex[:8]}"
    backend = cast(RabbitBackend, connect(f"{_server()}?prefix={prefix}"))
    async with backend:
        await backend.declare({TOPIC: DEFAULT_PARTITIONS})
        await backend.admit(SINK, None, PARTS)
        yield prefix, backend
        await backend.dismiss(SINK)


def _app(place: Path, prefix: str, name: str, kind: Kind = SQLITE) -> App:
    broker = f"{_server()}?prefix={prefix}"
    app = App(kind.url(place, "shop"), broker=broker, name=name, topics={TOPIC: DEFAULT_PARTITIONS})

    @app.setup
    async def create(tx: Transaction) -> None:
        await tx.execute(CREATE)

    return app


async def _until(count: int, app: App) -> float:
    """Run until so many were handled; seconds from the beginning."""
    started = time.perf_counter()
    run = asyncio.create_task(app.run())
    while app.handled < count:
        await asyncio.sleep(0.002)
        if run.done():
            run.result()
    seconds = time.perf_counter() - started
    app.stop()
    await run
    return seconds


async def _measured(count: int, work: Callable[[], Awaitable[float]]) -> Work:
    before = time.process_time()
    seconds = await work()
    return Work(count, seconds, time.process_time() - before)


async def relay(plan: Plan, kind: Kind = SQLITE) -> list[Measurement]:
    """From the service's log to the server's confirmation, in order per key."""
    count = plan.some(40_000, 10_000)
    events = orders(count)
    bare = rows(events)

    async def ours(place: Path) -> Work:
        async with _queues() as (prefix, _), _app(place, prefix, "bench", kind) as app:
            for start in range(0, count, CHUNK):
                await app.publish(*events[start : start + CHUNK])
            return await _measured(count, lambda: _until(count, app))

    async def peer(place: Path) -> Work:
        async with _queues() as (prefix, _):
            return await _raw_relay(place, prefix, bare)

    found = await duel(plan, ours, peer)
    return [found.measurement(f"outbox {kind.name} to RabbitMQ", target=0.9, against="raw aio-pika")]


async def from_postgres(plan: Plan) -> list[Measurement]:
    """Both with the service's store on PostgreSQL."""
    return [*await relay(plan, POSTGRESQL), *await consume(plan, POSTGRESQL)]


async def _raw_relay(place: Path, prefix: str, bare: Sequence[tuple[str, bytes]]) -> Work:
    connection = await aio_pika.connect(_server())
    with raw.opened(place / "raw.db", bare) as log:
        async with connection, connection.channel() as channel:
            exchange = await channel.get_exchange(f"{prefix}.{TOPIC}", ensure=False)
            with Stopwatch(len(bare)) as watch:
                for page in log.pages(BATCH):
                    await asyncio.gather(
                        *(
                            exchange.publish(
                                aio_pika.Message(
                                    data, delivery_mode=2, message_id=key, content_type="application/json",
                                    headers={"ce-id": key, "ce-type": "order.placed", "ce-source": "raw", "ce-specversion": "1.0"},
                                ),
                                routing_key=f"{partition_of(key, key, DEFAULT_PARTITIONS)}.order.placed",
                            )
                            for key, data in page
                        )
                    )  # fmt: skip
            return watch.work


async def _fill(backend: RabbitBackend, bare: Sequence[tuple[str, bytes]]) -> None:
    for start in range(0, len(bare), CHUNK):
        await backend.publish(
            [
                Message(id=key, source="bench", type="order.placed", topic=TOPIC, time=0, data=data, key=key)
                for key, data in bare[start : start + CHUNK]
            ]
        )


async def consume(plan: Plan, kind: Kind = SQLITE) -> list[Measurement]:
    """One worker: an upsert a message and the inbox, against bare consuming and acknowledging without any store."""
    count = plan.some(40_000, 10_000)
    bare = rows(orders(count))

    async def ours(place: Path) -> Work:
        async with _queues() as (prefix, backend), _app(place, prefix, "bench", kind) as app:

            @app.on(OrderPlaced, group=SINK, concurrency=kind.concurrency)
            async def count_up(event: OrderPlaced, tx: Transaction) -> None:
                await tx.execute(UPSERT, (event.customer, event.total))

            await _fill(backend, bare)
            return await _measured(count, lambda: _until(count, app))

    async def peer(place: Path) -> Work:
        async with _queues() as (prefix, backend):
            await _fill(backend, bare)
            return await _raw_consume(prefix, count)

    found = await duel(plan, ours, peer)
    return [found.measurement(f"consume RabbitMQ into {kind.name}, inbox, upsert", target=0.8, against="raw aio-pika")]


async def _raw_consume(prefix: str, count: int) -> Work:
    done = asyncio.Event()
    seen = 0

    async def handle(message: aio_pika.abc.AbstractIncomingMessage) -> None:
        nonlocal seen
        await message.ack()
        seen += 1
        if seen == count:
            done.set()

    async with await aio_pika.connect(_server()) as connection:
        with Stopwatch(count) as watch:
            for part in PARTS:
                channel = await connection.channel()
                await channel.set_qos(PREFETCH)
                queue = await channel.get_queue(f"{prefix}.{SINK}/{part}", ensure=False)
                await queue.consume(handle)
            await done.wait()
        return watch.work


async def latency(plan: Plan) -> list[Measurement]:
    """100 messages a second: from the call to publish, over the outbox, until a reader of the queue has it."""
    count = plan.some(1_500, 400)
    delays: list[float] = []
    with plan.place() as place:
        async with _queues() as (prefix, _), _app(place, prefix, "bench") as sending:
            receiving = App(
                f"sqlite:///{place / 'other.db'}", broker=f"{_server()}?prefix={prefix}", name="other",
                clock=SystemClock(),
            )  # fmt: skip

            @receiving.on(OrderPlaced, group="clock")
            async def note(event: OrderPlaced) -> None:
                delays.append(time.monotonic() - event.sent)

            async with receiving:
                runs = [asyncio.create_task(app.run()) for app in (sending, receiving)]
                await asyncio.sleep(1)
                for number in range(count):
                    await sending.publish(order(number, time.monotonic()))
                    await asyncio.sleep(0.01)
                while len(delays) < count:
                    await asyncio.sleep(0.01)
                for app in (sending, receiving):
                    app.stop()
                await asyncio.gather(*runs)
    ordered = sorted(1_000 * delay for delay in delays[100:])
    p50, p99 = ordered[len(ordered) // 2], ordered[len(ordered) * 99 // 100]
    return [
        Measurement(
            "outbox to a RabbitMQ consumer p50", p50, "ms", target=5, bound="most", details={"p99": round(p99, 2)}
        )
    ]
