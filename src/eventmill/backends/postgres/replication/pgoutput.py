"""The messages of `pgoutput`, protocol version 1: https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html

Only bytes are read here. What a relation means for a capture is decided by `Relations`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from struct import Struct
from typing import Any, NamedTuple, Protocol

from eventmill.backends.postgres.replication.texts import Reader, reader
from eventmill.core.changes import Begin, Commit, Emitted, Entry, Key, Row, RowChange, Truncated

EPOCH = 946_684_800_000_000
"""2000-01-01 UTC, from which PostgreSQL counts microseconds."""

IDENTITIES = {"d": "default", "f": "full", "i": "index", "n": "nothing"}

_begin = Struct("!QqI").unpack_from
_commit = Struct("!BQQq").unpack_from
_u32 = Struct("!I").unpack_from
_u16 = Struct("!H").unpack_from
_column = Struct("!Ii").unpack_from


class RelationColumn(NamedTuple):
    """A column as a relation message has it. key: whether it is part of what identifies rows."""

    name: str
    oid: int
    modifier: int
    key: bool


class Relation(NamedTuple):
    """A relation message: what the rows that follow it look like."""

    oid: int
    schema: str
    name: str
    identity: str
    columns: tuple[RelationColumn, ...]


class Layout:
    """How the rows of one relation are read, prepared once."""

    __slots__ = ("columns", "full", "key", "table")

    def __init__(
        self, table: str, relation: Relation, key: Sequence[str], reader: Callable[[int], Reader] = reader
    ) -> None:
        self.table = table
        self.columns: list[tuple[str, Reader]] = [(column.name, reader(column.oid)) for column in relation.columns]
        self.full = relation.identity == "full"
        self.key = tuple(key)

    def key_of(self, row: Row) -> Key:
        return tuple([row[name] for name in self.key])


class Relations(Protocol):
    """Keeps what relation messages say."""

    def __call__(self, relation: Relation) -> tuple[Layout | None, Entry | None]:
        """The layout of its rows (None where they are not captured), and what it means, if it means anything."""
        ...


class Decoder:
    """Messages to entries. It keeps the layouts, so it is for one connection.

    emitted: what an emitted message becomes, by its prefix, or None to pass it over.
    """

    def __init__(self, relations: Relations, emitted: Callable[[str, bytes, int | None], Entry | None]) -> None:
        self._relations = relations
        self._emitted = emitted
        self._layouts: dict[int, Layout | None] = {}
        self.within = False
        """Whether a transaction was begun and is not complete."""

    def decode(self, data: bytes, into: list[Entry]) -> None:
        """Append what one message means. Raises ValueError for a message that the protocol does not have."""
        kind = data[0]
        if kind == 73:  # I
            layout = self._layouts[_u32(data, 1)[0]]
            if layout is not None:
                after, _, unchanged = _tuple(data, 6, layout)
                into.append(RowChange(layout.table, "insert", layout.key_of(after), None, after, unchanged))
        elif kind == 85:  # U
            layout = self._layouts[_u32(data, 1)[0]]
            if layout is not None:
                into.append(_updated(data, layout))
        elif kind == 68:  # D
            layout = self._layouts[_u32(data, 1)[0]]
            if layout is not None:
                before, _, _ = _tuple(data, 6, layout)
                before = _known(before, layout, data[5])
                into.append(RowChange(layout.table, "delete", layout.key_of(before), before, None))
        elif kind == 66:  # B
            position, at, transaction = _begin(data, 1)
            self.within = True
            into.append(Begin(position, transaction, at + EPOCH))
        elif kind == 67:  # C
            self.within = False
            into.append(Commit(_commit(data, 1)[2]))
        elif kind == 82:  # R
            relation = _relation(data)
            layout, entry = self._relations(relation)
            self._layouts[relation.oid] = layout
            if entry is not None:
                into.append(entry)
        elif kind == 84:  # T
            (count,) = _u32(data, 1)
            for number in range(count):
                layout = self._layouts[_u32(data, 6 + 4 * number)[0]]
                if layout is not None:
                    into.append(Truncated(layout.table))
        elif kind == 77:  # M
            self._message(data, into)
        elif kind not in (79, 89):  # O(rigin), Y (type)
            raise ValueError(f"pgoutput sent a message of the unknown kind {chr(kind)!r}")

    def _message(self, data: bytes, into: list[Entry]) -> None:
        transactional = data[1] & 1
        position = int.from_bytes(data[2:10], "big")
        prefix, at = _name(data, 10)
        (size,) = _u32(data, at)
        # One that is written outside of a transaction is done when what begins after it is yet to come.
        entry = self._emitted(prefix, data[at + 4 : at + 4 + size], None if transactional else position)
        if entry is not None:
            into.append(entry)


def _tuple(data: bytes, at: int, layout: Layout) -> tuple[Row, int, tuple[str, ...]]:
    """A row from here on, where it ends, and which of its values were not sent."""
    row: dict[str, Any] = {}
    unchanged: tuple[str, ...] = ()
    at += 2
    for name, read in layout.columns:
        kind = data[at]
        at += 1
        if kind == 116:  # t
            size = int.from_bytes(data[at : at + 4], "big")
            at += 4
            row[name] = read(data[at : at + size])
            at += size
        elif kind == 110:  # n
            row[name] = None
        elif kind == 117:  # u
            unchanged = (*unchanged, name)
        else:
            raise ValueError(f"pgoutput sent a value of the unknown kind {chr(kind)!r}")
    return row, at, unchanged


def _known(before: Row, layout: Layout, kind: int) -> Row:
    """Of an old row: everything (O), or only what identifies it (K), where the rest is sent as null."""
    return before if kind == 79 else {name: before[name] for name in layout.key}


def _updated(data: bytes, layout: Layout) -> RowChange:
    kind = data[5]
    before: Row | None = None
    at = 6
    if kind in (75, 79):  # K, O
        before, at, _ = _tuple(data, 6, layout)
        before = _known(before, layout, kind)
        at += 1
    after, _, unchanged = _tuple(data, at, layout)
    if unchanged and before is not None and kind == 79:
        # The whole old row was sent, and what is unchanged is in it.
        after.update((name, before[name]) for name in unchanged)
        unchanged = ()
    if before is not None and unchanged:
        # A key's large value that was left alone is sent with the old row only.
        kept = [name for name in unchanged if name in layout.key]
        after.update((name, before[name]) for name in kept)
        unchanged = tuple([name for name in unchanged if name not in kept])
    key = layout.key_of(after)
    former = None if before is None else layout.key_of(before)
    return RowChange(layout.table, "update", key, before, after, unchanged, former if former != key else None)


def _name(data: bytes, at: int) -> tuple[str, int]:
    end = data.index(0, at)
    return data[at:end].decode(), end + 1


def _relation(data: bytes) -> Relation:
    (oid,) = _u32(data, 1)
    schema, at = _name(data, 5)
    name, at = _name(data, at)
    identity = IDENTITIES[chr(data[at])]
    (count,) = _u16(data, at + 1)
    at += 3
    columns = []
    for _ in range(count):
        key = bool(data[at] & 1)
        column, at = _name(data, at + 1)
        type_oid, modifier = _column(data, at)
        at += 8
        columns.append(RelationColumn(column, type_oid, modifier, key))
    return Relation(oid, schema or "pg_catalog", name, identity, tuple(columns))


__all__ = ["Decoder", "Emitted", "Layout", "Relation", "RelationColumn", "Relations"]
