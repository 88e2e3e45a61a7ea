"""SQLite tables as legacy programs have them: replaced rows, triggers of their own, many columns, odd names, other captures."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sqlite3
import struct
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from cdc_watching import declared, watched

from eventmill import App, ConfigurationError
from eventmill.core.clock import Ids
from eventmill.patterns.cdc.report import report
from eventmill.patterns.cdc.setup import drop, initialise


def run(file: Path, *statements: str, pragma: str = "") -> None:
    with contextlib.closing(sqlite3.connect(file, timeout=20, isolation_level=None)) as connection:
        connection.execute(pragma or "SELECT 1")
        for statement in statements:
            connection.execute(statement)


def rows(file: Path, table: str) -> dict[Any, Any]:
    with contextlib.closing(sqlite3.connect(file)) as connection:
        cursor = connection.execute(f"SELECT * FROM {table}")
        names = [column[0] for column in cursor.description]
        return {tuple(row): dict(zip(names, row, strict=True)) for row in cursor}


def copied(changes: Sequence[dict[str, Any]], table: str) -> dict[Any, Any]:
    """What somebody has who applies the changes one after another."""
    found: dict[str, Any] = {}
    for change in changes:
        if change.get("table") == table and "op" in change:
            found[json.dumps(change["key"])] = change.get("after")
    return {tuple(row.values()): row for row in found.values() if row is not None}


async def equal(
    file: Path, store: Path, tables: Sequence[str], *statements: str, pragma: str = ""
) -> list[dict[str, Any]]:
    """Run statements while the tables are captured: what was told is what is there."""
    async with watched(f"sqlite:///{store}", f"sqlite:///{file}", tables, order="table", partitions=1) as found:
        await asyncio.to_thread(run, file, *statements, pragma=pragma)
        run(file, "CREATE TABLE IF NOT EXISTS other (id INTEGER)")
        await found.until(lambda _: all(copied(found.data(), table) == rows(file, table) for table in tables))
        return found.data()


REPLACED = [
    "INSERT OR REPLACE INTO t (name, mail, v) VALUES ('a', 'n', 10)",  # takes the place of another id
    "INSERT INTO t (name, mail, v) VALUES ('b', 'x', 11) ON CONFLICT (name) DO UPDATE SET v = excluded.v",
    "INSERT OR IGNORE INTO t (name, mail, v) VALUES ('c', 'y', 12)",
    "UPDATE OR REPLACE t SET name = 'b' WHERE name = 'c'",
    "REPLACE INTO t VALUES (1, 'd', 'z', 13)",
    "REPLACE INTO t (name, mail, v) VALUES ('d', 'n', 14)",  # of two others
    "DELETE FROM t WHERE name = 'e'",
    "INSERT INTO t (name, mail, v) VALUES ('e', 'again', 15)",
]


@pytest.mark.parametrize("pragma", ["", "PRAGMA recursive_triggers = ON"])
@pytest.mark.parametrize("others", ["", "before", "after"])
def test_rows_that_another_one_takes_the_place_of_are_gone(tmp_path: Path, pragma: str, others: str) -> None:
    """SQLite runs no trigger for them. The application's own triggers, made before or after, do not hide them."""
    file = tmp_path / "legacy.db"
    own = "CREATE TRIGGER own AFTER INSERT ON t BEGIN UPDATE t SET v = v + 1000 WHERE id = NEW.id; END"
    run(
        file, "CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT UNIQUE, mail TEXT, v INTEGER)",
        "CREATE UNIQUE INDEX mails ON t (mail COLLATE NOCASE)", *([own] if others == "before" else []),
        "INSERT INTO t (name, mail, v) VALUES ('a', 'k', 1), ('b', 'l', 2), ('c', 'M', 3), ('e', 'o', 4)",
    )  # fmt: skip
    changes = asyncio.run(
        equal(file, tmp_path / "w.db", ["t"], *([own] if others == "after" else []), *REPLACED, pragma=pragma)
    )
    assert [change["key"]["id"] for change in changes if change["op"] == "delete"] in ([1, 2, 1, 5, 4], [1, 2, 5, 1, 4])


