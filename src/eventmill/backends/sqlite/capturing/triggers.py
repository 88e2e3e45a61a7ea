"""What a capture has in the file: one table of changes, and three triggers on each captured table."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence

from eventmill.backends.sqlite.capturing.noting import MOST_KEYS, Noting, Unique, quoted
from eventmill.core.changes import Column, Shape
from eventmill.core.errors import ConfigurationError

EVENTS = ("insert", "update", "delete")


class Installation:
    """The table of changes of one capture, its triggers, and the table by which those notice rows that are replaced."""

    def __init__(self, name: str) -> None:
        self.changes = f"eventmill_changes_{name}"
        self.replaced = f"eventmill_replaced_{name}"

    def trigger(self, table: str, event: str) -> str:
        """A capture's name has no colon, so that no two triggers can be called the same."""
        return f"{self.changes}:{table}:{event}"

    def install(self, connection: sqlite3.Connection, shapes: Sequence[Shape]) -> None:
        """Within an open transaction."""
        connection.execute(
            f"CREATE TABLE IF NOT EXISTS {quoted(self.changes)} (id INTEGER PRIMARY KEY AUTOINCREMENT, tab TEXT NOT NULL,"
            " op TEXT NOT NULL, before TEXT, after TEXT, at INTEGER NOT NULL)"
        )
        keys = ", ".join(f"k{number}" for number in range(MOST_KEYS))
        connection.execute(
            f"CREATE TABLE IF NOT EXISTS {quoted(self.replaced)} (tab TEXT NOT NULL, noted TEXT, {keys})"
        )
        for shape in shapes:
            self.watch(connection, shape)

    def watch(self, connection: sqlite3.Connection, shape: Shape) -> None:
        """Make the triggers of a table, in place of former ones."""
        self.unwatch(connection, shape.table)
        noting = Noting(self.changes, self.replaced, shape, uniques(connection, shape))
        for event, body in noting.triggers().items():
            connection.execute(f"CREATE TRIGGER {quoted(self.trigger(shape.table, event))} {body}")

    def unwatch(self, connection: sqlite3.Connection, table: str) -> None:
        for event in (*EVENTS, "before_insert", "before_update"):
            connection.execute(f"DROP TRIGGER IF EXISTS {quoted(self.trigger(table, event))}")

    def watched(self, connection: sqlite3.Connection) -> set[str]:
        """The tables that have all three triggers which tell of changes."""
        rows = connection.execute("SELECT name, tbl_name FROM sqlite_master WHERE type = 'trigger'").fetchall()
        names = {name for name, _ in rows}
        return {table for _, table in rows if all(self.trigger(table, event) in names for event in EVENTS)}

    def gap(self, connection: sqlite3.Connection, tables: Collection[str]) -> str:
        """Why changes of some of these tables are not noted any more, or nothing."""
        missing = sorted(set(tables) - self.watched(connection))
        return f"table {missing[0]} has lost its triggers (it was dropped, renamed or made anew)" if missing else ""

    def exists(self, connection: sqlite3.Connection) -> bool:
        found = connection.execute(
            "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = ?", (self.changes,)
        ).fetchone()
        return bool(found[0])

    def last(self, connection: sqlite3.Connection) -> int:
        """The number of the last change that was ever noted."""
        found = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = ?", (self.changes,)).fetchone()
        return 0 if found is None else int(found[0])

    def remove(self, connection: sqlite3.Connection) -> None:
        """Everything, whatever tables were watched. Within an open transaction."""
        triggers = connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'trigger' AND substr(name, 1, ?) = ?",
            (len(self.changes) + 1, f"{self.changes}:"),
        ).fetchall()
        for (name,) in triggers:
            connection.execute(f"DROP TRIGGER {quoted(name)}")
        for table in (self.changes, self.replaced):
            connection.execute(f"DROP TABLE IF EXISTS {quoted(table)}")


def shape_of(connection: sqlite3.Connection, table: str) -> Shape:
    """A table's shape. Raises ConfigurationError for what cannot be captured."""
    kind = connection.execute("SELECT type, sql FROM sqlite_master WHERE name = ?", (table,)).fetchone()
    if kind is None:
        raise ConfigurationError(f"table {table} does not exist; names are as in the file, without a schema")
    if kind[0] != "table" or str(kind[1]).upper().startswith("CREATE VIRTUAL"):
        raise ConfigurationError(f"{table} is no ordinary table: only such can be captured")
    columns = connection.execute(f"PRAGMA table_info({quoted(table)})").fetchall()
    key = [name for _, name, _, _, _, place in sorted(columns, key=lambda column: int(column[5])) if place]
    if not key:
        raise ConfigurationError(f"{table} has no primary key, so its rows cannot be told apart; add one")
    return Shape(
        table=table,
        name=table,
        columns=tuple([Column(name, kind or "any") for _, name, kind, _, _, _ in columns]),
        key=tuple(key),
        identity="full",
    )


def uniques(connection: sqlite3.Connection, shape: Shape) -> list[Unique]:
    """The indexes, beside the key, by which a row can replace another one: those of plain columns, and whole."""
    found = []
    table = quoted(shape.table)
    for _, index, unique, origin, partial in connection.execute(f"PRAGMA index_list({table})").fetchall():
        if not unique or partial:
            continue
        rows = connection.execute(f"PRAGMA index_xinfo({quoted(index)})").fetchall()
        columns = tuple([(name, collation) for _, _, name, _, collation, part in rows if part])
        if any(name is None for name, _ in columns):
            continue
        # Of the key itself only where other values than the same are taken for equal.
        if origin != "pk" or any(collation.upper() != "BINARY" for _, collation in columns):
            found.append(Unique(columns))
    if found and len(shape.key) > MOST_KEYS:
        raise ConfigurationError(
            f"{shape.table} has a key of {len(shape.key)} columns and another unique index: at most {MOST_KEYS} can be told"
        )
    return found
