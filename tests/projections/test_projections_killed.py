"""A process that is killed at each point of a rebuild, a swap and a drop; what readers see meanwhile, and at the end."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
import rebuilding
from ledgers import bank, folded

import eventmill
from eventmill.testing.crash import REBUILDING, Crash, Report, outlive

POINTS = (*REBUILDING, "handler.done")

PATH = os.pathsep.join([str(Path(eventmill.__file__).parents[1]), str(Path(__file__).parent)])
WHOLE = folded(rebuilding.EVENTS)
TOTAL = "SELECT count(*), coalesce(sum(bookings), 0) FROM balances"


def look(rows: list[tuple[int, int]]) -> None:
    """After a death: no view yet, or one that has grown from batch to batch, never half of the tables or both of them."""
    ((accounts, bookings),) = rows
    assert accounts <= 10
    assert bookings <= sum(row[2] for row in WHOLE[0]) + len(rebuilding.LATE)


def killed(url: str, folder: Path, where: Crash, times: int, look: object) -> Report:
    return outlive(
        [sys.executable, rebuilding.__file__, url], where, folder, times=times,
        environment={"PYTHONPATH": PATH}, after_kill=look,  # type: ignore[arg-type]
    )  # fmt: skip


async def seen(url: str) -> tuple[object, set[str], int, int]:
    async with bank(url) as app:
        balances = await app.store.query("SELECT account, amount, bookings FROM balances ORDER BY account")
        visits = await app.store.query("SELECT guest, account FROM visits ORDER BY guest, account")
        state = await app.view("balances").state()
        groups = {group.name for group in await app.store.groups()}
        rows = [(str(name), int(amount), int(count)) for name, amount, count in balances]
        return (rows, list(visits)), groups, state.live, len(state.generations)


def settled(url: str) -> None:
    found, groups, live, generations = asyncio.run(seen(url))
    assert found == folded([*rebuilding.EVENTS, *rebuilding.LATE])
    assert live >= 2
    assert generations == 1
    assert groups == {f"bank.balances@{live}"}


@pytest.mark.timeout(180)
@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("point", POINTS)
def test_on_sqlite(tmp_path: Path, point: str, times: int) -> None:
    file = tmp_path / "bank.db"

    def after() -> None:
        with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
            if connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'balances'").fetchone():
                look(connection.execute(TOTAL).fetchall())

    report = killed(f"sqlite:///{file}", tmp_path, Crash(point), times, after)
    assert report.kills >= 1
    settled(f"sqlite:///{file}")


@pytest.mark.timeout(180)
@pytest.mark.parametrize("nth", [4, 9, 14, 19])
@pytest.mark.parametrize("point", ["commit.before", "commit.after"])
def test_at_some_commit_on_sqlite(tmp_path: Path, point: str, nth: int) -> None:
    file = tmp_path / "bank.db"
    killed(f"sqlite:///{file}", tmp_path, Crash(point, nth), 1, None)
    settled(f"sqlite:///{file}")


@pytest.mark.timeout(180)
@pytest.mark.parametrize("point", POINTS)
def test_on_postgres(postgres_url: str, tmp_path: Path, point: str) -> None:
    def after() -> None:
        with psycopg.connect(postgres_url) as connection:
            ((there,),) = connection.execute("SELECT to_regclass('balances') IS NOT NULL").fetchall()
            if there:
                look(connection.execute(TOTAL).fetchall())

    report = killed(postgres_url, tmp_path, Crash(point), 1, after)
    assert report.kills == 1
    settled(postgres_url)
