"""Findings, each with its remedy."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from cli_calls import Call, parsed
from cli_seeds import dead, group, inside, log, message

from eventmill.backends.sqlite.backend import SqliteBackend
from eventmill.cli import examination
from eventmill.cli.examination import file_findings, sqlite_version
from eventmill.core.message import Partition

URL = "sqlite:///bakery.db"


def found(call: Call, target: str = URL, *, code: int = 0) -> dict[str, Any]:
    result = parsed(call("doctor", target, "--json", code=code))
    assert result["ok"] is (code == 0)
    for each in result["findings"]:
        assert (each["level"] == "ok") is (each["remedy"] is None)
    return {each["about"]: each for each in result["findings"]}


@pytest.mark.parametrize(
    ("version", "level"),
    [
        ((3, 6, 23), "ok"),
        ((3, 7, 0), "warning"),
        ((3, 40, 1), "warning"),
        ((3, 44, 5), "warning"),
        ((3, 44, 6), "ok"),
        ((3, 45, 0), "warning"),
        ((3, 50, 6), "warning"),
        ((3, 50, 7), "ok"),
        ((3, 51, 2), "warning"),
        ((3, 51, 3), "ok"),
    ],
)
def test_sqlite_versions(version: tuple[int, int, int], level: str) -> None:
    assert sqlite_version(version).level == level


def test_a_sound_store(call: Call, folder: Path) -> None:
    log(folder / "bakery.db", message(1))
    (folder / "bakery.db").chmod(0o600)
    findings = found(call, "bakery:app")
    findings.pop("sqlite")
    findings.pop("space")
    assert {about: each["level"] for about, each in findings.items()} == dict.fromkeys(findings, "ok")
    assert set(findings) == {"permissions", "wal", "integrity", "journal", "schema", "dead", "types"}
    assert "remedy" not in call("doctor", URL).stdout.split("store ")[1].replace("a copy or VACUUM", "")


@pytest.mark.parametrize(("mode", "word"), [(0o666, "chmod go-w"), (0o644, "chmod o-r")])
def test_open_permissions(call: Call, folder: Path, mode: int, word: str) -> None:
    log(folder / "bakery.db", message(1))
    (folder / "bakery.db").chmod(mode)
    assert word in found(call)["permissions"]["remedy"]


def test_no_right_to_write(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log(folder / "bakery.db", message(1))
    monkeypatch.setattr(os, "access", lambda *_: False)
    finding = next(file_findings(folder / "bakery.db"))
    assert (finding.level, finding.about) == ("error", "permissions")


def test_little_space_and_a_large_wal(call: Call, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log(folder / "bakery.db", message(1))
    monkeypatch.setattr(examination, "LARGE_WAL", -1)
    monkeypatch.setattr(examination, "SCARCE", 1 << 62)
    findings = found(call, code=1)
    assert findings["wal"]["level"] == "warning"
    assert findings["space"]["level"] == "error"


def test_a_damaged_file(call: Call, folder: Path) -> None:
    path = folder / "bakery.db"
    log(path, *(message(number, f"k{number}", data=b"1" * 500) for number in range(1, 2_000)))
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(b"\xaa" * 40_000)
    assert found(call, code=1)["integrity"]["level"] == "error"


def test_another_journal_mode(call: Call, folder: Path) -> None:
    log(folder / "bakery.db", message(1))
    connection = sqlite3.connect(folder / "bakery.db")
    assert connection.execute("PRAGMA journal_mode = DELETE").fetchone() == ("delete",)
    connection.close()
    assert "journal_mode is delete" in found(call)["journal"]["text"]


def test_a_file_of_somebody_else_and_one_of_the_future(call: Call, folder: Path) -> None:
    connection = sqlite3.connect(folder / "bakery.db")
    connection.execute("CREATE TABLE mine (x)")
    connection.close()
    assert "no eventmill schema" in found(call, code=1)["schema"]["text"]
    (folder / "bakery.db").unlink()
    log(folder / "bakery.db", message(1))
    connection = sqlite3.connect(folder / "bakery.db", isolation_level=None)
    connection.execute("INSERT INTO eventmill_schema VALUES (999, 'x', 0)")
    connection.close()
    assert "999" in found(call, code=1)["schema"]["text"]


def test_dead_letters_and_deserted_groups(call: Call, folder: Path) -> None:
    path = folder / "bakery.db"
    log(path, message(1))
    group(path, "bakery.bake")
    group(path, "bakery.gone")
    dead(path, [message(1), message(2)])
    findings = found(call, "bakery")
    assert findings["dead"]["text"] == "bakery.bake: 1 dead letter, 1 parked behind"
    assert findings["group"]["text"].startswith("bakery.gone has no members, and holds 1 message back")
    # By URL nobody knows which groups there should be, except that others are running.
    assert "group" not in found(call)

    async def join(store: SqliteBackend) -> None:
        await store.balance("bakery.bake", "one/1", [Partition("bread", 0)], 60.0)

    inside(path, join)
    assert found(call)["group"]["text"].startswith("bakery.gone has no members")


def test_events_that_the_app_cannot_decode(call: Call, folder: Path) -> None:
    log(folder / "bakery.db", message(1), message(2, data=b'{"order": 7}'), message(3, type_="bread.eaten"))
    finding = found(call, "bakery", code=1)["types"]
    text = call("doctor", "bakery", code=1).stdout
    assert "bread.ordered (2 messages), asked for by bakery.bake" in text
    assert "bread.eaten" not in text
    assert finding["remedy"] is not None or finding["level"] == "ok"
