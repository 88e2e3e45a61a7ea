"""Projections on the command line: listed, built anew, compared, swapped, dropped; and as of a moment."""

from __future__ import annotations

import json
import sqlite3
import sys
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cli_calls import Call, Start, parsed

from eventmill.cli.progress import line
from eventmill.patterns.projection.catch_up import Progress

LIBRARY = """
from eventmill import App, Event, Settings, Transaction, fixed, on

app = App("sqlite:///library.db", name="library", settings=Settings(lease=1.0))

class Lent(Event, name="book.lent", key="book"):
    book: str
    reader: str

@app.projection("loans", tables=["loans"])
class Loans:
    async def create(self, tx: Transaction) -> None:
        await tx.execute("CREATE TABLE {loans} (reader TEXT PRIMARY KEY, books INTEGER NOT NULL)")

    @on(Lent)
    async def lent(self, event: Lent, tx: Transaction) -> None:
        await tx.execute(
            "INSERT INTO {loans} VALUES (?, 1) ON CONFLICT (reader) DO UPDATE SET books = {loans}.books + 1",
            (event.reader,),
        )
"""


@pytest.fixture
def library(folder: Path) -> Path:
    (folder / "library.py").write_text(LIBRARY)
    return folder / "library.db"


def _lend(call: Call, *readers: str) -> None:
    lines = "".join(
        json.dumps({"book": f"b{number}", "reader": reader}) + "\n" for number, reader in enumerate(readers)
    )
    call("publish", "library:app", "book.lent", input=lines)


def _rows(file: Path) -> list[tuple[str, int]]:
    with closing(sqlite3.connect(file)) as connection:
        return connection.execute("SELECT reader, books FROM loans ORDER BY reader").fetchall()


def test_from_the_first_event_to_the_way_back(call: Call, start: Start, library: Path) -> None:
    call("projections", "library:app", code=2)  # there is no store yet, and this makes none
    assert not library.exists()
    _lend(call, "ada", "bob", "ada")
    (listed,) = parsed(call("projections", "library:app", "--json"))
    assert (listed["projection"], listed["live"], listed["events"], listed["started"]) == ("loans", True, 3, False)
    worker = start("library:app")
    worker.until(lambda: _rows(library) == [("ada", 2), ("bob", 1)])
    assert "generation 2 is built" in call("projections", "rebuild", "library:app", "loans", "--no-swap").output
    assert "the same" in call("projections", "diff", "library:app", "loans").output
    with closing(sqlite3.connect(library)) as connection, connection:
        connection.execute("UPDATE loans__2 SET books = 7 WHERE reader = 'ada'")
    told = call("projections", "diff", "library:app", "loans", code=1).output
    assert told == "loans: 1 row differs\n  reader='ada'  books: 2 → 7\n"
    (difference,) = parsed(call("projections", "diff", "library:app", "loans", "--json", code=1))
    assert difference["changes"] == [{"live": {"reader": "ada", "books": 2}, "built": {"reader": "ada", "books": 7}}]
    assert "readers see generation 2" in call("projections", "swap", "library:app", "loans").output
    assert _rows(library) == [("ada", 7), ("bob", 1)]
    assert "readers see generation 1" in call("projections", "swap", "library:app", "loans", "--back").output
    call("projections", "drop", "library:app", "loans", code=2)  # nobody can be asked here
    assert "dropped generation 2" in call("projections", "drop", "library:app", "loans", "--yes").output
    assert "readers see generation 3" in call("projections", "rebuild", "library:app", "loans").output
    _lend(call, "cleo")
    worker.until(lambda: _rows(library) == [("ada", 2), ("bob", 1), ("cleo", 1)])
    assert worker.end() == 0
    table = call("projections", "library:app").stdout.splitlines()
    assert table[0].split()[:3] == ["PROJECTION", "GENERATION", "STATE"]
    assert [row.split()[:3] for row in table[1:]] == [["loans", "1", "fed"], ["loans", "3", "live"]]


def test_a_name_that_is_not_there(call: Call, library: Path) -> None:
    for command in (["rebuild"], ["swap"], ["drop", "--yes"], ["diff"]):
        with pytest.raises(Exception, match="there are: loans"):
            call("projections", command[0], "library:app", "lones", *command[1:])


def test_a_changed_definition_is_told(call: Call, library: Path, folder: Path) -> None:
    _lend(call, "ada")
    call("projections", "rebuild", "library:app", "loans")
    (folder / "library.py").write_text(LIBRARY.replace('tables=["loans"]', 'tables=["loans"], version=2'))
    del sys.modules["library"]
    result = call("projections", "library:app")
    assert "1 (not this code's)" in result.stdout
    assert "loans was changed: eventmill projections rebuild library:app loans" in result.stderr


def test_as_of(call: Call, library: Path, folder: Path) -> None:
    _lend(call, "ada", "bob")
    time.sleep(0.02)
    at = datetime.now(UTC).isoformat()
    time.sleep(0.02)
    _lend(call, "ada")
    told = call("project", "library:app", "loans", "--at", at, "--into", "then.db").stdout
    assert "2 events folded into then.db" in told
    assert _rows(folder / "then.db") == [("ada", 1), ("bob", 1)]
    call("project", "library:app", "loans", "--into", "now.db")
    assert _rows(folder / "now.db") == [("ada", 2), ("bob", 1)]
    assert (
        "does not say its time zone"
        in call("project", "library:app", "loans", "--at", "2026-11-01T12:00", "--into", "x.db", code=2).stderr
    )
    assert (
        "is yet to come"
        in call("project", "library:app", "loans", "--at", "2999-01-01T00:00Z", "--into", "x.db", code=2).stderr
    )
    assert not (folder / "x.db").exists()


def test_a_bar_says_how_fast_and_how_long() -> None:
    assert (
        line(Progress(2, 1_500, 6_000, 500.0)) == f"{'█' * 6}{'░' * 18}  25%  1,500 of 6,000 events  500/s  9.0 s left"
    )
    assert line(Progress(2, 0, 6_000, 0.0)).endswith("  0%  0 of 6,000 events  0/s")
    assert line(Progress(2, 0, 0, 0.0)).startswith("█" * 24)
