"""Publishing through connections that are the user's own, on PostgreSQL: there exactly if their commit is."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import asyncpg
import django
import psycopg
import pytest
from django.conf import settings
from django.db import connections, transaction
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from eventmill import App, Event, outbox
from eventmill.core.errors import ConfigurationError, OutsideTransactionError

SCHEMA = "sales"


class OutboxNoted(Event, name="outbox.noted", key="customer"):
    customer: str
    number: int


NOTES = [OutboxNoted("a", 1), OutboxNoted("b", 2), OutboxNoted("a", 3)]


@pytest.fixture
def database(postgres_url: str) -> str:
    """With eventmill's tables in a schema of their own."""

    async def prepare() -> None:
        async with App(f"{postgres_url}?schema={SCHEMA}"):
            pass

    asyncio.run(prepare())
    return postgres_url


def stored(database: str) -> list[tuple[str, int | None]]:
    with psycopg.connect(database) as connection:
        rows = connection.execute(f"SELECT key, sequence FROM {SCHEMA}.eventmill_log ORDER BY position").fetchall()
    return [(key, sequence) for key, sequence in rows]


ALL = [("a", 1), ("b", 1), ("a", 2)]


def add(target: Any) -> Any:
    return outbox.add(target, *NOTES, schema=SCHEMA)


def test_psycopg(database: str) -> None:
    with psycopg.connect(database) as connection:
        positions = add(connection)
        connection.rollback()
        assert stored(database) == []
        positions = add(connection)
        assert list(positions) == sorted(positions)
        connection.commit()
    assert stored(database) == ALL
    with psycopg.connect(database, autocommit=True) as connection:
        with pytest.raises(OutsideTransactionError):
            add(connection)
        with connection.transaction():
            add(connection)
    assert stored(database) == [*ALL, ("a", 3), ("b", 2), ("a", 4)]


def test_psycopg_async(database: str) -> None:
    async def main() -> None:
        async with await psycopg.AsyncConnection.connect(database, autocommit=True) as connection:
            with pytest.raises(OutsideTransactionError):
                await add(connection)
            async with connection.transaction(force_rollback=True):
                await add(connection)
            async with connection.transaction():
                await add(connection)

    asyncio.run(main())
    assert stored(database) == ALL


def test_asyncpg(database: str) -> None:
    async def main() -> None:
        connection = await asyncpg.connect(database)
        try:
            with pytest.raises(OutsideTransactionError):
                await add(connection)
            undone = connection.transaction()
            await undone.start()
            await add(connection)
            await undone.rollback()
            async with connection.transaction():
                await add(connection)
        finally:
            await connection.close()

    asyncio.run(main())
    assert stored(database) == ALL


def test_sqlalchemy(database: str) -> None:
    engine = create_engine(database.replace("postgresql://", "postgresql+psycopg://"), poolclass=NullPool)
    with engine.connect() as connection:
        with pytest.raises(OutsideTransactionError):
            add(connection)
        with connection.begin() as begun:
            add(connection)
            begun.rollback()
    with Session(engine) as session, session.begin():
        add(session)
    assert stored(database) == ALL
    with (
        engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection,
        connection.begin(),
        pytest.raises(OutsideTransactionError),
    ):
        add(connection)
    assert stored(database) == ALL


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_sqlalchemy_async(database: str, driver: str) -> None:
    async def main() -> None:
        engine = create_async_engine(database.replace("postgresql://", f"postgresql+{driver}://"), poolclass=NullPool)
        async with engine.connect() as connection:
            with pytest.raises(OutsideTransactionError):
                await add(connection)
            async with connection.begin() as begun:
                await add(connection)
                await begun.rollback()
        async with AsyncSession(engine) as session, session.begin():
            await add(session)
        await engine.dispose()

    asyncio.run(main())
    assert stored(database) == ALL


@pytest.fixture
def django_connection(database: str) -> Iterator[Any]:
    parts = psycopg.conninfo.conninfo_to_dict(database)
    if not settings.configured:
        settings.configure(DATABASES={}, USE_TZ=True)
        django.setup()
    connections.settings = connections.configure_settings(
        {
            "default": {
                "ENGINE": "django.db.backends.postgresql",
                "NAME": parts["dbname"],
                "USER": parts.get("user", ""),
                "PASSWORD": parts.get("password", ""),
                "HOST": parts.get("host", ""),
                "PORT": parts.get("port", ""),
            }
        }
    )
    yield connections["default"]
    connections["default"].close()
    del connections["default"]


def test_django(database: str, django_connection: Any) -> None:
    with pytest.raises(OutsideTransactionError):
        add(django_connection)
    with transaction.atomic():
        add(django_connection)
        transaction.set_rollback(True)
    with transaction.atomic():
        add(django_connection)
    assert stored(database) == ALL


def test_a_database_without_tables_is_told(postgres_url: str) -> None:
    with psycopg.connect(postgres_url) as connection, pytest.raises(ConfigurationError, match="no eventmill tables"):
        add(connection)


def test_what_was_added_is_handled(database: str) -> None:
    handled: list[int] = []

    async def main() -> None:
        app = App(f"{database}?schema={SCHEMA}")

        @app.on(OutboxNoted)
        async def note(event: OutboxNoted) -> None:
            handled.append(event.number)

        async with app:
            running = asyncio.create_task(app.run())
            async with await psycopg.AsyncConnection.connect(database) as connection:
                await add(connection)
            while len(handled) < len(NOTES):
                await asyncio.sleep(0.01)
            app.stop()
            await running

    asyncio.run(asyncio.wait_for(main(), 30))
    assert sorted(handled) == [1, 2, 3]
