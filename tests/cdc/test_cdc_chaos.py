"""Random changes during the snapshot and after it, and a capturing process that is killed again and again."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import cdc_mirror
import pytest
from cdc_legacy import Legacy

import eventmill

PATH = os.pathsep.join([str(Path(eventmill.__file__).parents[1]), str(Path(__file__).parent)])
KILLS = int(os.environ.get("EVENTMILL_CDC_KILLS", "15"))


class Copies:
    """The service's own database, looked at from outside."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        with contextlib.closing(sqlite3.connect(self._file, timeout=30)) as connection:
            connection.execute("PRAGMA wal_autocheckpoint = 0")
            return connection.execute(sql).fetchall()

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


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", [1])
def test_the_copy_is_the_source_row_by_row_however_often_it_is_killed(
    postgres_url: str, tmp_path: Path, seed: int
) -> None:
    seed = int(os.environ.get("EVENTMILL_CDC_SEED", seed))
    rng = random.Random(seed)
    legacy = Legacy(postgres_url, seed)
    legacy.create(rows=6_000)
    store = f"sqlite:///{tmp_path}/mirror.db"
    asyncio.run(cdc_mirror.init(store, postgres_url))
    output = tmp_path / "output.txt"
    copies = Copies(tmp_path / "mirror.db")
    with legacy.busy() as transactions:
        process = start(store, postgres_url, output)
        try:
            for _ in range(KILLS):
                time.sleep(0.6 + rng.random() * rng.choice((0.3, 1.0)))
                assert process.poll() is None, output.read_text()[-4000:]
                process.kill()
                process.wait()
                process = start(store, postgres_url, output)
            deadline = time.monotonic() + 60
            while copies.query("SELECT count(*) FROM copies") == [(0,)] and time.monotonic() < deadline:
                time.sleep(0.1)
            time.sleep(1)
        except BaseException:
            process.kill()
            process.wait()
            raise
    try:
        source = legacy.rows()
        deadline = time.monotonic() + 120
        while (found := differences(copies.rows(), source)) and time.monotonic() < deadline:
            assert process.poll() is None, output.read_text()[-4000:]
            time.sleep(0.2)
        assert not found, (len(found), found[:5], output.read_text()[-3000:])
    finally:
        process.terminate()
        code = process.wait(30)
    assert code == 0
    assert transactions[0] > 100
    told = copies.told()
    assert [identity for identity, count in Counter(identity for identity, *_ in told).items() if count > 1] == []
    in_order(told)
    assert copies.query("SELECT count(*) FROM eventmill_jobs") == [(0,)]


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
