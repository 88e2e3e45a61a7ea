"""A joined view of captured tables: it is the SQL join on the source, whatever arrived in whichever order."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cdc_view
import psycopg
import pytest
from cdc_copies import PATH
from cdc_legacy import Legacy

import rooms
from eventmill.patterns.cdc.change import Change

Query = Callable[[str], list[tuple[Any, ...]]]
KILLS = int(os.environ.get("EVENTMILL_CDC_KILLS", "6"))


def joined(legacy: Legacy) -> list[tuple[Any, ...]]:
    select = cdc_view.SELECT.format(orders="orders", customers="customers", lines="lines")
    with legacy.connect() as connection:
        rows = connection.execute(select + cdc_view.GROUP).fetchall()  # type: ignore[arg-type]
    return sorted((str(row[0]), *row[1:4], None if row[4] is None else str(row[4]), *row[5:]) for row in rows)


def shown(query: Query) -> list[tuple[Any, ...]]:
    return sorted(query("SELECT order_id, customer_id, total, customer, balance, lines, quantity FROM customer_orders"))


def start(store: str, source: str, output: Path) -> subprocess.Popen[bytes]:
    with output.open("ab") as log:
        return subprocess.Popen(
            [sys.executable, cdc_view.__file__, store, source],
            stdout=log, stderr=log, env={**os.environ, "PYTHONPATH": PATH},
        )  # fmt: skip


def in_file(file: Path) -> Query:
    def query(sql: str) -> list[tuple[Any, ...]]:
        with contextlib.closing(sqlite3.connect(file, timeout=30)) as connection:
            connection.execute("PRAGMA wal_autocheckpoint = 0")
            return connection.execute(sql).fetchall()

    return query


def on_server(url: str) -> Query:
    def query(sql: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(url) as connection:
            return connection.execute(sql).fetchall()  # type: ignore[arg-type]

    return query


def churn(legacy: Legacy, store: str, query: Query, tmp_path: Path, *, processes: int) -> None:
    """Random work while processes are killed one by one, then the view must become the join."""
    rng = random.Random(5)
    output = tmp_path / "output.txt"
    running = [start(store, legacy.url, output) for _ in range(processes)]
    try:
        with legacy.busy():
            for _ in range(KILLS):
                time.sleep(0.8 + rng.random())
                index = rng.randrange(processes)
                assert running[index].poll() is None, output.read_text()[-3000:]
                running[index].kill()
                running[index].wait()
                running[index] = start(store, legacy.url, output)
            time.sleep(1)
        wanted = joined(legacy)
        deadline = time.monotonic() + 90
        while (found := shown(query)) != wanted:
            assert time.monotonic() < deadline, (
                len(found), len(wanted), sorted(set(found) ^ set(wanted))[:4], output.read_text()[-3000:],
            )  # fmt: skip
            assert all(process.poll() is None for process in running), output.read_text()[-3000:]
            time.sleep(0.2)
        assert wanted
    finally:
        for process in running:
            process.terminate()
        codes = [process.wait(30) for process in running]
    # One that was started a moment ago may not listen to signals yet.
    assert set(codes) <= {0, -signal.SIGTERM}, codes
    assert query("SELECT count(*) FROM eventmill_jobs") == [(0,)]


@pytest.mark.timeout(300)
def test_in_one_process_that_is_killed_again_and_again(postgres_url: str, tmp_path: Path) -> None:
    legacy = Legacy(postgres_url, 21)
    legacy.create(rows=1_500)
    store = f"sqlite:///{tmp_path}/views.db"
    asyncio.run(cdc_view.init(store, postgres_url))
    churn(legacy, store, in_file(tmp_path / "views.db"), tmp_path, processes=1)


@pytest.mark.timeout(300)
def test_in_two_processes_on_postgresql(postgres_url: str, postgres_server: str, tmp_path: Path) -> None:
    legacy = Legacy(postgres_url, 22)
    legacy.create(rows=800)
    with rooms.database(postgres_server) as store:
        asyncio.run(cdc_view.init(store, postgres_url))
        churn(legacy, store, on_server(store), tmp_path, processes=2)


CHANGES: Sequence[dict[str, Any]] = [
    {"table": "customers", "op": "insert", "key": {"id": 1}, "after": {"id": 1, "name": "Ann", "balance": "1"}},
    {"table": "orders", "op": "insert", "key": {"id": "a"}, "after": {"id": "a", "customer_id": 1, "total": 5}},
    {"table": "customers", "op": "update", "key": {"id": 1}, "after": {"id": 1, "balance": "2"}, "unchanged": ["name"]},
    {"table": "orders", "op": "truncate"},
    {"table": "orders", "op": "insert", "key": {"id": "b"}, "after": {"id": "b", "customer_id": 2, "total": 6}},
    {"table": "customers", "op": "delete", "key": {"id": 1}},
    {"table": "customers", "op": "insert", "key": {"id": 2}, "after": {"id": 2, "name": "Bob", "balance": "3"}},
]


def orders_of_arrival() -> list[tuple[int, ...]]:
    """All in which each row's own changes keep their order; a truncate may come anywhere."""
    rows = [(change["table"], str(change.get("key"))) for change in CHANGES]
    return [
        order
        for order in itertools.permutations(range(len(CHANGES)))
        if all(
            order.index(first) < order.index(second)
            for first in range(len(rows))
            for second in range(first + 1, len(rows))
            if rows[first] == rows[second]
        )
    ]


def test_any_order_of_arrival_gives_the_same_view(tmp_path: Path) -> None:
    rng = random.Random(1)
    orders = rng.sample(orders_of_arrival(), 60)

    async def main() -> None:
        for number, order in enumerate(orders):
            # Which database it would be does not matter: nothing is captured here.
            made = cdc_view.view(f"sqlite:///{tmp_path}/{number}.db", "sqlite:///none.db")
            async with made:
                await made.store.declare({f"views.{table}": 1 for table in ("customers", "orders", "lines")})
                capture = next(iter(made.captures))
                changes: list[Change] = []
                for place in order:
                    change = CHANGES[place]
                    changes.append(capture[change["table"]](position=place + 1, number=1, **change))
                made.captures._declared.clear()
                running = asyncio.create_task(made.run())
                for change in changes:
                    positions = await made.publish(change)
                await made.view("customer_orders").at_least(positions, timeout=10)
                async with made.transaction() as tx:
                    rows = list(await tx.execute("SELECT order_id, customer, total FROM customer_orders"))
                made.stop()
                await running
            assert [tuple(row) for row in rows] == [("b", "Bob", 6)], order

    asyncio.run(main())
