"""The events that a capture publishes."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from eventmill.core.changes import Column, Row
from eventmill.core.debezium import fitted, topic_of
from eventmill.core.errors import ConfigurationError
from eventmill.core.names import check_name
from eventmill.core.registry import Registry

Order = Literal["row", "table"]
"""What keeps its order on the way to handlers: the changes of each row, or all changes of a table."""


class Change(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One row's change, or the end of all rows of a table.

    op: `snapshot` is a row as it was read when the capture began: never older than a change before it, but it may say
    again what such a change has said. `truncate` has neither key nor images.
    key: the row's key columns. after: its columns now; those in `unchanged` are missing: their large values are
    what they were, so keep them. before: its columns as they were, as far as the table's replica identity tells it.
    A change of the key itself is a `delete` of the former and an `insert` of the new one, each naming the other in `moved`.
    Changes of different rows may be handled in another order than they were made in, unless the capture's order is
    `table`. A `truncate` then ends the rows of earlier places only: compare `place`, and keep the last truncate's.
    position, number: the transaction's place in the source's order of commits, and the change's place in it, from 1.
    last: it is the last of its transaction. transaction: the source's number of it. at: when it was committed.
    """

    op: Literal["insert", "update", "delete", "truncate", "snapshot"]
    table: str
    key: Row | None = None
    after: Row | None = None
    before: Row | None = None
    unchanged: tuple[str, ...] = ()
    moved: Row | None = None
    position: int
    number: int = 0
    last: bool = False
    transaction: int | None = None
    at: str | None = None

    @property
    def place(self) -> tuple[int, int]:
        """Where it stands among all changes of the source: a later one has a greater place."""
        return self.position, self.number

    @property
    def gone(self) -> bool:
        """Whether there is no such row any more."""
        return self.op == "delete"


class SchemaChanged(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """From this place on, a table's rows have other columns.

    renamed: pairs of former and new names, where a column of the same type took the place of another; that is a guess,
    since the source tells columns only by their names. name: what the table is called now.
    """

    table: str
    name: str
    columns: tuple[Column, ...]
    added: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    retyped: tuple[str, ...] = ()
    renamed: tuple[tuple[str, str], ...] = ()
    identity: str = "default"
    position: int


class Emission(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was written with `pg_logical_emit_message` and is no CloudEvents envelope. text or base64: what it says."""

    prefix: str
    text: str | None = None
    base64: str | None = None
    position: int


def type_name(capture: str, table: str) -> str:
    """The type and topic of a table's changes: `legacy.customers`, `legacy.sales.orders`."""
    schema, _, name = table.rpartition(".")
    part = name if schema in ("", "public") else f"{schema}.{name}"
    return check_name(f"{capture}.{fitted(part)}", "the name of a captured table's events")


def declare(registry: Registry, capture: str, tables: list[str], *, debezium: bool = False) -> dict[str, type[Change]]:
    """Register the events of each table; returns the classes of their changes, by table.

    debezium: topics are called as Debezium's (`legacy.public.customers`) and hold nothing but changes of rows; what
    else there is has topics of its own. Raises ConfigurationError where two tables would have the same name.
    """
    classes: dict[str, type[Change]] = {}
    names: dict[str, str] = {}
    for table in tables:
        name = type_name(capture, table)
        if name in names:
            raise ConfigurationError(f"tables {names[name]} and {table} would both be {name}: capture them apart")
        names[name] = table
        classes[table] = _declare(registry, Change, name, topic_of(capture, table) if debezium else name)
        _declare(registry, SchemaChanged, f"{name}.schema", f"{capture}-schema" if debezium else name)
    messages = f"{capture}.messages"
    _declare(registry, Emission, messages, f"{capture}-messages" if debezium else messages)
    return classes


def _declare(registry: Registry, kind: type[Any], name: str, topic: str) -> Any:
    """A class for each name, since a registry knows a class by one name only."""
    cls = msgspec.defstruct(
        f"{kind.__name__}:{name}", [], bases=(kind,), module=__name__, frozen=True, kw_only=True, omit_defaults=True
    )
    registry.add(cls, name=name, topic=topic)
    return cls
