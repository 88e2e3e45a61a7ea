"""Appending to the log through a connection that is somebody else's, in their transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Protocol

from eventmill.backends.sql.prepared import prepare
from eventmill.backends.sqlite.open_file import STATEMENTS
from eventmill.core.errors import ConfigurationError, OutsideTransactionError
from eventmill.core.message import Message
from eventmill.core.partition import DEFAULT_PARTITIONS, partition_of


class Execute(Protocol):
    """Runs one statement with positional parameters, and returns its rows."""

    def __call__(self, sql: str, parameters: Sequence[object] = ()) -> Sequence[Sequence[object]]: ...


def append(execute: Execute, messages: Sequence[Message], now: int, in_transaction: Callable[[], bool]) -> list[int]:
    """Append messages in the transaction that `execute` works in; returns their positions.

    The transaction's write lock makes position order commit order, just as for the App's own writer.
    now: milliseconds since 1970 UTC. Raises OutsideTransactionError, and writes nothing, where the
    connection turns out to commit each statement by itself.
    """
    prepared = prepare(messages)
    try:
        execute(STATEMENTS["head"])
    except Exception as error:
        if "no such table" in str(error):
            raise ConfigurationError(
                "this database has no eventmill tables yet: open it once with App(...), or call outbox.install(connection)"
            ) from error
        raise
    # Taking the write lock first: what is read below stays true until the commit.
    execute("UPDATE eventmill_topics SET partitions = partitions WHERE 0")
    if not in_transaction():
        raise OutsideTransactionError(
            "outbox.add: the connection commits each statement by itself (autocommit); begin a transaction"
        )
    position = int(str(execute(STATEMENTS["head"])[0][0]))
    positions = []
    for message, attributes in prepared:
        position += 1
        known = execute(STATEMENTS["partitions"], (message.topic,))
        if not known:
            execute(STATEMENTS["declare"], (message.topic, DEFAULT_PARTITIONS))
        partitions = int(str(known[0][0])) if known else DEFAULT_PARTITIONS
        execute(
            STATEMENTS["append"],
            (
                position,
                message.topic,
                partition_of(message.key, message.id, partitions),
                message.type,
                message.key,
                message.id,
                now,
                attributes,
                message.data,
                None,
                None,
            ),
        )
        for tag in message.tags:
            execute(STATEMENTS["tag"], (tag, position))
        positions.append(position)
    return positions


def in_connection(connection: sqlite3.Connection) -> Execute:
    """Statements on a plain sqlite3 connection."""

    def execute(sql: str, parameters: Sequence[object] = ()) -> Sequence[Sequence[object]]:
        cursor = connection.cursor()
        cursor.row_factory = None
        return cursor.execute(sql, parameters).fetchall()

    return execute
