"""What a capture has in the file: one table of changes, and three triggers on each captured table."""

# ruff: noqa: S608 - names of tables and columns cannot be parameters; they are quoted

from __future__ import annotations

import math
import sqlite3
from base64 import b64encode
from collections.abc import Callable, Sequence
from typing import Any

from eventmill.core.changes import Column, Shape
from eventmill.core.errors import ConfigurationError

_READERS: dict[str, Callable[[str], Any]] = {
    "i": int,
    "r": lambda text: _real(float(text)),
    "t": str,
    "b": lambda text: b64encode(bytes.fromhex(text)).decode(),
}


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _real(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)


def from_noted(value: str | None) -> Any:
    """A value as a trigger has noted it: its type's letter, then its text, so that nothing of it is lost in JSON."""
    return None if value is None else _READERS[value[0]](value[1:])


def from_column(value: Any) -> Any:
    """The same of a value as it is read from a table."""
    if isinstance(value, bytes):
        return b64encode(value).decode()
    return _real(value) if isinstance(value, float) else value


def as_text(value: Any) -> str:
    """A key's value as a trigger would note it."""
    if isinstance(value, bytes):
        return f"b{value.hex()}"
    letter = {int: "i", float: "r"}.get(type(value), "t")
    return f"{letter}{value!r}" if letter == "r" else f"{letter}{value}"


def as_value(text: str) -> Any:
    """The value of such a text, as SQL takes it."""
    if text[0] == "b":
        return bytes.fromhex(text[1:])
    return float(text[1:]) if text[0] == "r" else _READERS[text[0]](text[1:])


def _noting(row: str, column: str) -> str:
    value = f"{row}.{quoted(column)}"
    return (
        f"CASE typeof({value}) WHEN 'null' THEN NULL WHEN 'integer' THEN 'i' || {value}"
        f" WHEN 'real' THEN 'r' || printf('%!.17g', {value}) WHEN 'blob' THEN 'b' || hex({value}) ELSE 't' || {value} END"
    )


def row_noting(row: str, shape: Shape) -> str:
    """SQL of a JSON object with all columns of `NEW`, `OLD` or a table."""
    pairs = [f"'{column.name.replace(chr(39), chr(39) * 2)}', {_noting(row, column.name)}" for column in shape.columns]
    return f"json_object({', '.join(pairs)})"


class Installation:
    """The table of changes of one capture, and its triggers."""

    def __init__(self, name: str) -> None:
        self.changes = f"eventmill_changes_{name.replace('-', '_')}"

    def trigger(self, table: str, event: str) -> str:
        return f"{self.changes}_{table}_{event}"

    def install(self, connection: sqlite3.Connection, shapes: Sequence[Shape]) -> None:
        """Within an open transaction."""
        connection.execute(
            f"CREATE TABLE IF NOT EXISTS {quoted(self.changes)} (id INTEGER PRIMARY KEY AUTOINCREMENT, tab TEXT NOT NULL,"
            " op TEXT NOT NULL, before TEXT, after TEXT, at INTEGER NOT NULL)"
        )
        for shape in shapes:
            self.watch(connection, shape)

    def watch(self, connection: sqlite3.Connection, shape: Shape) -> None:
        """Make the triggers of a table, in place of former ones."""
        self.unwatch(connection, shape.table)
        for event, before, after in (("insert", False, True), ("update", True, True), ("delete", True, False)):
            connection.execute(
                f"CREATE TRIGGER {quoted(self.trigger(shape.table, event))} AFTER {event.upper()} ON {quoted(shape.table)}"
                f" BEGIN INSERT INTO {quoted(self.changes)} (tab, op, before, after, at) VALUES ("
                f"'{shape.table.replace(chr(39), chr(39) * 2)}', '{event}',"
                f" {row_noting('OLD', shape) if before else 'NULL'}, {row_noting('NEW', shape) if after else 'NULL'},"
                " CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)); END"
            )

    def unwatch(self, connection: sqlite3.Connection, table: str) -> None:
        for event in ("insert", "update", "delete"):
            connection.execute(f"DROP TRIGGER IF EXISTS {quoted(self.trigger(table, event))}")

    def watched(self, connection: sqlite3.Connection) -> set[str]:
        """The tables that have all three triggers."""
        rows = connection.execute("SELECT name, tbl_name FROM sqlite_master WHERE type = 'trigger'").fetchall()
        names = {name for name, _ in rows}
        return {
            table
            for _, table in rows
            if all(self.trigger(table, event) in names for event in ("insert", "update", "delete"))
        }

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
            (len(self.changes) + 1, f"{self.changes}_"),
        ).fetchall()
        for (name,) in triggers:
            connection.execute(f"DROP TRIGGER {quoted(name)}")
        connection.execute(f"DROP TABLE IF EXISTS {quoted(self.changes)}")


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
