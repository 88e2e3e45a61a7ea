"""What captured tables look like: asked from the catalog, and followed through the stream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from psycopg import sql
from psycopg.rows import tuple_row

from eventmill.backends.postgres.replication.connection import Connection
from eventmill.backends.postgres.replication.pgoutput import IDENTITIES, Layout, Relation
from eventmill.backends.postgres.replication.types import Types, UnknownTypesError
from eventmill.core.changes import Column, Entry, Identity, Reshaped, Shape, renamed_columns
from eventmill.core.errors import ConfigurationError

_TABLE = """
SELECT c.oid::bigint, n.nspname, c.relname, c.relkind::text, c.relpersistence::text, c.relreplident::text,
       has_table_privilege(c.oid, 'SELECT'), greatest(c.reltuples, 0)::bigint
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = {}
"""
_COLUMNS = """
SELECT a.attname, a.atttypid::bigint,
       coalesce(array_position(string_to_array(i.indkey::text, ' '), a.attnum::text), 0)
FROM pg_attribute a
LEFT JOIN pg_index i ON i.indrelid = a.attrelid AND CASE WHEN %s THEN i.indisreplident ELSE i.indisprimary END
WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
ORDER BY a.attnum
"""
_PLAN = "EXPLAIN (FORMAT JSON) SELECT FROM {}"
_CHILDREN = """
SELECT i.inhrelid::regclass::text, p.oid::regclass::text FROM pg_inherits i JOIN pg_class p ON p.oid = i.inhparent
WHERE p.relkind = 'r' AND p.oid = ANY(%s) AND NOT i.inhrelid = ANY(%s) ORDER BY 1 LIMIT 1
"""

AGAIN = "eventmill cdc init --anew"


def split(table: str) -> tuple[str, str]:
    """Schema and name of a declared table; without a schema it is in public."""
    schema, dot, name = table.rpartition(".")
    return (schema if dot else "public", name)


def identifier(name: str) -> sql.Identifier:
    """A table's present name as SQL."""
    return sql.Identifier(*split(name))


class Catalogued:
    """A table as the catalog has it, beside its shape: oid, the type of each column, and how many rows it had once."""

    def __init__(self, oid: int, shape: Shape, types: dict[str, int], rows: int, *, partitioned: bool) -> None:
        self.oid = oid
        self.shape = shape
        self.types = types
        self.rows = rows
        self.partitioned = partitioned

    @property
    def rows_of(self) -> sql.Composable:
        """What to select its rows from: a parent of other tables without theirs, which are tables of their own."""
        return sql.SQL("{}" if self.partitioned else "ONLY {}").format(identifier(self.shape.name))


async def catalogued(connection: Connection, types: Types, table: str, known: Shape | None = None) -> Catalogued:
    """Look a table up, and refuse what cannot be captured: ConfigurationError, with the remedy.

    known: its shape when it was looked up last, by whose number it is found whatever it is called now.
    """
    cursor = connection.cursor(row_factory=tuple_row)
    if known is not None:
        found = await (await cursor.execute(_TABLE.format("%s"), (known.id,))).fetchone()
        if found is None:
            raise ConfigurationError(
                f"table {known.name} was dropped; take it out of the capture, or begin anew: {AGAIN}"
            )
    else:
        quoted = identifier(table).as_string(None)
        found = await (await cursor.execute(_TABLE.format("to_regclass(%s)"), (quoted,))).fetchone()
        if found is None:
            raise ConfigurationError(f"table {'.'.join(split(table))} does not exist; name it as schema.table")
    oid, schema, name, kind, persistence, letter, readable, rows = found
    where = f"{schema}.{name}"
    if kind not in ("r", "p"):
        raise ConfigurationError(f"{where} is no table (a view?): only tables can be captured")
    if persistence != "p":
        raise ConfigurationError(f"{where} is temporary or unlogged: PostgreSQL does not log its changes")
    if not readable:
        raise ConfigurationError(f"{where}: this user may not read it; GRANT SELECT ON {where} to it")
    if letter == "n":
        raise ConfigurationError(
            f"{where} has REPLICA IDENTITY NOTHING, with which it could not be updated any more while it is captured; "
            f"run: ALTER TABLE {where} REPLICA IDENTITY DEFAULT"
        )
    await cursor.execute(_COLUMNS, (letter == "i", oid))
    columns = await cursor.fetchall()
    oids = {name: oid for name, oid, _ in columns}
    try:
        types.require(oids.values())
    except UnknownTypesError as unknown:
        await types.ask(connection, unknown.oids)
    key = [name for name, _, place in sorted(columns, key=lambda column: column[2]) if place]
    if not key:
        raise ConfigurationError(
            f"{where} has no primary key, so its rows cannot be told apart; add one, or a unique index of NOT NULL "
            f"columns and: ALTER TABLE {where} REPLICA IDENTITY USING INDEX name"
        )
    nested = next((name for name in key if types.nested(oids[name])), None)
    if nested is not None:
        raise ConfigurationError(
            f"{where}: column {nested}, which is of its key, is {types.name(oids[nested])}: a row cannot be told by such a value; "
            f"take a unique index of other columns: ALTER TABLE {where} REPLICA IDENTITY USING INDEX name"
        )
    shape = Shape(
        table=table,
        name=where,
        id=oid,
        columns=tuple([Column(name, types.name(type_oid)) for name, type_oid in oids.items()]),
        key=tuple(key),
        identity=cast(Identity, IDENTITIES[letter]),
    )
    return Catalogued(oid, shape, oids, rows, partitioned=kind == "p")


