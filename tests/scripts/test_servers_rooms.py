"""Each kind of server answers, and what one test makes there is gone for the next."""

from __future__ import annotations

import asyncio
import ssl
import time
from urllib.parse import urlsplit

import aio_pika
import psycopg
import pytest
from confluent_kafka import KafkaError, Producer
from confluent_kafka.admin import AdminClient, NewTopic

import rooms
import servers


def test_a_database_is_new_and_goes(postgres_server: str) -> None:
    with rooms.database(postgres_server) as url:
        with psycopg.connect(url) as left_open:
            left_open.execute("CREATE TABLE here (n int)")
            left_open.commit()
        left_open = psycopg.connect(url)
    with pytest.raises(psycopg.OperationalError):
        left_open.execute("SELECT 1")
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        psycopg.connect(url)


@pytest.mark.parametrize(
    ("setting", "value"),
    [("fsync", "on"), ("synchronous_commit", "on"), ("wal_level", "logical"), ("max_prepared_transactions", "4")],
)
def test_postgres_is_as_durable_as_in_production(postgres_server: str, setting: str, value: str) -> None:
    with psycopg.connect(postgres_server) as connection:
        assert connection.execute(f"SHOW {setting}").fetchone() == (value,)


def test_postgres_checks_passwords_and_offers_tls(postgres_url: str) -> None:
    root = servers.address("certificate")
    with psycopg.connect(f"{postgres_url}?sslmode=verify-full&sslrootcert={root}") as connection:
        assert connection.pgconn.ssl_in_use
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(postgres_url.replace("mill-secret", "guessed"))


def test_a_virtual_host_is_new_and_goes(rabbitmq_server: str, rabbitmq_management: str) -> None:
    async def declare(url: str) -> None:
        async with await aio_pika.connect(url, timeout=10) as connection:
            channel = await connection.channel()
            await channel.declare_queue("here", durable=True, arguments={"x-queue-type": "quorum"})

    with rooms.virtual_host(rabbitmq_server, rabbitmq_management) as url:
        host = urlsplit(url).path.strip("/")
        asyncio.run(declare(url))
        assert [queue["name"] for queue in rooms.manage(rabbitmq_management, "GET", f"queues/{host}")] == ["here"]
    assert host not in [found["name"] for found in rooms.manage(rabbitmq_management, "GET", "vhosts")]


def test_rabbitmq_offers_tls(rabbitmq_server: str) -> None:
    async def connect() -> None:
        trusted = ssl.create_default_context(cafile=servers.address("certificate"))
        async with await aio_pika.connect(servers.address("rabbitmq_tls"), ssl_context=trusted, timeout=10):
            pass

    asyncio.run(connect())


def test_topics_are_made_on_request_only_and_go(kafka_server: str) -> None:
    admin = AdminClient({"bootstrap.servers": urlsplit(kafka_server).netloc})
    with rooms.topics(kafka_server) as prefix:
        admin.create_topics([NewTopic(f"{prefix}here", 3, 1)])[f"{prefix}here"].result()
        assert len(admin.list_topics(timeout=10).topics[f"{prefix}here"].partitions) == 3
        refusals: list[KafkaError | None] = []
        producer = Producer({"bootstrap.servers": urlsplit(kafka_server).netloc, "message.timeout.ms": 2000})
        producer.produce(f"{prefix}there", b"", on_delivery=lambda error, message: refusals.append(error))
        producer.flush(10)
        assert len(refusals) == 1
        assert refusals[0] is not None
    deadline = time.monotonic() + 10
    while any(name.startswith(prefix) for name in admin.list_topics(timeout=10).topics):
        assert time.monotonic() < deadline


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256"])
def test_kafka_checks_passwords(kafka_server: str, mechanism: str) -> None:
    at = urlsplit(servers.address("kafka_sasl"))
    login = {"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": mechanism, "sasl.username": at.username}
    listed = AdminClient(
        {"bootstrap.servers": f"{at.hostname}:{at.port}", **login, "sasl.password": at.password}
    ).list_topics(timeout=10)
    assert len(listed.brokers) == 1


def test_kafka_offers_tls(kafka_server: str) -> None:
    at = urlsplit(servers.address("kafka_tls"))
    trust = {"security.protocol": "SSL", "ssl.ca.location": servers.address("certificate")}
    assert len(AdminClient({"bootstrap.servers": at.netloc, **trust}).list_topics(timeout=10).brokers) == 1
