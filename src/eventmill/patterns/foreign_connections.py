"""Other libraries' connections: whether they are in a transaction, and how one runs a statement on them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from eventmill.backends.postgres import foreign as postgres
from eventmill.backends.sqlite import foreign as sqlite
from eventmill.core.errors import ConfigurationError, OutsideTransactionError
from eventmill.core.message import Message

_INTRANS = 2
"""libpq's PQTRANS_INTRANS: in a transaction that has not failed."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """Messages to append. now: milliseconds. schema: where the tables are on PostgreSQL."""

    messages: Sequence[Message]
    now: int
    schema: str

    def on_sqlite(self, execute: sqlite.Execute, in_transaction: Callable[[], bool]) -> Sequence[int]:
        return sqlite.append(execute, self.messages, self.now, in_transaction)

    def on_postgres(self, ask: Callable[[str, Sequence[object]], Sequence[Any]]) -> Sequence[int]:
        """ask: runs one statement, with `{}` for its parameters, and returns its rows."""
        return postgres.run(postgres.appending(self.messages, self.now, self.schema), ask)

    async def on_postgres_awaiting(
        self, ask: Callable[[str, Sequence[object]], Awaitable[Sequence[Any]]]
    ) -> Sequence[int]:
        steps = postgres.appending(self.messages, self.now, self.schema)
        answer: Any = None
        try:
            while True:
                answer = await ask(*steps.send(answer))
        except StopIteration as end:
            return list(end.value)


def outside(what: str) -> OutsideTransactionError:
    return OutsideTransactionError(
        f"outbox.add: {what} has no transaction open, so there is nothing the events could commit with; "
        "begin one first (or use app.publish)"
    )


def through_psycopg(target: Any, outgoing: Outgoing) -> Any:
    # With autocommit off, psycopg begins a transaction with the first statement: that is as good as being in one.
    if target.autocommit and target.info.transaction_status != _INTRANS:
        raise outside("the connection")
    if hasattr(target, "__aenter__"):

        async def ask_awaiting(sql: str, parameters: Sequence[object]) -> Sequence[Any]:
            async with target.cursor(row_factory=_plain) as cursor:
                await cursor.execute(postgres.marked(sql), list(parameters))
                return list(await cursor.fetchall())

        return outgoing.on_postgres_awaiting(ask_awaiting)

    def ask(sql: str, parameters: Sequence[object]) -> Sequence[Any]:
        with target.cursor(row_factory=_plain) as cursor:
            cursor.execute(postgres.marked(sql), list(parameters))
            return list(cursor.fetchall())

    return outgoing.on_postgres(ask)


def _plain(cursor: Any) -> Callable[[Sequence[Any]], tuple[Any, ...]]:
    """Rows as tuples, whatever the connection was set to."""
    return tuple


def through_asyncpg(target: Any, outgoing: Outgoing) -> Awaitable[Sequence[int]]:
    if not target.is_in_transaction():
        raise outside("the connection")

    async def ask(sql: str, parameters: Sequence[object]) -> Sequence[Any]:
        return [tuple(row) for row in await target.fetch(postgres.numbered(sql), *parameters)]

    return outgoing.on_postgres_awaiting(ask)


def through_django(target: Any, outgoing: Outgoing) -> Sequence[int]:
    """target: `django.db.connection`, or `connections[alias]`."""
    if target.vendor != "postgresql":
        raise ConfigurationError(f"outbox.add works with Django on PostgreSQL, not on {target.vendor}")
    if not target.in_atomic_block and target.get_autocommit():
        raise outside("Django's connection (use transaction.atomic())")

    def ask(sql: str, parameters: Sequence[object]) -> Sequence[Any]:
        with target.cursor() as cursor:
            cursor.execute(postgres.marked(sql), list(parameters))
            return list(cursor.fetchall())

    return outgoing.on_postgres(ask)


def through_sqlalchemy(target: Any, outgoing: Outgoing) -> Any:
    if not target.in_transaction():
        raise outside(type(target).__name__)
    if hasattr(target, "run_sync"):
        return target.run_sync(lambda sync: _in_sqlalchemy(sync, outgoing))
    return _in_sqlalchemy(target, outgoing)


def _in_sqlalchemy(target: Any, outgoing: Outgoing) -> Sequence[int]:
    connection = target.connection() if hasattr(target, "get_bind") else target
    dialect = connection.dialect

    def execute(sql: str, parameters: Sequence[object] = ()) -> Sequence[Sequence[object]]:
        result = connection.exec_driver_sql(sql, tuple(parameters))
        return [tuple(row) for row in result.fetchall()] if result.returns_rows else []

    if dialect.name == "sqlite":
        driver = connection.connection.driver_connection
        return outgoing.on_sqlite(execute, lambda: bool(driver.in_transaction))
    if dialect.name != "postgresql" or dialect.driver not in ("psycopg", "psycopg_async", "asyncpg"):
        raise ConfigurationError(
            f"outbox.add works with SQLAlchemy on SQLite, and on PostgreSQL through psycopg or asyncpg, "
            f"not on {dialect.name} through {dialect.driver}"
        )
    if connection.connection.dbapi_connection.autocommit:
        raise outside("the connection (its isolation level is AUTOCOMMIT)")
    spelled = postgres.numbered if dialect.driver == "asyncpg" else postgres.marked
    return outgoing.on_postgres(lambda sql, parameters: execute(spelled(sql), parameters))
