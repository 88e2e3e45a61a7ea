"""What the database refuses reaches callers as errors of ours, and leaves the store fit for use."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path

import mill as program
import pytest

from eventmill import App
from eventmill.backends.sqlite.backend import SqliteBackend
from eventmill.core.errors import BackendError, StorageFullError
from eventmill.core.job import Job
from eventmill.core.message import Message, Partition

pytestmark = pytest.mark.timeout(120)


def message(number: int) -> Message:
    return Message(id=f"m{number}", source="test", type="mill.any", topic="mill", time=0, data=b"x" * 2000, key="k")


async def enroll(store: SqliteBackend, number: int) -> None:
    await store.enroll(f"{'group' * 100}{number}", None, [Partition("mill", 0)])


async def publish(store: SqliteBackend, number: int) -> None:
    await store.publish([message(number)])


async def write(store: SqliteBackend, number: int) -> None:
    async with store.transaction() as tx:
        await tx.execute("INSERT INTO mine VALUES (?)", (b"x" * 2000,))


async def put(store: SqliteBackend, number: int) -> None:
    async with store.transaction() as tx:
        tx.put(f"document{number}", b"x" * 2000, expected=0)


async def send(store: SqliteBackend, number: int) -> None:
    async with store.transaction() as tx:
        tx.send([Job(queue="q", message=message(number))])


async def until_refused(act: Callable[[SqliteBackend, int], Awaitable[None]], store: SqliteBackend, first: int) -> None:
    for number in range(first, first + 1000):
        await act(store, number)


@pytest.mark.parametrize("act", [enroll, publish, write, put, send])
def test_where_there_is_no_room_the_caller_is_told_and_the_store_goes_on(
    tmp_path: Path, act: Callable[[SqliteBackend, int], Awaitable[None]]
) -> None:
    async def play() -> None:
        async with SqliteBackend(str(tmp_path / "mill.db")) as store:
            async with store.transaction() as tx:
                await tx.execute("CREATE TABLE mine (data)")
            ((pages,),) = store.writer.connection.execute("PRAGMA page_count").fetchall()
            store.writer.connection.execute(f"PRAGMA max_page_count = {pages + 2}")
            for number in range(5):  # it stays refused, and stays usable
                with pytest.raises(StorageFullError):
                    await until_refused(act, store, 1000 * number)
            assert await store.topics() is not None
            store.writer.connection.execute("PRAGMA max_page_count = 1000000")
            await act(store, 100_000)

    asyncio.run(asyncio.wait_for(play(), 60))


TABLES = ["eventmill_log", "eventmill_topics", "eventmill_cursors", "eventmill_jobs", "eventmill_members"]


@pytest.mark.parametrize("table", TABLES)
def test_a_damaged_page_is_told_as_damage(tmp_path: Path, table: str) -> None:
    async def fill(app: App) -> None:
        async with app:
            await app.publish(*(program.Task(f"lane{number}", number, padding="x" * 500) for number in range(200)))

    async def use(app: App) -> None:
        async with app:
            await app.store.topics()
            await app.store.jobs()
            await app.store.read({Partition("mill", number): 0 for number in range(16)}, limit=1000)
            await app.store.enroll("g", None, [Partition("mill", 0)])
            await app.store.balance("g", "p/m", [Partition("mill", 0)], 10.0)
            await app.store.groups()

    asyncio.run(fill(program.mill(tmp_path)))
    file = tmp_path / "mill.db"
    with contextlib.closing(sqlite3.connect(file)) as connection:
        ((page,),) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (table,)).fetchall()
        ((size,),) = connection.execute("PRAGMA page_size").fetchall()
    with file.open("r+b") as opened:
        opened.seek((page - 1) * size)
        opened.write(b"\xff" * size)
    with pytest.raises(BackendError, match="damaged"):
        asyncio.run(asyncio.wait_for(use(program.mill(tmp_path)), 60))