async def refuse_children(connection: Connection, shapes: Sequence[Shape]) -> None:
    """Tables that inherit from a captured one have rows which a query of it shows, and which its log does not."""
    oids = [shape.id for shape in shapes]
    found = await (await connection.cursor(row_factory=tuple_row).execute(_CHILDREN, (oids, oids))).fetchone()
    if found is not None:
        child, parent = found
        raise ConfigurationError(
            f"{child} inherits from {parent}, so its rows are {parent}'s, too, and their changes are its own: "
            f"name {child} among the captured tables"
        )


async def estimated(connection: Connection, table: Catalogued) -> int:
    """About how many rows it has: as the statistics say, or where there are none yet, as the planner thinks."""
    if table.rows > 0:
        return table.rows
    plan = sql.SQL(_PLAN).format(table.rows_of)
    (((root, *_),),) = await (await connection.cursor(row_factory=tuple_row).execute(plan)).fetchall()
    return int(root["Plan"]["Plan Rows"])


class Tables:
    """Follows the shapes of tables by the relation messages of a stream.

    shapes: by declared name, as they were when the stream begins. Calling it raises UnknownTypesError where the types have
    to be asked for again.
    """

    def __init__(self, shapes: Mapping[str, Shape], types: Types) -> None:
        self._oids = {shape.id: table for table, shape in shapes.items()}
        self._shapes = dict(shapes)
        self._types = types

    def __call__(self, relation: Relation) -> tuple[Layout | None, Entry | None]:
        table = self._oids.get(relation.oid)
        if table is None:
            return None, None
        self._types.require([column.oid for column in relation.columns])
        former = self._shapes[table]
        shape = self._shape(table, relation, former)
        layout = Layout(table, relation, shape.key, self._types.reader)
        if shape == former:
            return layout, None
        self._shapes[table] = shape
        return layout, Reshaped(shape, former)

    def _shape(self, table: str, relation: Relation, former: Shape) -> Shape:
        name = f"{relation.schema}.{relation.name}"
        columns = tuple([Column(column.name, self._types.name(column.oid)) for column in relation.columns])
        flagged = [column.name for column in relation.columns if column.key]
        key = former.key
        if relation.identity in ("default", "index"):
            # The order of the key's columns is the index's, which the message does not tell: it stays where it can.
            key = former.key if set(flagged) == set(former.key) else tuple(flagged)
        else:  # the message does not say which columns are the primary key
            renamed = dict(renamed_columns(former.columns, columns))
            key = tuple([renamed.get(column, column) for column in former.key])
        refuse_another_key(name, former, key, columns)
        return Shape(
            table=table,
            name=name,
            id=relation.oid,
            columns=columns,
            key=key,
            identity=cast(Identity, relation.identity),
        )


def refuse_another_key(name: str, former: Shape, key: Sequence[str], present: Sequence[Column]) -> None:
    """Raise ConfigurationError where former rows could not be found by this key. name: the table's, now."""
    types = {column.name: column.type for column in former.columns}
    columns = {column.name: column.type for column in present}
    remedy = f"begin anew: {AGAIN}"
    moved = [
        column for column, before in zip(key, former.key, strict=False)
        if column != before and (column in types or before in columns)
    ]  # fmt: skip
    if len(key) != len(former.key) or moved:  # a column that was there before did not get its name by renaming
        raise ConfigurationError(
            f"{name}: its key was {', '.join(former.key)} and is {', '.join(key) or 'gone'} now, so former rows cannot be "
            f"found again; {remedy}"
        )
    for column, before in zip(key, former.key, strict=True):
        if column not in columns:
            raise ConfigurationError(f"{name}: column {column}, which is of its key, was dropped; {remedy}")
        if columns[column] != types[before]:
            raise ConfigurationError(
                f"{name}: column {column}, which is of its key, was {types[before]} and is {columns[column]} now; {remedy}"
            )
