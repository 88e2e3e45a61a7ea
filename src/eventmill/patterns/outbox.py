"""Publishing inside a transaction that is yours, on a connection that is yours.

    with sqlite3.connect("orders.db") as connection:
        connection.execute("INSERT INTO orders …")
        outbox.add(connection, OrderPlaced(…))

The event's row is written by your own connection, so it is there exactly if your commit is. Whoever
runs the App on the same database finds it, hands it to its handlers or relays it to the broker.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, overload

from eventmill.backends.sqlite import foreign, schema
from eventmill.core.clock import Ids, SystemClock
from eventmill.core.envelope import Envelopes
from eventmill.core.errors import ConfigurationError, OutsideTransactionError

if TYPE_CHECKING:
    from sqlalchemy import Connection
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
    from sqlalchemy.orm import Session

_clock = SystemClock()
_ids = Ids(_clock)


@overload
def add(target: sqlite3.Connection | Session | Connection, *events: object, source: str = ...) -> Sequence[int]: ...
@overload
def add(target: AsyncSession | AsyncConnection, *events: object, source: str = ...) -> Awaitable[Sequence[int]]: ...
def add(target: Any, *events: object, source: str = "app") -> Sequence[int] | Awaitable[Sequence[int]]:
    """Publish events if, and only if, the transaction that `target` is in commits.

    target: a sqlite3 connection, or SQLAlchemy's Session, Connection, AsyncSession or AsyncConnection on
    SQLite; with the last two, await the result. source: the service's name in the messages.
    Returns the positions in the log, which count once you commit.

    Raises OutsideTransactionError where no transaction is open, and, before anything is written,
    MessageTooLargeError, EncodeError and UnknownEventError.
    """
    envelopes = Envelopes(source, _clock, _ids)
    messages = [envelopes(event) for event in events]

    def append(execute: foreign.Execute, in_transaction: Callable[[], bool]) -> Sequence[int]:
        return foreign.append(execute, messages, int(_clock.now() * 1000), in_transaction)

    if isinstance(target, sqlite3.Connection):
        if not target.in_transaction:
            raise _outside("the connection")
        return append(foreign.in_connection(target), lambda: target.in_transaction)
    if not hasattr(target, "in_transaction"):
        raise ConfigurationError(
            f"outbox.add cannot work with {type(target).__module__}.{type(target).__qualname__}; give it a sqlite3 "
            "connection, or SQLAlchemy's Session, Connection, AsyncSession or AsyncConnection"
        )
    if not target.in_transaction():
        raise _outside(type(target).__name__)
    if hasattr(target, "run_sync"):
        return target.run_sync(lambda sync: _in_sqlalchemy(sync, append))  # type: ignore[no-any-return]
    return _in_sqlalchemy(target, append)


def install(connection: sqlite3.Connection) -> None:
    """Create eventmill's tables through your own connection, in its open transaction if there is one."""
    schema.migrate(connection, "the database")


def _in_sqlalchemy(
    target: Session | Connection, append: Callable[[foreign.Execute, Callable[[], bool]], Sequence[int]]
) -> Sequence[int]:
    connection: Connection = target.connection() if hasattr(target, "get_bind") else target  # type: ignore[operator]
    if connection.dialect.name != "sqlite":
        raise ConfigurationError(f"outbox.add works on SQLite, not yet on {connection.dialect.name}")

    def execute(sql: str, parameters: Sequence[object] = ()) -> Sequence[Sequence[object]]:
        result = connection.exec_driver_sql(sql, tuple(parameters))
        return [tuple(row) for row in result.fetchall()] if result.returns_rows else []

    driver: Any = connection.connection.driver_connection
    return append(execute, lambda: bool(driver.in_transaction))


def _outside(what: str) -> OutsideTransactionError:
    return OutsideTransactionError(
        f"outbox.add: {what} has no transaction open, so there is nothing the events could commit with; "
        "begin one first (or use app.publish)"
    )
