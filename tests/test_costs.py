"""What a message costs in SQL, counted: speed that a test can hold on to, because no clock decides it.

Every statement of every connection counts, `BEGIN`, `COMMIT` and savepoints included, each row of an
`executemany` by itself; not the handler's own. `PRAGMA data_version` goes by time: a slow machine looks
more often for what other processes have committed.
"""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from eventmill import App, Event, Transaction

MESSAGES = 4_000
CALLERS = 64
OWN = "INSERT INTO cost_totals"
INSERT = f"{OWN} VALUES (?, ?)"


class CostCounted(Event, name="cost.counted", key="account"):
    account: str
    amount: int


Counts = Counter[str]
COMMENTS = re.compile(r"^(--.*\n)+")


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counts:
    """Statements by their first word, and all of them as `statements`, on every connection made from now on."""
    found: Counts = Counter()
    connect = sqlite3.connect

    def note(sql: str) -> None:
        if "data_version" not in sql and not sql.startswith(OWN):
            found["statements"] += 1
            found[COMMENTS.sub("", sql).split(None, 1)[0].upper()] += 1

    def watched(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*arguments, **options)
        connection.set_trace_callback(note)
        return connection

    monkeypatch.setattr(sqlite3, "connect", watched)
    return found


def events(count: int) -> list[CostCounted]:
    return [CostCounted(account=f"account{number % 500}", amount=number) for number in range(count)]


async def consumed(app: App, counts: Counts) -> Counts:
    """Publish, then handle everything; what the handling alone cost."""
    async with app:
        await app.publish(*events(MESSAGES))
        counts.clear()
        running = asyncio.create_task(app.run())
        while app.handled < MESSAGES and not running.done():
            await asyncio.sleep(0.002)
        cost = counts.copy()
        app.stop()
        await running
        async with app.transaction() as tx:
            rows = await tx.execute("SELECT count(*), sum(amount) FROM cost_totals")
        assert rows == [(MESSAGES, sum(range(MESSAGES)))], "cheap, but not exactly once"
    return cost


def make(folder: Path) -> App:
    app = App(f"sqlite:///{folder / 'cost.db'}", name="cost")

    @app.setup
    async def create(tx: Transaction) -> None:
        await tx.execute("CREATE TABLE IF NOT EXISTS cost_totals (account TEXT NOT NULL, amount INTEGER NOT NULL)")

    return app


def test_a_batch_handler_costs_a_fifth_of_a_statement_a_message(tmp_path: Path, counts: Counts) -> None:
    app = make(tmp_path)

    @app.on(CostCounted, batch=100)
    async def total(events: list[CostCounted], tx: Transaction) -> None:
        await tx.executemany(INSERT, [(event.account, event.amount) for event in events])

    cost = asyncio.run(consumed(app, counts))
    assert 0 < cost["statements"] <= 0.2 * MESSAGES, cost
    assert 0 < cost["COMMIT"] <= 0.02 * MESSAGES, cost


def test_a_handler_of_single_messages_costs_little_more_than_its_own_statement(tmp_path: Path, counts: Counts) -> None:
    app = make(tmp_path)

    @app.on(CostCounted)
    async def total(event: CostCounted, tx: Transaction) -> None:
        await tx.execute(INSERT, (event.account, event.amount))

    cost = asyncio.run(consumed(app, counts))
    # A savepoint a commit, not one a message.
    assert 0 < cost["SAVEPOINT"] <= 0.05 * MESSAGES, cost
    assert 0 < cost["statements"] <= 0.2 * MESSAGES, cost
    assert 0 < cost["COMMIT"] <= 0.05 * MESSAGES, cost


def test_concurrent_publishers_share_their_commits(tmp_path: Path, counts: Counts) -> None:
    async def publish() -> Counts:
        left = iter(events(MESSAGES))

        async def call(app: App) -> None:
            for event in left:
                await app.publish(event)

        async with make(tmp_path) as app:
            counts.clear()
            await asyncio.gather(*(call(app) for _ in range(CALLERS)))
            cost = counts.copy()
            assert max((await app.store.end()).values()) == MESSAGES, "cheap, but not stored"
        return cost

    cost = asyncio.run(publish())
    assert 0 < cost["COMMIT"] <= 0.1 * MESSAGES, cost
    assert MESSAGES <= cost["statements"] <= 1.25 * MESSAGES, cost


def test_a_lone_publish_is_a_handful_of_statements(tmp_path: Path, counts: Counts) -> None:
    async def publish() -> Counts:
        async with make(tmp_path) as app:
            await app.publish(CostCounted(account="first", amount=0))
            counts.clear()
            for event in events(50):
                await app.publish(event)
            return counts.copy()

    cost = asyncio.run(publish())
    assert cost["COMMIT"] == 50, cost
    # BEGIN, INSERT, COMMIT.
    assert cost["statements"] <= 50 * 3, cost
