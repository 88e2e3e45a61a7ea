"""What a mirror made of its source, looked at from outside."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import cdc_mirror

import eventmill

PATH = os.pathsep.join([str(Path(eventmill.__file__).parents[1]), str(Path(__file__).parent)])


class Copies:
    """The service's own database, looked at from outside."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        with contextlib.closing(sqlite3.connect(self._file, timeout=30)) as connection:
            connection.execute("PRAGMA wal_autocheckpoint = 0")
            try:
                return connection.execute(sql).fetchall()
            except sqlite3.OperationalError as error:
                if "no such table" in str(error):  # no process has lived long enough yet to make it
                    return []
                raise

    def rows(self) -> dict[tuple[str, str], dict[str, Any]]:
        return {(table, key): json.loads(data) for table, key, data in self.query("SELECT tab, id, data FROM copies")}

    def told(self) -> list[tuple[str, str, str, dict[str, Any]]]:
        """Id, type and key of every change in the log, in its order, with its data."""
        return [
            (identity, kind, key, json.loads(data))
            for identity, kind, key, data in self.query(
                "SELECT id, type, key, CAST(data AS TEXT) FROM eventmill_log WHERE type LIKE 'mirror.%' ORDER BY position"
            )
        ]


def start(store: str, source: str, output: Path) -> subprocess.Popen[bytes]:
    with output.open("ab") as log:
        return subprocess.Popen(
            [sys.executable, cdc_mirror.__file__, store, source],
            stdout=log, stderr=log, env={**os.environ, "PYTHONPATH": PATH},
        )  # fmt: skip


def differences(copies: dict[Any, Any], source: dict[Any, Any]) -> list[Any]:
    return [(key, copies.get(key), source.get(key)) for key in {*copies, *source} if copies.get(key) != source.get(key)]


def in_order(told: list[tuple[str, str, str, dict[str, Any]]]) -> None:
    """Each transaction's changes are numbered without a gap, and the log has them in commit order."""
    last = (0, 0)
    for identity, kind, _, change in told:
        if change.get("number") is None:
            continue
        place = (change["position"], change["number"])
        assert place >= last, (identity, kind, place, last)
        if place[0] == last[0]:
            assert place[1] - last[1] <= 1, (identity, place, last)
        else:
            assert place[1] == 1, (identity, place, last)
        last = place
