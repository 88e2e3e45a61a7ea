"""Every point at which eventmill may be killed, and what is true afterwards."""

from __future__ import annotations

import ast
import json
import shutil
import sqlite3
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import circuit
import pytest

import eventmill
from eventmill.core.errors import ConfigurationError
from eventmill.testing.crash import CAPTURE_POINTS, POINTS, REBUILDING, Crash, Report, outlive

AT_ONCE = 6

IN_THE_MIDDLE = [Crash("checkpoint.begin", 1, 0.0002), Crash("checkpoint.begin", 2, 0.001)]
"""The process goes on into the checkpoint, and dies somewhere in it."""

MATRIX = [
    *(Crash(point, nth) for point in (*POINTS, *circuit.PROGRAM_POINTS) for nth in (1, 2, 7)),
    *IN_THE_MIDDLE,
]


class Matrix:
    """All cells, running a few at a time from the first one asked for."""

    def __init__(self, folder: Path, cells: Sequence[Crash] = MATRIX, broker: str | None = None) -> None:
        self.folder = folder
        self._broker = broker
        self._pool = ThreadPoolExecutor(AT_ONCE)
        self._cells: dict[Crash, Future[Report]] = {cell: self._pool.submit(self._live, cell) for cell in cells}

    def _live(self, cell: Crash) -> Report:
        name = str(cell).replace(":", "-")
        place = self.folder / name
        place.mkdir()
        command = [sys.executable, circuit.__file__, str(place)]
        # The first crash of each kind also hits the recovery from it.
        times = 2 if cell.nth == 1 else 1
        report = outlive(
            command,
            cell,
            place,
            times=times,
            environment={"PYTHONPATH": PATH, circuit.BROKER: f"{self._broker}?prefix={name}" if self._broker else ""},
            after_kill=lambda: row_is_message(place),
        )
        settled(place)
        return report

    def __getitem__(self, cell: Crash) -> Report:
        return self._cells[cell].result()

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


PATH = str(Path(eventmill.__file__).parents[1])


@pytest.fixture(scope="module")
def matrix(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Matrix]:
    matrix = Matrix(tmp_path_factory.mktemp("matrix"))
    yield matrix
    matrix.close()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("cell", MATRIX, ids=str)
def test_everything_once_and_in_order_whenever_it_is_killed(matrix: Matrix, cell: Crash) -> None:
    report = matrix[cell]
    if cell.nth == 1 and not cell.delay:
        assert report.kills >= 1
    assert report.lives == report.kills + 1


@pytest.mark.timeout(300)
def test_every_point_was_hit(matrix: Matrix) -> None:
    hit = {cell.point for cell in MATRIX if matrix[cell].kills}
    assert hit == {*POINTS, *circuit.PROGRAM_POINTS}


def test_every_point_in_the_sources_is_declared() -> None:
    found = set()
    for path in Path(eventmill.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "point":
                (name,) = node.args
                assert isinstance(name, ast.Constant), f"{path}:{node.lineno}: a point's name is a literal"
                found.add(name.value)
    assert found == {*POINTS, *REBUILDING, *CAPTURE_POINTS}


@pytest.mark.parametrize(
    "text", ["", ":1", "commit.after:0", "commit.after:x", "commit.after:1:-1", "commit.after:1:nan"]
)
def test_a_crash_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError):
        Crash.parse(text)


def test_a_crash_is_read_as_it_is_written() -> None:
    for cell in MATRIX:
        assert Crash.parse(str(cell)) == cell
    assert Crash.parse("commit.after") == Crash("commit.after", 1)


# What is true


def row_is_message(place: Path) -> None:
    """At any moment: an order's row is there exactly if its message is. Looked at in a copy, to leave the WAL alone."""
    if not (place / "shop.db").exists():
        return
    copy = place / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    copy.mkdir()
    for file in place.glob("shop.db*"):
        if not file.name.endswith("-shm"):
            shutil.copy(file, copy)
    connection = sqlite3.connect(copy / "shop.db")
    try:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema")}
        if tables >= {"orders", "eventmill_log"}:
            assert orders(connection) == sorted(published(connection, "circuit.placed"))
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    finally:
        connection.close()


def settled(place: Path) -> None:
    """In the end: every effect once, in order per key, nothing waiting, nothing dead, nobody holding anything."""
    there = [name for name in ("shop", "books", "broker") if (place / f"{name}.db").exists()]
    connections = [sqlite3.connect(place / f"{name}.db") for name in there]
    try:
        shop, books = connections[:2]
        everything = list(range(circuit.ORDERS))
        assert orders(shop) == everything
        assert sorted(published(shop, "circuit.placed")) == everything
        assert sorted(published(books, "circuit.booked")) == everything
        for connection, table in ((shop, "confirmed"), (books, "ledger"), (books, "checked")):
            numbers = [number for (number,) in connection.execute(f"SELECT number FROM {table} ORDER BY line")]
            assert sorted(numbers) == everything, f"{table}: each once, {numbers}"
            for customer in range(circuit.CUSTOMERS):
                mine = [number for number in numbers if number % circuit.CUSTOMERS == customer]
                assert mine == sorted(mine), f"{table}: in order for c{customer}, {mine}"
        labels = shop.execute("SELECT number FROM labelled ORDER BY number").fetchall()
        assert labels == [(number,) for number in everything]
        fires = [fire for (fire,) in shop.execute("SELECT fire FROM counted")]
        assert len(fires) == len(set(fires)), "each fire once"
        for connection in connections:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            # A schedule may have fired when all was done.
            left = "SELECT count(*) FROM eventmill_jobs WHERE instr(message, CAST('count_labels' AS BLOB)) = 0"
            assert connection.execute(left).fetchone() == (0,)
            holders = connection.execute(
                "SELECT grp, member FROM eventmill_cursors WHERE member IS NOT NULL"
            ).fetchall()
            assert not holders, holders
            sequences(connection)
    finally:
        for connection in connections:
            connection.close()


def orders(connection: sqlite3.Connection) -> list[int]:
    return [number for (number,) in connection.execute("SELECT number FROM orders ORDER BY number")]


def published(connection: sqlite3.Connection, kind: str) -> list[int]:
    rows = connection.execute("SELECT data FROM eventmill_log WHERE type = ? ORDER BY position", (kind,))
    bodies: list[Mapping[str, int]] = [json.loads(data) for (data,) in rows]
    return [body["number"] for body in bodies]


def sequences(connection: sqlite3.Connection) -> None:
    """A key's messages are counted 1, 2, 3, … without a gap; a repeat at the broker counts on."""
    rows = connection.execute("SELECT topic, key, sequence FROM eventmill_log ORDER BY position").fetchall()
    counts: dict[tuple[str, str], int] = {}
    for topic, key, sequence in rows:
        counts[topic, key] = counts.get((topic, key), 0) + 1
        assert sequence == counts[topic, key], (topic, key, sequence)