def test_the_application_s_own_triggers(tmp_path: Path) -> None:
    """They change, remove and bring back rows within the statement that is noted."""
    file = tmp_path / "legacy.db"
    run(file, "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)")
    own = [
        "CREATE TRIGGER a AFTER INSERT ON t WHEN NEW.v = 'change' BEGIN UPDATE t SET v = 'changed' WHERE id = NEW.id; END",
        "CREATE TRIGGER b AFTER INSERT ON t WHEN NEW.v = 'remove' BEGIN DELETE FROM t WHERE id = NEW.id; END",
        "CREATE TRIGGER c AFTER DELETE ON t WHEN OLD.v = 'keep' BEGIN INSERT INTO t VALUES (OLD.id, 'kept'); END",
        "CREATE TRIGGER d AFTER INSERT ON t WHEN NEW.v = 'move' BEGIN UPDATE t SET id = id + 100 WHERE id = NEW.id; END",
        "CREATE TRIGGER e AFTER UPDATE ON t WHEN NEW.v = 'vanish' BEGIN DELETE FROM t WHERE id = NEW.id; END",
    ]
    work = [
        "INSERT INTO t VALUES (1, 'change'), (2, 'remove'), (3, 'keep'), (4, 'move'), (5, 'stay')",
        "DELETE FROM t WHERE id = 3", "UPDATE t SET id = 50, v = 'vanish' WHERE id = 5",
    ]  # fmt: skip
    asyncio.run(equal(file, tmp_path / "w.db", ["t"], *own, *work))


def test_keys_that_a_collation_takes_for_equal(tmp_path: Path) -> None:
    file = tmp_path / "legacy.db"
    run(
        file,
        "CREATE TABLE t (id TEXT COLLATE NOCASE PRIMARY KEY, v) WITHOUT ROWID",
        "INSERT INTO t VALUES ('a', 1), ('b', 2)",
    )
    asyncio.run(
        equal(
            file,
            tmp_path / "w.db",
            ["t"],
            "REPLACE INTO t VALUES ('A', 3)",
            "UPDATE t SET id = 'B' WHERE id = 'b'",
            "INSERT INTO t VALUES ('a', 9) ON CONFLICT DO UPDATE SET v = excluded.v",
        )
    )


def test_many_columns_with_odd_names_and_types(tmp_path: Path) -> None:
    """More than one call of json_object can take; and a column that comes while nobody looks."""
    file = tmp_path / "legacy.db"
    columns = ", ".join(f'"c{number}"' for number in range(130))
    run(
        file, f'CREATE TABLE "Straße \'x"" (1)" ({columns}, "Schlüssel ""ä\'" TEXT, n INTEGER, PRIMARY KEY ("Schlüssel ""ä\'", n)) '
        "WITHOUT ROWID",
    )  # fmt: skip
    table = "Straße 'x\" (1)"

    async def main() -> None:
        async with watched(f"sqlite:///{tmp_path}/w.db", f"sqlite:///{file}", [table], order="table") as found:
            run(
                file, f"INSERT INTO \"Straße 'x\"\" (1)\" ({columns}, \"Schlüssel \"\"ä'\", n) VALUES"
                f" ({', '.join(map(str, range(130)))}, 'k''1', 1)",
            )  # fmt: skip
            await found.count(1)
        run(
            file, "ALTER TABLE \"Straße 'x\"\" (1)\" ADD COLUMN late DEFAULT 'l'",
            "UPDATE \"Straße 'x\"\" (1)\" SET late = 'L', c129 = 'x'",
        )  # fmt: skip
        async with watched(
            f"sqlite:///{tmp_path}/w.db", f"sqlite:///{file}", [table], order="table", init=False
        ) as found:
            await found.until(lambda _: any("late" in change.get("after", {}) for change in found.data()))
            row = found.data()[-1]["after"]
        assert (row["c0"], row["c129"], row["late"], row["Schlüssel \"ä'"]) == (0, "x", "L", "k'1")

    asyncio.run(main())


def test_numbers_are_noted_as_they_are(tmp_path: Path) -> None:
    file = tmp_path / "legacy.db"
    run(file, "CREATE TABLE t (id INTEGER PRIMARY KEY, v REAL)")
    rng = random.Random(3)
    values = [value for value in (struct.unpack("d", rng.randbytes(8))[0] for _ in range(3000)) if value == value]
    values += [5e-324, -0.0, 1.7976931348623157e308, 0.1]

    async def main() -> None:
        async with watched(f"sqlite:///{tmp_path}/w.db", f"sqlite:///{file}", ["t"], order="table") as found:
            with contextlib.closing(sqlite3.connect(file)) as connection:
                connection.executemany("INSERT INTO t (v) VALUES (?)", [(value,) for value in values])
                connection.commit()
            await found.count(len(values))
        assert [change["after"]["v"] for change in found.data()] == values

    asyncio.run(main())


