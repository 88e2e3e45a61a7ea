"""Sagas whose process is killed at each point of theirs, or stopped past its lease: nothing is half done, and all ends."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest
import saga_program

import eventmill
from eventmill.patterns.saga.instance import decode
from eventmill.testing.crash import Crash, outlive
from stopping import freeze

PATH = str(Path(eventmill.__file__).parents[1])
SQL = {
    "states": "SELECT key, data FROM eventmill_documents WHERE key LIKE 'saga/shop.checkout/%'",
    "stock": "SELECT free, reserved FROM stock",
    "shipped": "SELECT order_id FROM shipped",
    "locks": "SELECT count(*) FROM eventmill_documents WHERE key LIKE 'lock/%'",
}
POINTS = (
    *saga_program.PROGRAM_POINTS,
    "transaction.begin", "handler.done", "retry.staged", "commit.before", "commit.after", "job.claimed",
)  # fmt: skip


def check(url: str, folder: Path) -> None:
    connection = psycopg.connect(url) if url.startswith("postgres") else sqlite3.connect(url.removeprefix("sqlite:///"))
    try:
        rows = {name: connection.execute(sql).fetchall() for name, sql in SQL.items()}
    finally:
        connection.close()
    states = {key.rpartition("/")[2]: _state(data) for key, data in rows["states"]}
    saga_program.check(
        folder, states, tuple(rows["stock"][0]), [order for (order,) in rows["shipped"]], rows["locks"][0][0]
    )


def _state(data: bytes) -> str:
    return str(decode(bytes(data)).state)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("nth", [1, 5])
@pytest.mark.parametrize("point", POINTS)
def test_sagas_survive_on_sqlite(tmp_path: Path, point: str, nth: int) -> None:
    survive(f"sqlite:///{tmp_path}/shop.db", tmp_path, point, nth)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("point", ["saga.charged", "saga.refunded", "saga.reserved", "commit.before", "commit.after"])
def test_sagas_survive_on_postgres(postgres_url: str, tmp_path: Path, point: str) -> None:
    survive(postgres_url, tmp_path, point, 3)


def survive(url: str, folder: Path, point: str, nth: int) -> None:
    report = outlive(
        [sys.executable, saga_program.__file__, url, str(folder)],
        Crash(point, nth),
        folder,
        times=2 if nth == 1 else 1,
        environment={"PYTHONPATH": PATH},
    )
    if point != "retry.staged":  # what fails is written down with the saga: only conflicts go there
        assert report.kills >= 1
    check(url, folder)


@pytest.mark.timeout(240)
def test_a_worker_that_was_stopped_past_its_lease_changes_nothing(tmp_path: Path) -> None:
    """It is stopped in the middle, another takes over and finishes; woken, it finds all done."""
    url = f"sqlite:///{tmp_path}/shop.db"
    environment = {**os.environ, "PYTHONPATH": PATH}
    with (tmp_path / "output.txt").open("wb") as log:
        first = subprocess.Popen(
            [sys.executable, saga_program.__file__, url, str(tmp_path), "steady"],
            env={**environment, "EVENTMILL_CRASH_PASSED": str(tmp_path / "passed.txt")}, stderr=log,
        )  # fmt: skip
        try:
            passed = tmp_path / "passed.txt"
            until = time.monotonic() + 60
            while not (passed.exists() and "saga.charged" in passed.read_text()):
                assert first.poll() is None
                assert time.monotonic() < until
                time.sleep(0.001)
            freeze(first, tmp_path / "shop.db")
            second = subprocess.run(
                [sys.executable, saga_program.__file__, url, str(tmp_path)],
                env=environment, timeout=100, check=False, stderr=log,
            )  # fmt: skip
            assert second.returncode == 0, (tmp_path / "output.txt").read_text()
            check(url, tmp_path)
            first.send_signal(signal.SIGCONT)
            time.sleep(1.5)
            assert first.poll() is None
            check(url, tmp_path)
            first.terminate()
        finally:
            first.kill()
            first.wait()
