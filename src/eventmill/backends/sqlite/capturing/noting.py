"""The SQL by which triggers note rows, and what they have noted as values again.

A row is noted as it stands in its table when the trigger runs, not as `NEW` has it: a trigger of the application's own may
have changed it meanwhile, and have been noted already.
"""

# ruff: noqa: S608 - names of tables and columns cannot be parameters; they are quoted

from __future__ import annotations

import json
import math
from base64 import b64encode
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from eventmill.core.changes import Row, Shape

_READERS: dict[str, Callable[[str], Any]] = {
    "i": int,
    "r": lambda text: _real(float(text)),
    "t": str,
    "b": lambda text: b64encode(bytes.fromhex(text)).decode(),
}

ARGUMENTS = 60
"""Columns of one json_object: SQLite's functions take 127 arguments, two a column."""

MOST_KEYS = 16
"""Columns of a key by which a row that was replaced is looked up."""

NOW = "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)"


class Unique(NamedTuple):
    """A unique index beside the key: its columns, each with its collation."""

    columns: tuple[tuple[str, str], ...]


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _real(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)


def from_noted(value: str | None) -> Any:
    """A value as a trigger has noted it: its type's letter, then its text, so that nothing of it is lost in JSON."""
    return None if value is None else _READERS[value[0]](value[1:])


def noted_row(noted: str) -> dict[str, str | None]:
    """Columns and noted values of a row."""
    found = json.loads(noted)
    if isinstance(found, dict):
        return found
    return {name: value for part in found for name, value in part.items()}


def from_noted_row(noted: str | None) -> Row | None:
    return None if noted is None else {name: from_noted(value) for name, value in noted_row(noted).items()}


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
    # 17 digits are enough to tell two reals apart, and SQLite gets the last of them wrong for very large and small ones.
    return (
        f"CASE typeof({value}) WHEN 'null' THEN NULL WHEN 'integer' THEN 'i' || {value}"
        f" WHEN 'real' THEN 'r' || printf('%!.20e', {value}) WHEN 'blob' THEN 'b' || hex({value}) ELSE 't' || {value} END"
    )


def row_noting(row: str, shape: Shape) -> str:
    """SQL of a JSON object with all columns of `NEW`, `OLD` or a table; for many columns, of an array of such objects."""
    pairs = [f"{literal(column.name)}, {_noting(row, column.name)}" for column in shape.columns]
    objects = [
        f"json_object({', '.join(pairs[first : first + ARGUMENTS])})" for first in range(0, len(pairs), ARGUMENTS)
    ]
    return objects[0] if len(objects) == 1 else f"json_array({', '.join(objects)})"


def same_key(shape: Shape, row: str, other: Sequence[str]) -> str:
    """SQL of whether a row has this key, exactly, whatever the columns' collations take for equal."""
    pairs = [(f"{row}.{quoted(name)}", value) for name, value in zip(shape.key, other, strict=True)]
    return " AND ".join(f"{mine} IS {value} AND {mine} IS {value} COLLATE BINARY" for mine, value in pairs)


class Noting:
    """The bodies of one table's triggers. changes, replaced: the tables they write into. uniques: beside the key."""

    def __init__(self, changes: str, replaced: str, shape: Shape, uniques: Sequence[Unique]) -> None:
        self._shape = shape
        self._changes = quoted(changes)
        self._replaced = quoted(replaced)
        self._table = quoted(shape.table)
        self._name = literal(shape.table)
        self._uniques = list(uniques)
        self._keys = [f"k{number}" for number in range(len(shape.key))]

    def triggers(self) -> dict[str, str]:
        """By what each is called: when it runs, and what it does."""
        found = {
            "insert": ("AFTER INSERT", self._note("insert", "NULL") + self._forget()),
            "update": (
                "AFTER UPDATE",
                self._note("update", row_noting("OLD", self._shape)) + self._gone() + self._forget(),
            ),
            "delete": ("AFTER DELETE", self._deleted()),
        }
        if self._uniques:
            found["before_insert"] = ("BEFORE INSERT", self._conflicting())
            found["before_update"] = ("BEFORE UPDATE", self._conflicting())
        return {event: f"{when} ON {self._table} BEGIN {body} END" for event, (when, body) in found.items()}

    def _key(self, row: str) -> list[str]:
        return [f"{row}.{quoted(name)}" for name in self._shape.key]

    def _present(self, row: str) -> str:
        """SQL of whether the table has a row with this one's key now."""
        return f"EXISTS (SELECT 1 FROM {self._table} AS t WHERE {same_key(self._shape, 't', self._key(row))})"

    def _insert(self) -> str:
        return f"INSERT INTO {self._changes} (tab, op, before, after, at)"

    def _note(self, event: str, before: str) -> str:
        return self._removed() + (
            f"{self._insert()} SELECT {self._name}, '{event}', {before}, {row_noting('t', self._shape)}, {NOW}"
            f" FROM {self._table} AS t WHERE {same_key(self._shape, 't', self._key('NEW'))};"
        )

    def _gone(self) -> str:
        """A row that another trigger has removed under its new key is told by that one; its former key is not."""
        return (
            f"{self._insert()} SELECT {self._name}, 'delete', {row_noting('OLD', self._shape)}, NULL, {NOW}"
            f" WHERE NOT {self._present('NEW')} AND NOT {self._present('OLD')};"
        )

    def _deleted(self) -> str:
        forget = ""
        if self._uniques:
            same = " AND ".join(f"{key} IS {value}" for key, value in zip(self._keys, self._key("OLD"), strict=True))
            forget = f"DELETE FROM {self._replaced} WHERE tab = {self._name} AND {same};"
        return (
            f"{self._insert()} SELECT {self._name}, 'delete', {row_noting('OLD', self._shape)}, NULL, {NOW}"
            f" WHERE NOT {self._present('OLD')};{forget}"
        )

    # `INSERT OR REPLACE` removes rows that another unique index finds, and runs no trigger for them: what might be removed
    # is noted before, and what was, is told afterwards.

    def _conflicting(self) -> str:
        keys = ", ".join(["tab", "noted", *self._keys])
        mine = self._key("t")
        values = ", ".join([self._name, row_noting("t", self._shape), *mine])
        statements = []
        for unique in self._uniques:
            found = " AND ".join(
                f"t.{quoted(column)} = NEW.{quoted(column)} COLLATE {quoted(collation)}"
                for column, collation in unique.columns
            )
            statements.append(
                f"INSERT INTO {self._replaced} ({keys}) SELECT {values} FROM {self._table} AS t"
                f" WHERE {found} AND NOT ({same_key(self._shape, 't', self._key('NEW'))});"
            )
        return "".join(statements)

    def _removed(self) -> str:
        if not self._uniques:
            return ""
        there = same_key(self._shape, "t", [f"r.{key}" for key in self._keys])
        return (
            f"{self._insert()} SELECT DISTINCT {self._name}, 'delete', r.noted, NULL, {NOW} FROM {self._replaced} AS r"
            f" WHERE r.tab = {self._name} AND NOT EXISTS (SELECT 1 FROM {self._table} AS t WHERE {there});"
        )

    def _forget(self) -> str:
        return f"DELETE FROM {self._replaced} WHERE tab = {self._name};" if self._uniques else ""
