"""Copies of captured tables among a projection's own tables, for views that join them.

A view of several tables is made of what has arrived of each. Changes of one row arrive in order, but an order may come before
its customer, and a truncate before or after rows that it is to end. With copies, whatever arrives is first put where it
belongs, and then the rows of the view which it touches are made anew from all the copies: so the view is the join of
what has arrived, whichever came first, and the join of the source when all has.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from eventmill.core.errors import ConfigurationError
from eventmill.patterns.cdc.change import Change
from eventmill.runtime.transaction import Transaction

_NAME = re.compile(r"[a-z_][a-z0-9_]{0,39}", re.ASCII)

GATE = ""
"""The row of the floors that whoever applies changes holds until its commit."""


@dataclass(frozen=True, slots=True)
class Copied:
    """Which columns of a captured table to copy, with their types in the service's own database, and its key among them."""

    columns: Mapping[str, str]
    key: Sequence[str] = ("id",)


@dataclass(slots=True)
class Touched:
    """What a batch of changes has touched. rows: keys by table. tables: those that were truncated: all rows of them."""

    rows: dict[str, list[tuple[Any, ...]]] = field(default_factory=dict)
    tables: set[str] = field(default_factory=set)


class Copies:
    """Copies of some tables of a capture, under names that begin with `prefix`.

    List `tables` among the projection's, call `create` in its `create`, and `apply` in its methods. In SQL the copy of
    `customers` with the prefix `shop` is `{shop_customers}`. Those who apply changes do so one after another, in
    all processes: a lost update between two halves of a join cannot happen.
    """

    def __init__(self, prefix: str, copied: Mapping[str, Copied]) -> None:
        self._copied = dict(copied)
        self._prefix = prefix
        for table, each in self._copied.items():
            names = [self.name(table), *each.columns]
            wrong = next((name for name in names if not _NAME.fullmatch(name)), None)
            if wrong is not None:
                raise ConfigurationError(f"copies {prefix!r}: {wrong!r}: use small letters, digits and _, up to 40")
            missing = [column for column in each.key if column not in each.columns]
            if not each.key or missing:
                raise ConfigurationError(
                    f"copies {prefix!r}: table {table}: its key {list(each.key)} must be among its columns"
                )
        self.tables = [*map(self.name, self._copied), f"{prefix}_floors"]
        """What to list in the projection's `tables`."""

    def name(self, table: str) -> str:
        """What the copy of a table is called; the schema of `sales.orders` becomes a part of it."""
        return f"{self._prefix}_{table.replace('.', '_')}"

    async def create(self, tx: Transaction) -> None:
        """Create the copies, empty."""
        for table, each in self._copied.items():
            columns = ", ".join(f"{name} {kind}" for name, kind in each.columns.items())
            await tx.execute(
                f"CREATE TABLE {{{self.name(table)}}} ({columns}, place_position BIGINT NOT NULL,"
                f" place_number BIGINT NOT NULL, PRIMARY KEY ({', '.join(each.key)}))"
            )
        await tx.execute(
            f"CREATE TABLE {{{self._prefix}_floors}} (tab VARCHAR(200) PRIMARY KEY, position BIGINT NOT NULL,"
            " number BIGINT NOT NULL)"
        )

    async def apply(self, changes: Sequence[object], tx: Transaction) -> Touched:
        """Bring the copies up to date; returns what was touched. Other events than changes are passed over."""
        floors = await self.hold(tx)
        touched = Touched()
        pending: dict[tuple[str, tuple[Any, ...]], tuple[Change, dict[str, Any] | None]] = {}
        for change in changes:
            if not isinstance(change, Change) or change.table not in self._copied:
                continue
            if change.op == "truncate":
                await self._flush(pending, tx)
                await self._truncate(change, floors, tx)
                touched.tables.add(change.table)
            elif change.place >= floors.get(change.table, (0, 0)):
                place = (change.table, self._key(change))
                row = None if change.gone else self._row(change)
                before = pending.get(place)
                if row is not None and before is not None and before[1] is not None:
                    row = {**before[1], **row}
                elif row is not None and before is not None:
                    await self._flush(pending, tx)  # deleted before: what is not said now is not what it was
                pending[place] = (change, row)
                touched.rows.setdefault(change.table, []).append(place[1])
        await self._flush(pending, tx)
        return touched

    async def hold(self, tx: Transaction) -> dict[str, tuple[int, int]]:
        """Wait for whoever else applies changes, and keep others from it until this transaction ends: what is read of the
        copies then stays true. `apply` does it by itself.

        Returns the floors: places before which a table's rows were ended by a truncate.
        """
        floors = f"{{{self._prefix}_floors}}"
        await tx.execute(
            f"INSERT INTO {floors} (tab, position, number) VALUES (?, 0, 0) ON CONFLICT (tab) DO UPDATE SET position = 0",  # noqa: S608
            (GATE,),
        )
        rows = await tx.execute(f"SELECT tab, position, number FROM {floors}")  # noqa: S608
        return {str(tab): (int(position), int(number)) for tab, position, number in rows}

    async def _truncate(self, change: Change, floors: dict[str, tuple[int, int]], tx: Transaction) -> None:
        name = f"{{{self.name(change.table)}}}"
        await tx.execute(
            f"DELETE FROM {name} WHERE place_position < ? OR (place_position = ? AND place_number < ?)",  # noqa: S608
            (change.position, change.position, change.number),
        )
        if change.place > floors.get(change.table, (0, 0)):
            floors[change.table] = change.place
            await tx.execute(
                f"INSERT INTO {{{self._prefix}_floors}} (tab, position, number) VALUES (?, ?, ?)"  # noqa: S608
                " ON CONFLICT (tab) DO UPDATE SET position = excluded.position, number = excluded.number",
                (change.table, change.position, change.number),
            )

    async def _flush(
        self, pending: dict[tuple[str, tuple[Any, ...]], tuple[Change, dict[str, Any] | None]], tx: Transaction
    ) -> None:
        deletes: dict[str, list[tuple[Any, ...]]] = {}
        upserts: dict[tuple[str, tuple[str, ...]], list[tuple[Any, ...]]] = {}
        for (table, key), (change, row) in pending.items():
            if row is None:
                deletes.setdefault(table, []).append(key)
            else:
                values = (*row.values(), change.position, change.number)
                upserts.setdefault((table, tuple(row)), []).append(values)
        for table, keys in deletes.items():
            condition = " AND ".join(f"{name} = ?" for name in self._copied[table].key)
            await tx.executemany(f"DELETE FROM {{{self.name(table)}}} WHERE {condition}", keys)  # noqa: S608
        for (table, columns), rows in upserts.items():
            await tx.executemany(self._upsert(table, columns), rows)
        pending.clear()

    def _upsert(self, table: str, columns: Sequence[str]) -> str:
        names = [*columns, "place_position", "place_number"]
        changed = ", ".join(f"{name} = excluded.{name}" for name in names if name not in self._copied[table].key)
        return (
            f"INSERT INTO {{{self.name(table)}}} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"  # noqa: S608
            f" ON CONFLICT ({', '.join(self._copied[table].key)}) DO UPDATE SET {changed}"
        )

    def _key(self, change: Change) -> tuple[Any, ...]:
        key = change.key or {}
        copied = self._copied[change.table].key
        try:
            return tuple([key[name] for name in copied])
        except KeyError as error:
            raise ConfigurationError(
                f"copies {self._prefix!r}: table {change.table} has the key {', '.join(key)}, not {', '.join(copied)}"
            ) from error

    def _row(self, change: Change) -> dict[str, Any]:
        """The copied columns of a row, as SQL takes them; those that are unchanged are not among them."""
        row = change.after or {}
        return {name: _plain(row[name]) for name in self._copied[change.table].columns if name in row}


def _plain(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, dict | list) else value
