"""A server's types: what they are called, and how the text of a value is read, also of those that somebody has made."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from psycopg.rows import tuple_row

from eventmill.backends.postgres.replication.connection import Connection
from eventmill.backends.postgres.replication.texts import Reader, array_reader, reader

_TYPES = """
SELECT t.oid::bigint, format_type(t.oid, NULL), format_type(t.oid, -1), n.nspname, t.typbasetype::bigint,
       CASE WHEN t.typoutput = 'array_out'::regproc AND t.typdelim = ',' THEN t.typelem::bigint ELSE 0 END
FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
"""
# A domain's own output function is its base's, so a domain of arrays has an element, too: its base is looked at first.


class _Type(NamedTuple):
    """cast: its name where a value of any length is meant (`character` alone is `character(1)`). base: of a domain."""

    name: str
    cast: str
    schema: str
    base: int
    element: int


class UnknownTypesError(LookupError):
    """A table has a column of a type that was made after the types were asked for."""

    def __init__(self, oids: Collection[int]) -> None:
        super().__init__(f"types {sorted(oids)} are not known")
        self.oids = frozenset(oids)


class Types:
    """As they were when they were asked for last. `require` says when that has to be done again."""

    def __init__(self) -> None:
        self._types: dict[int, _Type] = {}

    async def ask(self, connection: Connection, needed: Collection[int] = ()) -> None:
        """Ask for all of them. needed: oids which must be known then; one that the server does not have is called by its number."""
        rows = await (await connection.cursor(row_factory=tuple_row).execute(_TYPES)).fetchall()
        self._types = {oid: _Type(*rest) for oid, *rest in rows}
        for oid in needed:
            self._types.setdefault(oid, _Type(f"oid {oid}", "text", "pg_catalog", 0, 0))

    def require(self, oids: Collection[int]) -> None:
        """Raise UnknownTypesError where some of them are not known."""
        unknown = [oid for oid in oids if oid not in self._types]
        if unknown:
            raise UnknownTypesError(unknown)

    def name(self, oid: int) -> str:
        return self._types[oid].name

    def cast(self, oid: int) -> str:
        return self._types[oid].cast

    def schema(self, oid: int) -> str:
        return self._types[oid].schema

    def base(self, oid: int) -> int:
        """The type itself, or what a domain is made of."""
        found = self._types.get(oid)
        return oid if found is None or not found.base else self.base(found.base)

    def nested(self, oid: int) -> bool:
        """Whether its values are arrays or JSON."""
        base = self.base(oid)
        found = self._types.get(base)
        return base in (114, 3802) or (found is not None and found.element != 0)

    def reader(self, oid: int) -> Reader:
        """How the text of a type is read; an enum's or a composite's stays text."""
        base = self.base(oid)
        found = self._types.get(base)
        return reader(base) if found is None or not found.element else array_reader(self.reader(found.element))
