"""A million jobs that wait cost nothing but their space: what a claim reads does not depend on them."""

from __future__ import annotations

import asyncio
import resource
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import msgspec
import psycopg
import pytest

from eventmill.app import App
from eventmill.backends.sql.rows import job_row
from eventmill.backends.sqlite.open_file import STATEMENTS
from eventmill.core.job import Job
from eventmill.settings import Settings
from eventmill.testing.conformance.samples import job

FAR = 10**15
COLUMNS = (
    "queue, lane, state, due, attempts, recorded_at, topic, partition, position, errors, message, priority, reference"
)


def rows(number: int, due: int, first: int = 0) -> list[tuple[object, ...]]:
    row = job_row(Job(queue="backlog/default", message=job(1).message), "due")
    return [(*row[:3], due + count, *row[4:11], count % 3, f"r{first + count}") for count in range(number)]


def fill(connection: sqlite3.Connection, number: int, due: int, first: int = 0) -> None:
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany(
        f"INSERT INTO eventmill_jobs ({COLUMNS}, member, token, crashed) VALUES ({', '.join('?' * 13)}, NULL, 0, 0)",
        rows(number, due, first),
    )
    connection.execute("COMMIT")


def make(place: Path) -> App:
    app = App(f"sqlite:///{place / 'backlog.db'}", name="backlog", settings=Settings(lease=30.0))

    @app.task()
    async def noop() -> None: ...

    return app


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("claim", ("m", "q", 1, 1, 0)),
        ("claimable", ("q", 0, 1, 1)),
        ("claimable_crashed", ("q", 1, 1)),
        ("claim_some", ("m", 1, "[1]")),
        ("priorities", ("q",)),
        ("next_due", ("q",)),
        ("takeable", ("r",)),
        ("find_job", ("r",)),
        ("let_go", ("q", "l")),
        ("old_dead", (1, 1)),
        ("abandon_jobs", ("q", "m")),
        ("release_jobs", ("q", "m")),
    ],
)
def test_sqlite_looks_nothing_up_by_reading_all(tmp_path: Path, name: str, parameters: tuple[object, ...]) -> None:
    async def create() -> None:
        async with make(tmp_path):
            pass

    asyncio.run(create())
    with closing(sqlite3.connect(tmp_path / "backlog.db")) as connection:
        plan = connection.execute(f"EXPLAIN QUERY PLAN {STATEMENTS[name]}", parameters).fetchall()
    steps = [str(step[3]) for step in plan]
    assert not [step for step in steps if step.startswith("SCAN eventmill_jobs") and "INDEX" not in step], steps
    assert any("eventmill_jobs" in step for step in steps)


def test_a_claim_does_as_little_with_a_long_backlog(tmp_path: Path) -> None:
    """Counted in steps of SQLite's machine, which no busy processor changes."""

    async def steps() -> int:
        async with make(tmp_path) as app:
            counted = 0

            def count() -> None:
                nonlocal counted
                counted += 1

            store = app.store
            for connection in (store.reader, store.writer.connection):  # type: ignore[attr-defined]
                connection.set_progress_handler(count, 10)
            claimed = await store.claim("backlog/default", "a/1", limit=20, lease=30.0)
            assert len(claimed) == 20
            for connection in (store.reader, store.writer.connection):  # type: ignore[attr-defined]
                connection.set_progress_handler(None, 0)
            await store.release("backlog/default", "a/1", None)
            return counted

    now = int(time.time() * 1000)

    async def create() -> None:
        async with make(tmp_path):
            pass

    asyncio.run(create())
    with closing(sqlite3.connect(tmp_path / "backlog.db", isolation_level=None)) as connection:
        fill(connection, 100, now - 1_000_000)
    few = asyncio.run(steps())
    with closing(sqlite3.connect(tmp_path / "backlog.db", isolation_level=None)) as connection:
        fill(connection, 50_000, now - 500_000, first=1_000)
        fill(connection, 50_000, FAR, first=100_000)
    many = asyncio.run(steps())
    assert many <= 1.5 * few, (few, many)


def test_delayed_jobs_take_no_memory(tmp_path: Path) -> None:
    async def serve() -> int:
        async with make(tmp_path) as app:
            noop = app.tasks.by_type["task.noop"]
            running = asyncio.create_task(app.run())
            await app.send(noop.job())
            while app.handled < 1:
                await asyncio.sleep(0.01)
            await asyncio.sleep(1.0)
            app.stop()
            await running
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    before = asyncio.run(serve())
    with closing(sqlite3.connect(tmp_path / "backlog.db", isolation_level=None)) as connection:
        for first in range(0, 200_000, 20_000):
            fill(connection, 20_000, FAR, first)
    after_filling = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    after = asyncio.run(serve())
    assert after - max(before, after_filling) < 20_000, "kB"


def test_postgres_reads_as_little_with_a_long_backlog(postgres_url: str) -> None:
    """Counted in pages."""

    async def claim() -> None:
        app = App(postgres_url, name="backlog")

        @app.task()
        async def noop() -> None: ...

        async with app:
            assert len(await app.store.claim("backlog/default", "a/1", limit=20, lease=30.0)) == 20
            await app.store.release("backlog/default", "a/1", None)

    async def create() -> None:
        async with App(postgres_url, name="backlog"):
            pass

    asyncio.run(create())
    now = int(time.time() * 1000)
    with psycopg.connect(postgres_url, autocommit=True) as connection:

        def more(number: int, due: int, first: int) -> None:
            with connection.cursor() as cursor:
                with cursor.copy(f"COPY eventmill_jobs ({COLUMNS}, token, crashed) FROM STDIN") as copy:
                    for row in rows(number, due, first):
                        copy.write_row((*row, 0, 0))
                cursor.execute("ANALYZE eventmill_jobs")

        def pages() -> int:
            sql = STATEMENTS_OF_POSTGRES["claim"].decode()
            values = ("a/1", "backlog/default", now, 20, [2, 1, 0], 1, 60_000)
            for number, value in reversed(list(enumerate(values, 1))):
                sql = sql.replace(f"${number}", _literal(value))
            with connection.transaction(force_rollback=True):
                (plan,) = connection.execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {sql}").fetchone()  # type: ignore[misc, arg-type, call-overload]
            text = msgspec.json.encode(plan).decode()
            assert "eventmill_jobs_due" in text
            assert plan[0]["Plan"]["Actual Rows"] == 20
            return int(plan[0]["Plan"]["Shared Hit Blocks"] + plan[0]["Plan"]["Shared Read Blocks"])

        more(2_000, now - 1_000_000, 0)
        pages()
        few = pages()
        more(30_000, now - 500_000, 10_000)
        more(30_000, FAR, 100_000)
        many = pages()
    assert many <= 2 * few, (few, many)
    asyncio.run(claim())


def _literal(value: object) -> str:
    if isinstance(value, list):
        return f"ARRAY{value}::int[]"
    return f"'{value}'" if isinstance(value, str) else str(value)


def _statements() -> dict[str, bytes]:
    from eventmill.backends.postgres.sql import statements

    return dict(statements('"public"'))


STATEMENTS_OF_POSTGRES = _statements()
