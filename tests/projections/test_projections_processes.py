"""Workers and readers in different processes, and a broker between writer and view."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import feeding
import pytest
from ledgers import POISON, Booked, bank, folded, rows, running, until
from life import some_events

import eventmill
from eventmill import BehindError, BlockedError, SyncApp
from stopping import freeze

PATH = os.pathsep.join([str(Path(eventmill.__file__).parents[1]), str(Path(__file__).parent)])


@contextmanager
def worker(*urls: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, feeding.__file__, *urls], env={**os.environ, "PYTHONPATH": PATH})
    try:
        yield process
    finally:
        process.kill()
        process.wait()


async def _read_your_writes(url: str) -> None:
    async with bank(url) as app:
        view = app.view("balances")
        expected = 0
        with worker(url) as process:
            for number in range(100):
                positions = await app.publish(Booked("ada", number))
                await view.at_least(positions, timeout=30)
                expected += number
                ((amount,),) = await app.store.query("SELECT amount FROM balances WHERE account = 'ada'")
                assert int(amount) == expected
            process.kill()
            process.wait()
            late = await app.publish(Booked("ada", 1))
            with pytest.raises(BehindError, match="1 event and"):
                await view.at_least(late, timeout=0.3)
        with worker(url):
            await view.at_least(late, timeout=30)


def test_read_your_writes_on_sqlite(tmp_path: Path) -> None:
    asyncio.run(_read_your_writes(f"sqlite:///{tmp_path}/bank.db"))


def test_read_your_writes_on_postgres(postgres_url: str) -> None:
    asyncio.run(_read_your_writes(postgres_url))


async def _paused_past_its_lease(url: str) -> None:
    """It wakes when others hold its partitions, and the generation it fed is dropped: nothing of it is left."""
    events = some_events(500, seed=9)
    async with bank(url) as app:
        view = app.view("balances")
        with worker(url) as paused:
            await view.at_least(await app.publish(*events[:100]), timeout=30)
            await app.publish(*events[100:300])
            freeze(paused, url.removeprefix("sqlite:///") if url.startswith("sqlite") else None)
            async with running(app):
                await view.at_least(await app.publish(*events[300:]), timeout=40)
                assert await rows(app) == folded(events)
                await view.rebuild()
                await view.drop()
                paused.send_signal(signal.SIGCONT)
                await asyncio.sleep(1.5)
                assert await rows(app) == folded(events)

                async def swept() -> bool:
                    return {group.name for group in await app.store.groups()} == {"bank.balances@2"}

                await until(swept, 10)
                assert not await app.store.jobs()
            # The one that was paused has followed.
            await view.at_least(await app.publish(Booked("ada", 1)), timeout=30)
            assert paused.poll() is None


@pytest.mark.timeout(120)
def test_paused_past_its_lease_on_sqlite(tmp_path: Path) -> None:
    asyncio.run(_paused_past_its_lease(f"sqlite:///{tmp_path}/bank.db"))


@pytest.mark.timeout(120)
def test_paused_past_its_lease_on_postgres(postgres_url: str) -> None:
    asyncio.run(_paused_past_its_lease(postgres_url))


async def _through_a_broker(store: str, broker: str) -> None:
    async with bank(store, broker=broker) as app:
        view = app.view("balances")
        sent = await app.publish(Booked("ada", 1))
        with pytest.raises(BehindError, match="1 more are yet to be sent"):
            await view.at_least(sent, timeout=0.3)
        async with running(app):
            await view.at_least(sent, timeout=30)
            for number in range(20):
                await view.at_least(await app.publish(Booked(f"n{number}", number)), timeout=30)
                found = await app.store.query("SELECT amount FROM balances WHERE account = ?", (f"n{number}",))
                assert [int(amount) for (amount,) in found] == [number]
            poison, other = await app.publish(Booked("ada", POISON), Booked("bob", 1))
            await view.at_least(other, timeout=30)
            with pytest.raises(BlockedError, match="unlucky"):
                await view.at_least(poison, timeout=30)
            assert (await view.lag()).dead == 1
            assert await view.rebuild(force=True) == 2
            found = await rows(app)
            assert found == folded([Booked("ada", 1), Booked("bob", 1), *(Booked(f"n{n}", n) for n in range(20))])


def test_a_log_in_another_file_between(tmp_path: Path) -> None:
    asyncio.run(_through_a_broker(f"sqlite:///{tmp_path}/bank.db", f"sqlite:///{tmp_path}/broker.db"))


@pytest.mark.timeout(120)
def test_kafka_between(tmp_path: Path, kafka_url: str, kafka_prefix: str) -> None:
    asyncio.run(_through_a_broker(f"sqlite:///{tmp_path}/bank.db", f"{kafka_url}?prefix={kafka_prefix}"))


def test_without_await(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/bank.db"
    with SyncApp(bank(url)) as client, worker(url):
        positions = client.publish(Booked("ada", 5))
        client.at_least("balances", positions, timeout=30)
        with client.transaction() as tx:
            assert tx.execute("SELECT amount FROM balances") == [(5,)]
