"""An existing Debezium feeds our handlers, and our captures feed what reads Debezium's topics, through a real Kafka."""

from __future__ import annotations

import asyncio
import json
import secrets
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from cdc_watching import run
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from eventmill import App, Settings, Transaction
from eventmill.core.clock import Ids
from eventmill.patterns.cdc.change import Change
from eventmill.patterns.cdc.setup import initialise

SOURCE = {"version": "3.0.5.Final", "connector": "postgresql", "name": "x", "schema": "public", "snapshot": "false"}


@pytest.fixture
def server(kafka_server: str) -> Any:
    name = f"dbz{secrets.token_hex(4)}"
    yield name
    admin = AdminClient({"bootstrap.servers": urlsplit(kafka_server).netloc})
    names = [topic for topic in admin.list_topics(timeout=20).topics if topic.startswith(name)]
    for deletion in admin.delete_topics(names, operation_timeout=20).values() if names else ():
        deletion.result()


def record(op: str, table: str, before: Any, after: Any, lsn: int) -> bytes:
    source = {**SOURCE, "table": table, "lsn": lsn, "txId": lsn, "ts_ms": 1714000000000}
    return json.dumps({"before": before, "after": after, "source": source, "op": op, "ts_ms": 1714000000001}).encode()


def test_a_debezium_stream_builds_a_copy(kafka_server: str, server: str, tmp_path: Path) -> None:
    """A snapshot, updates with unavailable values, a delete with its tombstone, a key that changes, and rubbish."""
    address = urlsplit(kafka_server).netloc
    admin = AdminClient({"bootstrap.servers": address})
    for made in admin.create_topics([NewTopic(f"{server}.public.Customers", 3, 1)]).values():
        made.result()
    producer = Producer({"bootstrap.servers": address})
    topic = f"{server}.public.Customers"

    def send(key: int | None, value: bytes | None) -> None:
        producer.produce(topic, value, None if key is None else json.dumps({"id": key}))

    for number in range(1, 101):
        send(number, record("r", "Customers", None, {"id": number, "name": f"c{number}", "photo": "large"}, 1))
    for number in range(1, 101, 2):
        after = {"id": number, "name": "new", "photo": "__debezium_unavailable_value"}
        send(number, record("u", "Customers", None, after, 2))
    for number in range(1, 101, 5):
        send(number, record("d", "Customers", {"id": number}, None, 3))
        send(number, None)
    send(500, record("c", "Customers", None, {"id": 500, "name": "late", "photo": None}, 4))
    send(2, b"rubbish")
    producer.flush(20)

    app = App(
        f"sqlite:///{tmp_path}/w.db",
        broker=f"{kafka_server}?debezium={server}",
        name="reader",
        settings=Settings(lease=3),
    )
    tables = app.debezium(server, tables=["public.Customers"])

    @app.setup
    async def create(tx: Transaction) -> None:
        await tx.execute("CREATE TABLE IF NOT EXISTS copies (id INTEGER PRIMARY KEY, name TEXT, photo TEXT)")

    @app.on(tables["public.Customers"], group=f"{server}.copy", batch=50)
    async def copy(changes: list[Change], tx: Transaction) -> None:
        for change in changes:
            assert change.key is not None
            if change.gone:
                await tx.execute("DELETE FROM copies WHERE id = ?", (change.key["id"],))
                continue
            row = {"photo": None, **(change.after or {})}
            await tx.execute(
                "INSERT INTO copies VALUES (:id, :name, :photo) ON CONFLICT (id) DO UPDATE SET name = excluded.name"
                + ("" if "photo" in change.unchanged else ", photo = excluded.photo"),
                row,
            )

    async def main() -> None:
        async with app:
            running = asyncio.create_task(app.run())
            async with asyncio.timeout(60):
                while app.handled < 171 or not await app.store.jobs(f"{server}.copy", state="dead"):
                    await asyncio.sleep(0.1)
                    assert not running.done()
            async with app.transaction() as tx:
                rows = {row[0]: (row[1], row[2]) for row in await tx.execute("SELECT id, name, photo FROM copies")}
            expected: dict[int, tuple[str, str | None]] = {
                number: ("new" if number % 2 else f"c{number}", "large") for number in range(1, 101) if number % 5 != 1
            }
            assert rows == {**expected, 500: ("late", None)}
            (dead,) = await app.store.jobs(f"{server}.copy", state="dead")
            assert dead.message.data == b"rubbish"
            app.stop()
            await running

    asyncio.run(main())


def test_our_capture_feeds_consumers_of_debezium(
    postgres_url: str, kafka_server: str, server: str, tmp_path: Path
) -> None:
    run(postgres_url, 'CREATE TABLE "Customers" (id integer PRIMARY KEY, name text)',
        "INSERT INTO \"Customers\" VALUES (1, 'one')")  # fmt: skip
    app = App(
        f"sqlite:///{tmp_path}/w.db",
        broker=f"{kafka_server}?debezium={server}",
        name="writer",
        settings=Settings(lease=3),
    )
    capture = app.capture(postgres_url, tables=["Customers"], name=server, debezium=True)
    consumer = Consumer(
        {
            "bootstrap.servers": urlsplit(kafka_server).netloc,
            "group.id": server,
            "auto.offset.reset": "earliest",
            "topic.metadata.refresh.interval.ms": 500,
        }
    )
    found: list[tuple[Any, Any]] = []

    def consume(number: int) -> None:
        while len(found) < number:
            got = consumer.poll(20)
            assert got is not None, found
            assert got.error() is None, got.error()
            key, value = got.key(), got.value()
            found.append((None if key is None else json.loads(key), None if value is None else json.loads(value)))

    async def main() -> None:
        async with app:
            await initialise(app.store, capture, app.clock, Ids(app.clock))
            running = asyncio.create_task(app.run())
            consumer.subscribe([f"{server}.public.Customers"])
            await asyncio.to_thread(consume, 1)
            run(
                postgres_url,
                "INSERT INTO \"Customers\" VALUES (2, 'two')",
                'ALTER TABLE "Customers" ADD COLUMN more integer',
                'UPDATE "Customers" SET more = 3 WHERE id = 2',
                'DELETE FROM "Customers" WHERE id = 2',
            )
            await asyncio.to_thread(consume, 5)
            app.stop()
            await running
            assert await app.store.jobs(state="dead") == []

    try:
        asyncio.run(main())
    finally:
        consumer.close()
    first, *later = found
    assert first[1]["op"] == "r"
    assert [key for key, _ in later] == [{"id": 2}] * 4
    assert [value and value["op"] for _, value in later] == ["c", "u", "d", None]
    assert later[1][1]["after"] == {"id": 2, "name": "two", "more": 3}
    assert later[0][1]["source"]["table"] == "Customers"
