"""What is captured from an SQLite file by its triggers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import cdc_mirror
import pytest
from cdc_copies import Copies, differences, in_order, start
from cdc_watching import declared, watched

from eventmill import ConfigurationError
from eventmill.core.clock import Ids
from eventmill.patterns.cdc.setup import drop, initialise

TABLE = "CREATE TABLE things (id INTEGER PRIMARY KEY, name TEXT, data BLOB, score REAL)"


def run(file: Path, *statements: str) -> None:
    with contextlib.closing(sqlite3.connect(file, timeout=20, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def url(file: Path) -> str:
    return f"sqlite:///{file}"


def test_each_statement_is_told_with_its_images(tmp_path: Path) -> None:
    file = tmp_path / "legacy.db"
    run(file, TABLE, "INSERT INTO things VALUES (1, 'one', x'00ff', 0.1)")

    async def main() -> None:
        async with watched(url(tmp_path / "w.db"), url(file), ["things"], order="table") as found:
            await found.count(1)
            run(
                file,
                "INSERT INTO things VALUES (2, 'zwei ''\"', NULL, 1e300), (3, NULL, 'text in a blob', 0.1)",
                "UPDATE things SET name = 'ONE' WHERE id = 1",
                "UPDATE things SET id = 30 WHERE id = 3",
                "DELETE FROM things",
            )
            await found.count(9)
            told = [{name: change.get(name) for name in ("op", "key", "before", "after")} for change in found.data()]
            one = {"id": 1, "name": "one", "data": "AP8=", "score": 0.1}
            two = {"id": 2, "name": "zwei '\"", "data": None, "score": 1e300}
            three = {"id": 3, "name": None, "data": "text in a blob", "score": 0.1}
            thirty = {**three, "id": 30}
            assert told == [
                {"op": "snapshot", "key": {"id": 1}, "before": None, "after": one},
                {"op": "insert", "key": {"id": 2}, "before": None, "after": two},
                {"op": "insert", "key": {"id": 3}, "before": None, "after": three},
                {"op": "update", "key": {"id": 1}, "before": one, "after": {**one, "name": "ONE"}},
                {"op": "delete", "key": {"id": 3}, "before": three, "after": None},
                {"op": "insert", "key": {"id": 30}, "before": None, "after": thirty},
                {"op": "delete", "key": {"id": 1}, "before": {**one, "name": "ONE"}, "after": None},
                {"op": "delete", "key": {"id": 2}, "before": two, "after": None},
                {"op": "delete", "key": {"id": 30}, "before": thirty, "after": None},
            ]

    asyncio.run(main())


def test_columns_come_and_are_renamed(tmp_path: Path) -> None:
    """Whatever is written before the new column is noticed, its value is told."""
    file = tmp_path / "legacy.db"
    run(file, TABLE, "INSERT INTO things (id, name) VALUES (1, 'one')")

    async def main() -> None:
        async with watched(url(tmp_path / "w.db"), url(file), ["things"], order="table") as found:
            await found.count(1)
            with contextlib.closing(sqlite3.connect(file, timeout=20)) as connection:
                connection.execute("BEGIN")
                connection.execute("ALTER TABLE things ADD COLUMN more INTEGER DEFAULT 7")
                connection.execute("INSERT INTO things (id, more) VALUES (2, 8)")
                connection.execute("ALTER TABLE things RENAME COLUMN name TO label")
                connection.execute("UPDATE things SET label = 'ONE' WHERE id = 1")
                connection.commit()
            await found.until(lambda seen: sum(b'"more"' in message.data for message in seen) >= 3)
        state: dict[int, Any] = {}
        for change in found.data("watch.things"):
            state[change["key"]["id"]] = change["after"]
        assert state[1] == {"id": 1, "label": "ONE", "data": None, "score": None, "more": 7}
        assert state[2] == {"id": 2, "label": None, "data": None, "score": None, "more": 8}
        assert len(found.data("watch.things.schema")) == 1

    asyncio.run(main())


def test_a_table_that_is_made_anew_stops_it(tmp_path: Path) -> None:
    file = tmp_path / "legacy.db"
    run(file, TABLE)

    async def main() -> None:
        async with watched(url(tmp_path / "w.db"), url(file), ["things"]) as found:
            run(file, "INSERT INTO things (id) VALUES (1)")
            await found.count(1)
            run(file, "ALTER TABLE things RENAME TO former", TABLE, "DROP TABLE former")
            with pytest.raises(ConfigurationError, match="table things has lost its triggers"):
                await found.count(99)

    asyncio.run(main())


def test_what_cannot_be_captured_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "legacy.db"
    run(file, TABLE, "CREATE TABLE keyless (a)", "CREATE VIEW seen AS SELECT 1")

    async def refused(table: str, source: Path = file) -> str:
        app, capture = declared(url(tmp_path / "w.db"), url(source), [table])
        async with app:
            with pytest.raises(ConfigurationError) as error:
                await initialise(app.store, capture, app.clock, Ids(app.clock))
        return str(error.value)

    async def main() -> None:
        assert "does not exist" in await refused("nowhere")
        assert "no primary key" in await refused("keyless")
        assert "no ordinary table" in await refused("seen")
        assert "no such file" in await refused("things", tmp_path / "absent.db")
        assert not (tmp_path / "absent.db").exists()

    asyncio.run(main())


def test_dropping_leaves_nothing_in_the_file(tmp_path: Path) -> None:
    file = tmp_path / "legacy.db"
    run(file, TABLE)
    with contextlib.closing(sqlite3.connect(file)) as connection:
        before = connection.execute("SELECT name FROM sqlite_master").fetchall()

    async def main() -> None:
        async with watched(url(tmp_path / "w.db"), url(file), ["things"]) as found:
            run(file, "INSERT INTO things (id) VALUES (1)")
            await found.count(1)
        app, capture = declared(url(tmp_path / "w.db"), url(file), ["things"])
        async with app:
            await drop(app.store, capture)

    asyncio.run(main())
    with contextlib.closing(sqlite3.connect(file)) as connection:
        left = connection.execute("SELECT name FROM sqlite_master WHERE name <> 'sqlite_sequence'").fetchall()
    assert left == before


def test_a_backup_that_was_restored_is_noticed(tmp_path: Path) -> None:
    file = tmp_path / "legacy.db"
    run(file, TABLE)

    async def main() -> None:
        async with watched(url(tmp_path / "w.db"), url(file), ["things"]) as found:
            with (
                contextlib.closing(sqlite3.connect(file)) as connection,
                contextlib.closing(sqlite3.connect(tmp_path / "backup.db")) as backup,
            ):
                connection.backup(backup)
            run(file, "INSERT INTO things (id) VALUES (1), (2)")
            await found.count(2)
        (tmp_path / "backup.db").replace(file)
        app, _ = declared(url(tmp_path / "w.db"), url(file), ["things"])
        async with app:
            with pytest.raises(ConfigurationError, match="the file is behind what was captured from it"):
                await app.run()

    asyncio.run(main())


@pytest.mark.timeout(240)
def test_the_copy_is_the_source_however_often_it_is_killed(tmp_path: Path) -> None:
    seed = 11
    rng = random.Random(seed)
    file = tmp_path / "legacy.db"
    run(file, "PRAGMA journal_mode = WAL")
    for table in cdc_mirror.TABLES:
        run(
            file,
            f"CREATE TABLE {table} (a INTEGER, b TEXT, value REAL, note TEXT, PRIMARY KEY (a, b))",
            f"INSERT INTO {table} WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2500)"
            f" SELECT i, 'k' || (i % 3), i / 7.0, 'note' FROM n",
        )
    store = url(tmp_path / "mirror.db")

    async def init() -> None:
        app = cdc_mirror.App(store, name="mirror", settings=cdc_mirror.SETTINGS)
        capture = app.capture(url(file), tables=cdc_mirror.TABLES, name="mirror")
        async with app:
            await initialise(app.store, capture, app.clock, Ids(app.clock))

    asyncio.run(init())
    stop = threading.Event()
    failures: list[BaseException] = []

    def work() -> None:
        own = random.Random(seed + 1)
        try:
            with contextlib.closing(sqlite3.connect(file, timeout=30, isolation_level=None)) as connection:
                while not stop.is_set():
                    connection.execute("BEGIN IMMEDIATE")
                    for _ in range(own.choice((1, 2, 10))):
                        change(connection, own)
                    connection.execute("ROLLBACK" if own.random() < 0.1 else "COMMIT")
                    time.sleep(own.random() * 0.01)
        except BaseException as error:
            failures.append(error)

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    output = tmp_path / "output.txt"
    process = start(store, url(file), output)
    for _ in range(int(os.environ.get("EVENTMILL_CDC_KILLS", "8"))):
        time.sleep(0.7 + rng.random() * 0.8)
        assert process.poll() is None, output.read_text()[-3000:]
        process.kill()
        process.wait()
        process = start(store, url(file), output)
    stop.set()
    worker.join(30)
    assert not failures, failures
    copies = Copies(tmp_path / "mirror.db")
    source = {}
    with contextlib.closing(sqlite3.connect(file)) as connection:
        for table in cdc_mirror.TABLES:
            for a, b, value, note in connection.execute(f"SELECT a, b, value, note FROM {table}"):
                row = {"a": a, "b": b, "value": value, "note": note}
                source[table, json.dumps({"a": a, "b": b}, sort_keys=True)] = row
    try:
        deadline = time.monotonic() + 90
        while found := differences(copies.rows(), source):
            assert time.monotonic() < deadline, (len(found), found[:3], output.read_text()[-3000:])
            time.sleep(0.2)
    finally:
        process.terminate()
        code = process.wait(30)
    assert code == 0
    told = copies.told()
    assert [identity for identity, count in Counter(identity for identity, *_ in told).items() if count > 1] == []
    in_order(told)


def change(connection: sqlite3.Connection, rng: random.Random) -> None:
    table = rng.choice(cdc_mirror.TABLES)
    some = rng.randrange(1, 2_800)
    statement = rng.choice(
        (
            f"INSERT OR IGNORE INTO {table} VALUES ({some}, 'new', {rng.random()!r}, 'n')",
            f"UPDATE {table} SET value = value / 3, note = note || '.' WHERE a BETWEEN {some} AND {some + 3}",
            f"UPDATE OR IGNORE {table} SET a = a + 3000 WHERE a = {some}",
            f"DELETE FROM {table} WHERE a = {some}",
            f"INSERT OR REPLACE INTO {table} VALUES ({some}, 'k1', 1.5, NULL)",
        )
    )
    connection.execute(statement)


def test_the_command_line_begins_shows_and_ends_it(tmp_path: Path) -> None:
    file = tmp_path / "legacy.db"
    run(file, TABLE, "INSERT INTO things (id) VALUES (1)")
    (tmp_path / "legacyshop.py").write_text(
        "from eventmill import App\n"
        f"app = App('sqlite:///{tmp_path}/store.db')\n"
        f"legacy = app.capture('sqlite:///{file}', tables=['things'], name='shopfloor')\n"
    )

    def call(*arguments: str, code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "eventmill", "cdc", *arguments],
            cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    assert "was not initialised" in call("run", "legacyshop:app", code=78)
    assert "things, key id" in call("init", "legacyshop:app")
    (shown,) = json.loads(call("status", "legacyshop:app", "--json"))
    assert shown["tables"]["things"]["snapshot"] == "waiting"
    assert shown["trouble"] is None
    said = tmp_path / "said.txt"
    with said.open("wb") as output:
        running = subprocess.Popen(
            [sys.executable, "-m", "eventmill", "cdc", "run", "legacyshop:app"], cwd=tmp_path, stderr=output
        )
    try:
        deadline = time.monotonic() + 30
        while json.loads(call("status", "legacyshop:app", "--json"))[0]["tables"]["things"]["snapshot"] != "done":
            assert time.monotonic() < deadline
    finally:
        running.terminate()
        assert running.wait(30) == 0
    assert "things: before images are whole rows" in said.read_text()
    told = call("status", "legacyshop:app")
    assert "all is well" in told
    assert "kept for it 0 bytes, behind 0 changes" in told
    assert "add --yes" in call("drop", "legacyshop:app", code=2)
    call("drop", "legacyshop:app", "--yes")
    assert "not initialised" in call("status", "legacyshop:app", code=1)
