"""PostgreSQL by way of a pooler in transaction mode, and over TLS."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

import servers
from eventmill import App, Context, Event, Settings, Transaction
from eventmill.backends.connect import connect_store
from eventmill.backends.postgres.backend import PostgresBackend
from eventmill.core.errors import BackendUnavailableError, ConfigurationError
from eventmill.core.retry import fixed
from pooler import CONNECTIONS, pooler

MESSAGES = 400


class PooledMoved(Event, name="pooled.moved", key="account"):
    account: str
    number: int


@pytest.fixture
def pooled(postgres_url: str, tmp_path: Path) -> Iterator[str]:
    with pooler(postgres_url, tmp_path / "pooler") as url:
        yield url


def make(url: str, name: str) -> App:
    app = App(url, name=name, settings=Settings(lease=2.0))

    @app.setup
    async def tables(tx: Transaction) -> None:
        await tx.execute("CREATE TABLE IF NOT EXISTS moved (line bigserial PRIMARY KEY, account text, number bigint)")

    @app.on(PooledMoved, group="movers", concurrency=32, retry=fixed(0.02, attempts=5))
    async def move(event: PooledMoved, tx: Transaction, context: Context) -> None:
        await tx.execute("INSERT INTO moved (account, number) VALUES (?, ?)", (event.account, event.number))
        if event.number == 7 and context.attempt == 1:
            raise ValueError("at the second attempt it works")

    return app


def test_everything_works_through_a_pooler(postgres_url: str, pooled: str) -> None:
    """Two processes' worth of Apps on few connections: once, in order, and other schemas than the pooler's own."""

    async def main() -> None:
        url = f"{pooled}?schema=behind&prepare=off"
        one, two = make(url, "one"), make(url, "two")
        async with one, two, asyncio.timeout(90):
            runs = [asyncio.create_task(app.run()) for app in (one, two)]
            for number in range(MESSAGES // 20):
                async with one.transaction() as tx:
                    await tx.execute("SELECT 1")
                    tx.publish(*(PooledMoved(f"a{account}", number) for account in range(10)))
                await two.publish(*(PooledMoved(f"b{account}", number) for account in range(10)))
            async with await psycopg.AsyncConnection.connect(postgres_url, autocommit=True) as watch:
                while True:
                    cursor = await watch.execute("SELECT count(*) FROM behind.moved")
                    row = await cursor.fetchone()
                    if row == (MESSAGES,):
                        break
                    assert not any(run.done() for run in runs)
                    await asyncio.sleep(0.05)
                cursor = await watch.execute(
                    "SELECT account, array_agg(number ORDER BY line) FROM behind.moved GROUP BY 1"
                )
                found = await cursor.fetchall()
                assert len(found) == 20
                assert all(numbers == list(range(MESSAGES // 20)) for _, numbers in found)
                cursor = await watch.execute(
                    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
                row = await cursor.fetchone()
                assert row is not None
                assert row[0] <= CONNECTIONS
            for app in (one, two):
                app.stop()
            await asyncio.gather(*runs)
            store = one.store
            assert isinstance(store, PostgresBackend)
            said = {each.about: each.text for each in await store.examine()}
            assert "polling alone" in said["wake-up"]

    asyncio.run(main())


def test_without_a_pooler_announcements_come_through(postgres_url: str) -> None:
    async def main() -> None:
        store = connect_store(postgres_url)
        async with store:
            assert isinstance(store, PostgresBackend)
            said = {each.about: each.text for each in await store.examine()}
            assert said["wake-up"].startswith("by NOTIFY")

    asyncio.run(main())


def test_tls_is_used_and_the_certificate_is_checked(postgres_url: str, tmp_path: Path) -> None:
    certificate = servers.address("certificate")
    other = tmp_path / "other.pem"
    other.write_text(Path(certificate).read_text().replace("\nM", "\nN", 1))

    async def main() -> None:
        for options, encrypted in (
            (f"sslmode=verify-full&sslrootcert={certificate}", True),
            ("sslmode=disable", False),
        ):
            store = connect_store(f"{postgres_url}?{options}")
            async with store, store.transaction() as tx:
                assert await tx.execute("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()") == [(encrypted,)]
        wrong = connect_store(f"{postgres_url}?sslmode=verify-full&sslrootcert={other}&connect_timeout=2")
        with pytest.raises((BackendUnavailableError, ConfigurationError), match=r"certificate|SSL"):
            await wrong.__aenter__()

    asyncio.run(main())