def test_captures_of_one_file_do_not_meet(tmp_path: Path) -> None:
    """Names of captures and tables that put together would be the same; one is dropped, the other goes on."""
    file = tmp_path / "legacy.db"
    run(file, "CREATE TABLE b_t (id INTEGER PRIMARY KEY)", "CREATE TABLE t (id INTEGER PRIMARY KEY)")

    async def main() -> None:
        app, first = declared(f"sqlite:///{tmp_path}/a.db", f"sqlite:///{file}", ["b_t"], name="a")
        async with app:
            await initialise(app.store, first, app.clock, Ids(app.clock))
            async with watched(f"sqlite:///{tmp_path}/b.db", f"sqlite:///{file}", ["t", "b_t"], name="a_b") as found:
                run(file, "INSERT INTO t VALUES (1)", "INSERT INTO b_t VALUES (2)")
                await found.count(2)
                assert (await first.source.health("a")).head == 2
                await drop(app.store, first)
                run(file, "INSERT INTO t VALUES (3)", "INSERT INTO b_t VALUES (4)")
                await found.count(4)
                assert (await report(found.app.store, found.capture)).trouble is None

    asyncio.run(main())


def test_names_that_become_the_same_in_a_source_are_refused(tmp_path: Path) -> None:
    app = App(f"sqlite:///{tmp_path}/w.db")
    app.capture(f"sqlite:///{tmp_path}/legacy.db", tables=["t"], name="a-b")
    with pytest.raises(ConfigurationError, match="a capture 'a-b' is there already"):
        app.capture(f"sqlite:///{tmp_path}/legacy.db", tables=["t"], name="a_b")


def test_a_table_that_lost_its_triggers_is_not_taken_up_again(tmp_path: Path) -> None:
    file = tmp_path / "legacy.db"
    run(file, "CREATE TABLE t (id INTEGER PRIMARY KEY)")

    async def main() -> None:
        app, capture = declared(f"sqlite:///{tmp_path}/w.db", f"sqlite:///{file}", ["t"])
        async with app:
            await initialise(app.store, capture, app.clock, Ids(app.clock))
            run(file, "DROP TABLE t", "CREATE TABLE t (id INTEGER PRIMARY KEY)", "INSERT INTO t VALUES (1)")
            trouble = (await report(app.store, capture)).trouble
            assert trouble is not None
            assert "table t has lost its triggers" in trouble
            with pytest.raises(ConfigurationError, match=r"table t has lost its triggers.*--anew"):
                await initialise(app.store, capture, app.clock, Ids(app.clock))
        async with watched(f"sqlite:///{tmp_path}/w.db", f"sqlite:///{file}", ["t"], anew=True) as found:
            await found.count(1)

    asyncio.run(main())


def test_a_program_that_keeps_the_write_lock_delays_nothing_but_what_it_writes(tmp_path: Path) -> None:
    """What is confirmed is removed when nobody else writes; reading goes on meanwhile."""
    file = tmp_path / "legacy.db"
    run(file, "PRAGMA journal_mode = WAL", "CREATE TABLE t (id INTEGER PRIMARY KEY)")

    async def main() -> None:
        async with watched(f"sqlite:///{tmp_path}/w.db", f"sqlite:///{file}", ["t"]) as found:
            session = found.app.captures.running[0].session
            with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as connection:
                for number in range(1, 4):
                    connection.execute("BEGIN IMMEDIATE")
                    connection.executemany("INSERT INTO t VALUES (?)", [(number * 10_000 + n,) for n in range(1500)])
                    connection.execute("COMMIT")
                    connection.execute("BEGIN IMMEDIATE")
                    began = time.monotonic()
                    await found.count(number * 1500)
                    await asyncio.sleep(0.3)  # time to try to remove
                    assert time.monotonic() - began < 9, "it waited for the lock"
                    connection.execute("ROLLBACK")
            assert found.app.captures.running[0].session is session, "it began again"
            await found.until(lambda _: not rows(file, "eventmill_changes_watch"))

    asyncio.run(main())
