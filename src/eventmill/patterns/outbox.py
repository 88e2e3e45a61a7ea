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

from eventmill.backends.sqlite import foreign
from eventmill.backends.sqlite import schema as sqlite_schema
from eventmill.core.clock import Ids, SystemClock
from eventmill.core.envelope import Envelopes
from eventmill.core.errors import ConfigurationError
from eventmill.patterns.foreign_connections import (
    Outgoing,
    outside,
    through_asyncpg,
    through_django,
    through_psycopg,
    through_sqlalchemy,
)

if TYPE_CHECKING:
    from psycopg import AsyncConnection as PsycopgAsyncConnection
    from psycopg import Connection as PsycopgConnection
    from sqlalchemy import Connection
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
    from sqlalchemy.orm import Session

_clock = SystemClock()
_ids = Ids(_clock)


SCHEMA = "public"
"""Where eventmill's tables are on PostgreSQL, unless `schema=` says otherwise."""


@overload
def add(
    target: sqlite3.Connection | Session | Connection | PsycopgConnection[Any],
    *events: object,
    source: str = ...,
    schema: str = ...,
) -> Sequence[int]: ...
@overload
def add(
    target: AsyncSession | AsyncConnection | PsycopgAsyncConnection[Any],
    *events: object,
    source: str = ...,
    schema: str = ...,
) -> Awaitable[Sequence[int]]: ...
@overload
def add(target: Any, *events: object, source: str = ..., schema: str = ...) -> Any: ...
def add(target: Any, *events: object, source: str = "app", schema: str = SCHEMA) -> Any:
    """Publish events if, and only if, the transaction that `target` is in commits.

    target: a connection of sqlite3, psycopg (either kind) or asyncpg; SQLAlchemy's Session, Connection, AsyncSession
    or AsyncConnection on SQLite or PostgreSQL; or a Django connection on PostgreSQL. With the asynchronous ones, await
    the result. source: the service's name in the messages. schema: where eventmill's tables are on PostgreSQL.
    Returns the positions in the log, which count once you commit.

    Raises OutsideTransactionError where no transaction is open, and, before anything is written,
    MessageTooLargeError, EncodeError and UnknownEventError.
    """
    envelopes = Envelopes(source, _clock, _ids)
    outgoing = Outgoing([envelopes(event) for event in events], int(_clock.now() * 1000), schema)
    if isinstance(target, sqlite3.Connection):
        if not target.in_transaction:
            raise outside("the connection")
        return outgoing.on_sqlite(foreign.in_connection(target), lambda: target.in_transaction)
    module = type(target).__module__.partition(".")[0]
    kind = _KINDS.get(module)
    if kind is None or not hasattr(target, _MARKS[module]):
        raise ConfigurationError(
            f"outbox.add cannot work with {type(target).__module__}.{type(target).__qualname__}; give it a connection of "
            "sqlite3, psycopg, asyncpg or Django, or SQLAlchemy's Session, Connection, AsyncSession or AsyncConnection"
        )
    return kind(target, outgoing)


_KINDS: dict[str, Callable[[Any, Outgoing], Any]] = {
    "sqlalchemy": through_sqlalchemy,
    "psycopg": through_psycopg,
    "asyncpg": through_asyncpg,
    "django": through_django,
}
_MARKS = {"sqlalchemy": "in_transaction", "psycopg": "info", "asyncpg": "is_in_transaction", "django": "cursor"}
"""What a fitting object of each package has."""


def install(connection: sqlite3.Connection) -> None:
    """Create eventmill's tables through your own connection, in its open transaction if there is one."""
    sqlite_schema.migrate(connection, "the database")
