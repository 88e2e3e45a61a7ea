"""PostgreSQL when things go wrong: nothing skipped, nothing lost, nothing doubled, nothing stalled for good."""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
import pytest
from proxy import Proxy

import rooms
from eventmill import App, Event, Settings, Transaction, outbox
from eventmill.backends.postgres.backend import PostgresBackend
from eventmill.backends.url import Url
from eventmill.core.clock import SystemClock
from eventmill.core.errors import BackendUnavailableError
from eventmill.core.message import Partition
from eventmill.testing.conformance.samples import TOPIC, everything, ids, message, partitions

SETTINGS = Settings(lease=3.0)


class FaultCounted(Event, name="fault.counted", key="account"):
    account: str
    number: int


def backend(url: str) -> PostgresBackend:
    return PostgresBackend.from_url(Url.parse(url), SystemClock())


def counting(url: str, poison: float = 0.0) -> App:
    """An App that notes each number once."""
    app = App(url, name="fault", settings=SETTINGS)

    @app.setup
    async def create(tx: Transaction) -> None:
        await tx.execute(
            "CREATE TABLE IF NOT EXISTS effects (place BIGSERIAL PRIMARY KEY, account TEXT, number INTEGER)"
        )

    @app.on(FaultCounted, group="counting", concurrency=32)
    async def count(event: FaultCounted, tx: Transaction) -> None:
        await tx.execute("INSERT INTO effects (account, number) VALUES (?, ?)", (event.account, event.number))
        if random.random() < poison:
            raise ValueError("poison")

    return app


async def publish(app: App, numbers: Iterator[int], pause: float = 0.01) -> None:
    for number in numbers:
        await app.publish(FaultCounted(f"account{number % 40}", number))
        await asyncio.sleep(pause)


async def handled(url: str, count: int, seconds: float = 40) -> None:
    """Until all are handled: each once, in order per account, and the log holds each once."""
    deadline = time.monotonic() + seconds
    found: list[tuple[str, int]] = []
    while time.monotonic() < deadline:
        async with await psycopg.AsyncConnection.connect(url.partition("?")[0]) as connection:
            cursor = await connection.execute("SELECT account, number FROM effects ORDER BY place")
            found = [(account, number) for account, number in await cursor.fetchall()]
            cursor = await connection.execute("SELECT count(*), count(DISTINCT data) FROM eventmill_log")
            log = await cursor.fetchone()
        if len(found) >= count:
            break
        await asyncio.sleep(0.1)
    assert sorted(number for _, number in found) == list(range(count))
    assert log == (count, count)
    accounts: dict[str, list[int]] = {}
    for account, number in found:
        accounts.setdefault(account, []).append(number)
    assert all(numbers == sorted(numbers) for numbers in accounts.values())


async def under_load(url: str, count: int, trouble: Callable[[], Awaitable[None]], **options: Any) -> None:
    """Publish and handle while there is trouble; all must come right in the same process."""
    async with counting(url, **options) as app:
        running = asyncio.create_task(app.run())
        # One caller an account: their order is the order of the calls.
        await asyncio.gather(trouble(), *(publish(app, iter(range(first, count, 40))) for first in range(40)))
        await handled(url, count)
        app.stop()
        await running


@pytest.mark.parametrize("seed", [1, 2])
def test_a_tailing_reader_skips_nothing(postgres_url: str, seed: int) -> None:
    """Transactions of every length, rolled back, killed, prepared nowhere: what is committed is read, in order."""
    committed: list[str] = []
    stop = threading.Event()

    def writer(number: int) -> None:
        chance = random.Random(seed * 100 + number)
        step = 0
        while not stop.is_set():
            step += 1
            # Leaving the block by itself would commit on a connection that may be gone.
            with suppress(psycopg.OperationalError), psycopg.connect(postgres_url) as connection:
                mine: list[str] = []
                for part in range(chance.randint(1, 3)):
                    outbox.add(connection, FaultCounted(f"w{number}", step * 10 + part))
                    mine.append(f"w{number}/{step * 10 + part}")
                    time.sleep(chance.choice((0, 0, 0.001, 0.02, 0.15)))
                match chance.randint(1, 5):
                    case 1:
                        connection.rollback()
                    case 2:
                        with psycopg.connect(postgres_url, autocommit=True) as other:
                            other.execute("SELECT pg_terminate_backend(%s)", (connection.info.backend_pid,))
                    case _:
                        connection.commit()
                        committed.extend(mine)

    async def main() -> None:
        async with backend(postgres_url) as store:
            await store.declare({"fault": 3})
            writers = [threading.Thread(target=writer, args=(number,)) for number in range(6)]
            for each in writers:
                each.start()
            at = dict.fromkeys(partitions(3, "fault"), 0)
            seen: list[str] = []
            ends = time.monotonic() + 5
            seen_at = -1
            while True:
                if time.monotonic() > ends and not stop.is_set():
                    stop.set()
                    await asyncio.to_thread(lambda: [each.join() for each in writers])
                    ends = time.monotonic() + 1
                page = await store.read(at, limit=50)
                for record in page.messages:
                    assert record.position > at[record.partition]
                    seen.append(_name(record.message.data))
                at.update(page.after)
                if not page.after:
                    if stop.is_set() and time.monotonic() > ends:
                        break
                    seen_at = await store.changed(seen_at, 0.05)
            assert sorted(seen) == sorted(committed)
            assert len(seen) > 50

    asyncio.run(asyncio.wait_for(main(), 60))


