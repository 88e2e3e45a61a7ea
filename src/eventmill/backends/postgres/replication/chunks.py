"""Rows of a table, some at a time, and what transactions whoever read them could see."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Sequence

from psycopg import sql

from eventmill.backends.postgres.replication.connection import Connection
from eventmill.backends.postgres.replication.tables import catalogued, refuse_another_key
from eventmill.backends.postgres.replication.texts import BYTEA
from eventmill.backends.postgres.replication.types import Types
from eventmill.core.changes import Chunk, Key, Row, Shape

_WRAP = 1 << 32


class Snapshot:
    """What `pg_current_snapshot()` says: `xmin:xmax:xip,…`. The stream's transaction numbers have 32 bits only."""

    def __init__(self, text: str) -> None:
        xmin, xmax, running = text.split(":")
        self._xmin = int(xmin)
        self._xmax = int(xmax)
        self._running = {int(number) for number in running.split(",") if number}

    def _whole(self, transaction: int) -> int:
        """The number with its epoch: the one that is nearest to the snapshot."""
        whole = self._xmax - self._xmax % _WRAP + transaction
        if whole > self._xmax + _WRAP // 2:
            return whole - _WRAP
        return whole + _WRAP if whole < self._xmax - _WRAP // 2 else whole

    def saw(self, transaction: int) -> bool:
        whole = self._whole(transaction)
        return whole < self._xmax and whole not in self._running

    def forgettable(self, transaction: int) -> bool:
        return self._whole(transaction) < self._xmin


async def read_chunk(
    connection: Connection, types: Types, shape: Shape, after: Sequence[str] | None, limit: int
) -> Chunk:
    """The next rows after a key, in a transaction that ends at once: nothing stays locked, nothing is held back."""
    async with connection.transaction():
        await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        table = await catalogued(connection, types, shape.table, shape)
        ((text,),) = await (await connection.execute("SELECT pg_current_snapshot()::text")).fetchall()
        present = table.shape
        refuse_another_key(present.name, shape, present.key, present.columns)
        await _find_operators(connection, types, [table.types[name] for name in present.key])
        key = sql.SQL(", ").join([sql.Identifier("t", name) for name in present.key])
        condition: sql.Composable = sql.SQL("")
        if after is not None:
            place = [_value(types, table.types[name], part) for name, part in zip(present.key, after, strict=True)]
            condition = sql.SQL("WHERE ({}) > ({})").format(key, sql.SQL(", ").join(place))
        query = sql.SQL("SELECT {}, {} FROM {} AS t {} ORDER BY {} LIMIT {}").format(
            sql.SQL(", ").join([sql.SQL("{}::text").format(sql.Identifier("t", name)) for name in present.key]),
            sql.SQL(", ").join([sql.Identifier("t", column.name) for column in present.columns]),
            table.rows_of,
            condition,
            key,
            sql.Literal(limit),
        )
        result = (await connection.execute(query)).pgresult
        assert result is not None
        value = result.get_value
        width = len(present.key)
        names = [column.name for column in present.columns]
        readers = [
            (index, names[index - width], types.reader(table.types[names[index - width]]))
            for index in range(width, width + len(names))
        ]
        rows: list[tuple[Key, Row]] = []
        for number in range(result.ntuples):
            row: Row = {}
            for index, name, read in readers:
                data = value(number, index)
                row[name] = None if data is None else read(data)
            rows.append((tuple([row[name] for name in present.key]), row))
        last = None
        if rows:
            end = result.ntuples - 1
            last = tuple([(value(end, index) or b"").decode() for index in range(width)])
    return Chunk(rows, last, len(rows) < limit, Snapshot(text), present)


async def _find_operators(connection: Connection, types: Types, oids: Sequence[int]) -> None:
    """For this transaction: a key's own comparison is found where its type is, else the one of what it can be taken for is
    used, which may have another order (`citext` as `text`)."""
    schemas = dict.fromkeys(["pg_catalog", *map(types.schema, map(types.base, oids))])
    if len(schemas) > 1:
        path = sql.SQL(", ").join(map(sql.Identifier, schemas))
        await connection.execute(sql.SQL("SET LOCAL search_path = {}").format(path))


def _value(types: Types, oid: int, text: str) -> sql.Composed:
    """A literal, since names of columns may hold what parameters are marked with."""
    return sql.SQL("{}::{}").format(sql.Literal(text), sql.SQL(types.cast(oid)))


def _as_text(types: Types, oid: int, value: object) -> str:
    """The text of a key's value, as SQL takes it."""
    return f"\\x{b64decode(str(value)).hex()}" if types.base(oid) == BYTEA else str(value)


async def read_values(
    connection: Connection, types: Types, shape: Shape, key: Key, columns: Sequence[str]
) -> Row | None:
    """Present values of some columns of one row; a column that is gone is left out."""
    table = await catalogued(connection, types, shape.table, shape)
    there = [name for name in columns if name in table.types]
    if not there:
        return {}
    oids = [table.types[name] for name in table.shape.key]
    condition = sql.SQL(" AND ").join(
        [
            sql.SQL("{} = {}").format(sql.Identifier(name), _value(types, oid, _as_text(types, oid, value)))
            for name, oid, value in zip(table.shape.key, oids, key, strict=True)
        ]
    )
    query = sql.SQL("SELECT {} FROM {} WHERE {}").format(
        sql.SQL(", ").join(map(sql.Identifier, there)), table.rows_of, condition
    )
    async with connection.transaction():
        await _find_operators(connection, types, oids)
        result = (await connection.execute(query)).pgresult
    if result is None or result.ntuples == 0:
        return None
    found: Row = {}
    for index, name in enumerate(there):
        data = result.get_value(0, index)
        found[name] = None if data is None else types.reader(table.types[name])(data)
    return found
