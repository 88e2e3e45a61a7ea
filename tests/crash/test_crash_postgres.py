"""A process that is killed at each point, on PostgreSQL, and what is true afterwards."""

from __future__ import annotations

import sys
from pathlib import Path

import lone_store
import psycopg
import pytest

import eventmill
from eventmill.testing.crash import Crash, outlive

POINTS = (
    "transaction.begin", "commit.before", "commit.after", "lease.taken", "lease.release", "job.claimed",
    "handler.done", "retry.staged", "dead.staged", "parked.staged",
)  # fmt: skip
"""Those that this program passes: it has one store and no broker."""

PATH = str(Path(eventmill.__file__).parents[1])


@pytest.mark.timeout(180)
@pytest.mark.parametrize("nth", [1, 5])
@pytest.mark.parametrize("point", POINTS)
def test_everything_once_and_in_order_whenever_it_is_killed(
    postgres_url: str, tmp_path: Path, point: str, nth: int
) -> None:
    def row_is_message() -> None:
        with psycopg.connect(postgres_url) as connection:
            ((there,),) = connection.execute("SELECT to_regclass('orders') IS NOT NULL").fetchall()
            if there:
                ((orders, messages),) = connection.execute(
                    "SELECT (SELECT count(*) FROM orders), (SELECT count(*) FROM eventmill_log)"
                ).fetchall()
                assert orders == messages

    report = outlive(
        [sys.executable, lone_store.__file__, postgres_url],
        Crash(point, nth),
        tmp_path,
        environment={"PYTHONPATH": PATH},
        after_kill=row_is_message,
    )
    if nth == 1:
        assert report.kills == 1
    with psycopg.connect(postgres_url) as connection:
        for table in ("posted", "checked"):
            rows = connection.execute(f"SELECT number FROM {table} ORDER BY line").fetchall()
            numbers = [number for (number,) in rows]
            assert sorted(numbers) == list(range(lone_store.ORDERS)), f"{table}: each once, {numbers}"
            for customer in range(lone_store.CUSTOMERS):
                mine = [number for number in numbers if number % lone_store.CUSTOMERS == customer]
                assert mine == sorted(mine), f"{table}: in order for c{customer}, {mine}"
        counts = connection.execute(
            "SELECT (SELECT count(*) FROM eventmill_log), (SELECT count(*) FROM eventmill_jobs)"
        ).fetchone()
        assert counts == (lone_store.ORDERS, 0)