def _name(data: bytes) -> str:
    body = json.loads(data)
    return f"{body['account']}/{body['number']}"


def test_terminated_backends(postgres_url: str) -> None:
    async def storm() -> None:
        async with await psycopg.AsyncConnection.connect(postgres_url, autocommit=True) as connection:
            for _ in range(10):
                await asyncio.sleep(0.25)
                await connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE application_name = 'eventmill' AND datname = current_database() AND random() < 0.6"
                )

    asyncio.run(asyncio.wait_for(under_load(postgres_url, 2_000, storm, poison=0.003), 90))


def test_questions_among_terminated_backends(postgres_url: str) -> None:
    """Whoever looks on while connections break, several times under one question, is still answered."""

    async def main() -> None:
        async with (
            backend(postgres_url) as store,
            await psycopg.AsyncConnection.connect(postgres_url, autocommit=True) as connection,
        ):
            await store.declare({TOPIC: 4})
            striking = True

            async def strike() -> None:
                while striking:
                    await connection.execute(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                        " WHERE application_name = 'eventmill' AND datname = current_database()"
                    )
                    await asyncio.sleep(0.01)

            strikes = asyncio.create_task(strike())
            for _ in range(30):
                assert await store.end() == {}
                assert (await store.pending(dict.fromkeys(partitions(4), 0), None)).messages == 0
                assert await store.groups() == []
            striking = False
            await strikes

    asyncio.run(asyncio.wait_for(main(), 60))


@pytest.mark.parametrize("kill", [False, True], ids=["restart", "kill -9"])
def test_a_server_that_restarts(postgres_url: str, restart: Callable[..., None], kill: bool) -> None:
    async def trouble() -> None:
        await asyncio.sleep(0.4)
        await asyncio.to_thread(restart, "postgres", kill=kill)

    asyncio.run(asyncio.wait_for(under_load(postgres_url, 1_200, trouble), 110))


def test_a_connection_that_falls_silent(postgres_url: str) -> None:
    """A network that swallows everything for a while: ten seconds after it is back, all goes on."""

    async def main() -> None:
        async with Proxy(postgres_url) as proxy:

            async def trouble() -> None:
                await asyncio.sleep(0.4)
                proxy.freeze()
                await asyncio.sleep(6)
                await proxy.heal()

            healed = time.monotonic()
            await under_load(proxy.url, 800, trouble)
            assert time.monotonic() - healed < 60

    asyncio.run(asyncio.wait_for(main(), 90))


def test_a_connection_that_is_cut(postgres_url: str) -> None:
    async def main() -> None:
        async with Proxy(postgres_url) as proxy:

            async def trouble() -> None:
                for size in (0, 20_000, 50_000):
                    await asyncio.sleep(0.4)
                    if size:
                        proxy.cut_after(size, towards="client")
                    else:
                        proxy.cut()
                await proxy.heal()

            await under_load(proxy.url, 800, trouble)

    asyncio.run(asyncio.wait_for(main(), 90))


def test_an_open_transaction_elsewhere_delays_nobody(postgres_server: str, postgres_url: str) -> None:
    async def main() -> None:
        with rooms.database(postgres_server) as elsewhere, psycopg.connect(elsewhere) as other:
            other.execute("CREATE TABLE something (number integer)")
            with psycopg.connect(postgres_url) as neighbour:
                neighbour.execute("CREATE TABLE something (number integer)")
                async with backend(postgres_url) as store:
                    await store.publish([message(1)])
                    assert ids(await everything(store)) == ["m1"]

    asyncio.run(asyncio.wait_for(main(), 30))


def test_a_stuck_append_only_delays(postgres_url: str) -> None:
    async def main() -> None:
        async with backend(postgres_url) as store:
            await store.declare({TOPIC: 1})
            with psycopg.connect(postgres_url) as stuck:
                outbox.add(stuck, FaultCounted("a", 1))
                await store.publish([message(1)])
                assert ids(await everything(store)) == []
                stuck.rollback()
            assert ids(await everything(store, {Partition(TOPIC, 0): 0})) == ["m1"]

    asyncio.run(asyncio.wait_for(main(), 30))


@contextmanager
def restored(server: str, url: str) -> Iterator[str]:
    """Another database with what `pg_dump` took of the first."""
    with rooms.database(server) as copy:
        dump = subprocess.run(
            ["pg_dump", "-d", url], check=True, capture_output=True, env={**os.environ, "LC_ALL": "C"}
        )
        subprocess.run(["psql", "-q", "-v", "ON_ERROR_STOP=1", "-d", copy], input=dump.stdout, check=True)
        yield copy


def test_a_restored_database_goes_on(postgres_server: str, postgres_url: str) -> None:
    async def main() -> None:
        async with backend(postgres_url) as store:
            positions = await store.publish([message(1, "a"), message(2, "a")])
        with restored(postgres_server, postgres_url) as copy:
            async with backend(copy) as store:
                (position,) = await store.publish([message(3, "a")])
                found = await everything(store)
                assert ids(found) == ["m1", "m2", "m3"]
                assert [record.message.sequence for record in found] == [1, 2, 3]
                assert position > max(positions)

    asyncio.run(asyncio.wait_for(main(), 60))


def test_a_server_that_is_not_there_is_told() -> None:
    async def main() -> None:
        with pytest.raises(BackendUnavailableError, match=r"within 0\.3 s"):
            async with backend("postgresql://me:geheim@127.0.0.1:1/shop?connect_timeout=0.3"):
                pass

    asyncio.run(main())
