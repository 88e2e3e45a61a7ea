"""Taking one unit back out of a shared transaction leaves exactly what the others have done."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from eventmill.backends.sqlite.backend import SqliteBackend

CREATE = "CREATE TABLE IF NOT EXISTS steps (n INTEGER PRIMARY KEY, name TEXT UNIQUE, times INTEGER DEFAULT 1)"
WRITE = "INSERT INTO steps (name) VALUES (?) ON CONFLICT (name) DO UPDATE SET times = times + 1"
MANY = "INSERT OR FAIL INTO steps (name) SELECT value FROM json_each(?)"
READ = "SELECT n, name, times FROM steps ORDER BY n"

statement = st.tuples(st.sampled_from(["write", "read", "returning", "many", "or-fail"]), st.sampled_from("abcd"))
unit = st.tuples(st.lists(statement, max_size=4), st.booleans())


def plainly(connection: sqlite3.Connection, kind: str, name: str) -> list[tuple[object, ...]]:
    """The same by hand."""
    try:
        if kind == "read":
            return connection.execute(READ).fetchall()
        if kind == "returning":
            return connection.execute(f"{WRITE} RETURNING n, times", (name,)).fetchall()
        if kind == "many":
            connection.executemany(WRITE, [(name,), (name * 2,)])
        elif kind == "or-fail":
            connection.execute(MANY, (f'["x{name}", "{name}", "y{name}"]',))
        else:
            connection.execute(WRITE, [name])
    except sqlite3.IntegrityError:
        return [("refused",)]
    return []


@settings(max_examples=150, deadline=None)
@given(units=st.lists(unit, max_size=8))
def test_failed_units_leave_nothing_and_take_nothing(units: list[tuple[list[tuple[str, str]], bool]]) -> None:
    async def ours(path: Path) -> list[list[tuple[object, ...]]]:
        seen: list[list[tuple[object, ...]]] = []
        async with SqliteBackend(str(path)) as backend:
            async with backend.transaction() as tx:
                await tx.execute(CREATE)
            ends = []
            for statements, good in units:
                one = backend.unit()
                for kind, name in statements:
                    try:
                        if kind == "read":
                            seen.append(list(await one.execute(READ)))
                        elif kind == "returning":
                            seen.append(list(await one.execute(f"{WRITE} RETURNING n, times", (name,))))
                        elif kind == "many":
                            await one.executemany(WRITE, [(name,), (name * 2,)])
                        elif kind == "or-fail":
                            await one.execute(MANY, (f'["x{name}", "{name}", "y{name}"]',))
                        else:
                            parameters = [name]
                            await one.execute(WRITE, parameters)
                            parameters[0] = "changed afterwards"
                    except sqlite3.IntegrityError:
                        seen.append([("refused",)])
                if good:
                    ends.append(await one.finish())
                else:
                    await one.discard()
            await asyncio.gather(*ends)
            async with backend.transaction() as tx:
                seen.append(list(await tx.execute(READ)))
        return seen

    def expected() -> list[list[tuple[object, ...]]]:
        seen: list[list[tuple[object, ...]]] = []
        with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
            connection.execute(CREATE)
            for statements, good in units:
                connection.execute("SAVEPOINT one")
                for kind, name in statements:
                    found = plainly(connection, kind, name)
                    if kind in ("read", "returning") or found:
                        seen.append(found)
                if not good:
                    connection.execute("ROLLBACK TO one")
                connection.execute("RELEASE one")
            seen.append(connection.execute(READ).fetchall())
        return seen

    with TemporaryDirectory() as folder:
        assert asyncio.run(ours(Path(folder) / "one.db")) == expected()
