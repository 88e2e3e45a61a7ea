"""Rows of a table, some at a time, and what transactions whoever read them could see."""

from __future__ import annotations

from collections.abc import Sequence

from psycopg import sql

from eventmill.backends.postgres.replication.tables import Connection, catalogued, identifier
from eventmill.backends.postgres.replication.texts import reader
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


async def read_chunk(connection: Connection, shape: Shape, after: Sequence[str] | None, limit: int) -> Chunk:
    """The next rows after a key, in a transaction that ends at once: nothing stays locked, nothing is held back."""
    async with connection.transaction():
        await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        table = await catalogued(connection, shape.table, shape)
        ((text,),) = await (await connection.execute("SELECT pg_current_snapshot()::text")).fetchall()
        present = table.shape
        types = {column.name: column.type for column in present.columns}
        key = sql.SQL(", ").join([sql.Identifier("t", name) for name in present.key])
        condition: sql.Composable = sql.SQL("")
        if after is not None:
            places = [sql.SQL("%s::" + types[name]) for name in present.key]
            condition = sql.SQL("WHERE ({}) > ({})").format(key, sql.SQL(", ").join(places))
        query = sql.SQL("SELECT {}, {} FROM {} AS t {} ORDER BY {} LIMIT {}").format(
            sql.SQL(", ").join([sql.SQL("{}::text").format(sql.Identifier("t", name)) for name in present.key]),
            sql.SQL(", ").join([sql.Identifier("t", column.name) for column in present.columns]),
            identifier(present.name),
            condition,
            key,
            sql.Literal(limit),
        )
        result = (await connection.execute(query, list(after or ()))).pgresult
        assert result is not None
        value = result.get_value
        width = len(present.key)
        names = [column.name for column in present.columns]
        readers = [
            (index, names[index - width], reader(table.types[names[index - width]]))
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
    return Chunk(rows, last, len(rows) < limit, Snapshot(text))


async def read_values(connection: Connection, shape: Shape, key: Key, columns: Sequence[str]) -> Row | None:
    """Present values of some columns of one row; a column that is gone is left out."""
    table = await catalogued(connection, shape.table, shape)
    types = {column.name: column.type for column in table.shape.columns}
    there = [name for name in columns if name in types]
    if not there:
        return {}
    condition = sql.SQL(" AND ").join(
        [sql.SQL("{} = %s::" + types[name]).format(sql.Identifier(name)) for name in table.shape.key]
    )
    query = sql.SQL("SELECT {} FROM {} WHERE {}").format(
        sql.SQL(", ").join(map(sql.Identifier, there)), identifier(table.shape.name), condition
    )
    result = (await connection.execute(query, [str(part) for part in key])).pgresult
    if result is None or result.ntuples == 0:
        return None
    found: Row = {}
    for index, name in enumerate(there):
        data = result.get_value(0, index)
        found[name] = None if data is None else reader(table.types[name])(data)
    return found
