"""Waking up on PostgreSQL: by an announcement, by looking, and never by so many announcements that others feel it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg
import pytest

from eventmill.backends.connect import connect_store
from eventmill.backends.postgres import announcer, watcher
from eventmill.backends.postgres.backend import PostgresBackend
from eventmill.backends.postgres.pipeline import Pipeline
from eventmill.core.message import Message, Partition

PLACE = Partition("wake", 0)


def messages(count: int, first: int = 0) -> list[Message]:
    return [
        Message(id=f"w{number}", source="test", type="wake.up", topic="wake", time=0, data=b"{}", key="k")
        for number in range(first, first + count)
    ]


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[PostgresBackend]:
    async with connect_store(url) as backend:
        assert isinstance(backend, PostgresBackend)
        await backend.declare({"wake": 1})
        yield backend


async def woken(reader: PostgresBackend, seen: int, seconds: float) -> bool:
    """Whether somebody who waits hears of the message that has the next position."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if (await reader.read({PLACE: seen}, limit=1)).messages:
            return True
        version = await reader.changed(-1, 0)
        await reader.changed(version, deadline - time.monotonic())
    return False


@pytest.fixture
def blind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody looks by himself."""
    monkeypatch.setattr(watcher, "FASTEST", 3600.0)
    monkeypatch.setattr(watcher, "SLOWEST", 3600.0)


@pytest.mark.usefixtures("blind")
@pytest.mark.parametrize("by", ["publish", "transaction"])
def test_another_process_is_woken_without_looking(postgres_url: str, by: str) -> None:
    async def main() -> None:
        async with opened(postgres_url) as reader, opened(postgres_url) as writer:
            waiting = asyncio.create_task(woken(reader, 0, 20))
            await asyncio.sleep(0.2)  # it has read, found nothing, and waits
            assert not waiting.done()
            if by == "publish":
                await writer.publish(messages(1))
            else:
                async with writer.transaction() as transaction:
                    await transaction.execute("SELECT 1")
                    transaction.append(messages(1))
            assert await waiting

    asyncio.run(main())


@pytest.mark.usefixtures("blind")
def test_announcements_are_heard_again_after_the_connection_broke(postgres_url: str) -> None:
    async def main() -> None:
        async with opened(postgres_url) as reader, opened(postgres_url) as writer:
            async with await psycopg.AsyncConnection.connect(postgres_url, autocommit=True) as operator:
                await operator.execute(
                    "SELECT pg_terminate_backend(%s)", [(await reader.server.reader.connect()).backend_pid]
                )
            await reader.end()
            waiting = asyncio.create_task(woken(reader, 0, 20))
            await asyncio.sleep(0.2)
            await writer.publish(messages(1))
            assert await waiting

    asyncio.run(main())


def test_what_nobody_announces_is_found_by_looking(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As through a pooler in transaction mode, which lets no announcement through."""

    def deaf(self: Pipeline, channel: str, heard: object) -> None:
        self.direct = False

    monkeypatch.setattr(Pipeline, "listen", deaf)

    async def main() -> None:
        async with opened(postgres_url) as reader, opened(postgres_url) as writer:
            waiting = asyncio.create_task(woken(reader, 0, 20))
            await asyncio.sleep(0.2)
            await writer.publish(messages(1))
            assert await waiting
            found = {each.about: each.text for each in await reader.examine()}
            assert "polling alone" in found["wake-up"]

    asyncio.run(main())


def test_one_announcement_a_window_however_much_is_committed(postgres_url: str) -> None:
    """Counted by a listener of its own: at least one, the last one after the last commit, and no more than windows."""

    async def main() -> None:
        listening = await psycopg.AsyncConnection.connect(postgres_url, autocommit=True)
        async with listening as listener, opened(postgres_url) as writer:
            await listener.execute(f'LISTEN "{announcer.channel(None)}"')
            began = time.monotonic()
            for number in range(300):
                await writer.publish(messages(1, number))
            commits = writer.server.publishes.commits
            windows = (time.monotonic() - began) / announcer.WINDOW
            await asyncio.sleep(5 * announcer.WINDOW)
            said = writer.server.announcer.said
            heard = [notice async for notice in listener.notifies(timeout=0.5)]
            assert commits == 300
            assert 1 <= said <= windows + 2
            assert len(heard) == said

    asyncio.run(main())


def test_handling_without_messages_announces_nothing(postgres_url: str) -> None:
    async def main() -> None:
        async with opened(postgres_url) as store:
            for number in range(5):
                async with store.transaction() as transaction:
                    transaction.put(f"document{number}", b"{}", expected=None)
            assert store.server.announcer.said == 0

    asyncio.run(main())


def test_prepared_transactions_are_named(postgres_url: str) -> None:
    async def main() -> None:
        async with opened(postgres_url) as store:
            async with await psycopg.AsyncConnection.connect(postgres_url, autocommit=True) as other:
                for statement in ("BEGIN", "CREATE TABLE theirs (x int)", "PREPARE TRANSACTION 'bank-17'"):
                    await other.execute(statement)
                found = {each.about: each for each in await store.examine()}
                await other.execute("ROLLBACK PREPARED 'bank-17'")
            assert "'bank-17'" in found["prepared"].text
            assert "ROLLBACK PREPARED 'bank-17'" in found["prepared"].remedy
            assert "prepared" not in {each.about for each in await store.examine()}

    asyncio.run(main())
