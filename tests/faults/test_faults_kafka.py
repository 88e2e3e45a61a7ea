"""The broker goes, the network goes, members come and go: everything once, in order per key, and soon again."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import ledger as program
import pytest
from ledger import TOPICS, Entry, ledger, shop
from proxy import Proxy
from workers import ENVIRONMENT

import servers
from eventmill.backends.connect import connect
from eventmill.core.errors import BackendError, BackendUnavailableError, ConfigurationError
from eventmill.core.message import Message

ACCOUNTS = 12
SOON = 10.0
"""Seconds after healing within which there must be progress."""


@pytest.fixture
def url(kafka_server: str, kafka_prefix: str) -> str:
    return f"{kafka_server}?prefix={kafka_prefix}"


class Flow:
    """A shop that sends all the time, and what arrives in the ledger."""

    def __init__(self, place: Path, broker: str, *, own_ledger: bool = True) -> None:
        self.sent = 0
        self.shop = shop(place, broker)
        self.books = ledger(place, broker)
        self._own = own_ledger

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        apps = [self.shop, self.books] if self._own else [self.shop]
        async with self.shop, self.books:
            tasks = [asyncio.create_task(app.run()) for app in apps]
            try:
                yield
            finally:
                for app in apps:
                    app.stop()
                await asyncio.gather(*tasks)

    async def send(self, rounds: int) -> None:
        for _ in range(rounds):
            await self.shop.publish(*[Entry(f"a{number}", self.sent) for number in range(ACCOUNTS)])
            self.sent += 1

    @contextlib.asynccontextmanager
    async def sending(self) -> AsyncIterator[None]:
        """Some entries all the time while the block lasts."""
        over = asyncio.Event()

        async def send() -> None:
            while not over.is_set():
                await self.send(5)
                await asyncio.sleep(0.02)

        task = asyncio.create_task(send())
        try:
            yield
        finally:
            over.set()
            await task

    async def entered(self) -> int:
        return int((await self.entries("SELECT count(*) FROM entries"))[0][0])

    async def entries(self, sql: str) -> list[tuple[int, ...]]:
        async with self.books.transaction() as tx:
            return [tuple(row) for row in await tx.execute(sql)]

    async def moves(self, seconds: float) -> None:
        """There must be progress within so many seconds."""
        before = await self.entered()

        async def more() -> bool:
            return await self.entered() > before

        await until(more, seconds)

    async def complete(self) -> None:
        """All that was sent was entered once, in order per account."""
        total = int((await self._count_sent())[0][0])

        async def all_there() -> bool:
            return await self.entered() >= total

        await until(all_there, 60)
        await asyncio.sleep(0.3)
        assert await self.entered() == total
        for number in range(ACCOUNTS):
            found = await self.entries(f"SELECT number FROM entries WHERE account = 'a{number}' ORDER BY line")
            assert found == sorted(set(found))
        for app in (self.shop, self.books):
            assert not await app.store.jobs(), "nothing was retried or dead-lettered"

    async def _count_sent(self) -> list[tuple[int, ...]]:
        async with self.shop.transaction() as tx:
            return [tuple(row) for row in await tx.execute("SELECT count(*) FROM eventmill_log")]


async def until(condition: Callable[[], Awaitable[bool]], seconds: float) -> None:
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("kill", [False, True], ids=["restart", "kill -9"])
def test_a_broker_that_is_restarted_under_load(
    url: str, tmp_path: Path, restart: Callable[..., None], kill: bool
) -> None:
    async def run() -> None:
        flow = Flow(tmp_path, url)
        async with flow.running():
            async with flow.sending():
                await flow.moves(30)
                for _ in range(2):
                    await asyncio.to_thread(restart, "kafka", kill=kill)
                    await flow.moves(SOON)
            await flow.complete()

    asyncio.run(run())


def test_connections_that_are_cut_all_the_time(kafka_prefix: str, kafka_server: str, tmp_path: Path) -> None:
    async def run() -> None:
        async with Proxy(servers.address("kafka_behind"), servers.address("kafka_front")) as proxy:
            flow = Flow(tmp_path, f"{proxy.url}?prefix={kafka_prefix}")
            async with flow.running():
                async with flow.sending():
                    await flow.moves(30)
                    for round_ in range(6):
                        proxy.cut()
                        proxy.cut_after(10_000 * round_, towards="server" if round_ % 2 else "client")
                        await asyncio.sleep(0.5)
                    await proxy.heal()
                    await flow.moves(SOON)
                await flow.complete()

    asyncio.run(run())


@pytest.mark.parametrize("fate", ["forwarded", "reset"])
def test_a_black_hole(kafka_prefix: str, kafka_server: str, tmp_path: Path, fate: str) -> None:
    """What was on its way arrives late, after what was sent anew; or never."""

    async def run() -> None:
        async with Proxy(servers.address("kafka_behind"), servers.address("kafka_front")) as proxy:
            flow = Flow(tmp_path, f"{proxy.url}?prefix={kafka_prefix}&publish_timeout=5")
            async with flow.running():
                async with flow.sending():
                    await flow.moves(30)
                    proxy.freeze()
                    await asyncio.sleep(9)
                    if fate == "reset":
                        proxy.cut()
                    await proxy.heal()
                    await flow.moves(SOON)
                await flow.complete()

    asyncio.run(run())


@pytest.mark.timeout(240)
def test_a_broker_that_is_away_while_messages_pile_up(kafka_prefix: str, kafka_server: str, tmp_path: Path) -> None:
    """PILE and AWAY are scaled down; see docs/backends.md for the figures of the full run."""

    async def run() -> None:
        async with Proxy(servers.address("kafka_behind"), servers.address("kafka_front")) as proxy:
            flow = Flow(tmp_path, f"{proxy.url}?prefix={kafka_prefix}")
            async with flow.running():
                await flow.send(1)
                await flow.moves(30)
                await proxy.refuse()
                proxy.cut()
                await flow.send(400)
                await asyncio.sleep(8)
                await proxy.heal()
                await flow.moves(SOON)
                await flow.complete()

    asyncio.run(run())


@pytest.mark.timeout(240)
def test_members_that_come_go_and_are_killed(url: str, tmp_path: Path) -> None:
    rng = random.Random(7)
    crew: list[subprocess.Popen[bytes]] = []

    def start() -> None:
        with (tmp_path / "output.txt").open("ab") as output:
            command = [sys.executable, program.__file__, str(tmp_path), url]
            crew.append(subprocess.Popen(command, stdout=output, stderr=output, env=ENVIRONMENT))

    async def run() -> None:
        flow = Flow(tmp_path, url, own_ledger=False)
        async with flow.running():
            for _ in range(3):
                start()
            async with flow.sending():
                await flow.moves(60)
                for round_ in range(8):
                    await asyncio.sleep(rng.uniform(0.3, 1.2))
                    victim = crew.pop(rng.randrange(len(crew)))
                    victim.send_signal(signal.SIGTERM if round_ % 2 else signal.SIGKILL)
                    await asyncio.to_thread(victim.wait, 60)
                    start()
                await flow.moves(60)
            await flow.complete()

    try:
        asyncio.run(run())
    finally:
        for each in crew:
            each.send_signal(signal.SIGTERM)
        codes = [each.wait(60) for each in crew]
    assert set(codes) == {0}


# Starting


def test_a_broker_that_does_not_answer_is_waited_for_and_then_named(kafka_server: str) -> None:
    async def run() -> None:
        async with Proxy(kafka_server) as proxy:
            await proxy.refuse()
            with pytest.raises(BackendUnavailableError, match=r"did not answer for 1.5 s .*"):
                async with connect(f"{proxy.url}?connect_timeout=1.5"):
                    pass

    asyncio.run(run())


def test_sasl_and_tls(kafka_server: str, kafka_prefix: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        login = servers.address("kafka_sasl")
        caplog.set_level(logging.DEBUG)
        for options in ("", "&mechanism=scram-sha-256"):
            url = f"{login}?security=sasl_plaintext&prefix={kafka_prefix}{options}"
            async with connect(url) as backend:
                await backend.publish([Message(id="1", source="t", type="a.b", topic="ledger", time=0, data=b"{}")])
                assert "mill-secret" not in repr(backend)
        wrong = login.replace("mill-secret", "mill-wrong")
        with pytest.raises(BackendError, match="refuses the login") as caught:
            async with connect(f"{wrong}?security=sasl_plaintext&connect_timeout=10"):
                pass
        assert "mill-wrong" not in str(caught.value)
        assert not [
            one for one in caplog.records if "mill-secret" in one.getMessage() or "mill-wrong" in one.getMessage()
        ]
        certificate = servers.address("certificate")
        async with connect(f"{servers.address('kafka_tls')}?security=ssl&cafile={certificate}") as backend:
            await backend.topics()
        with pytest.raises(ConfigurationError, match="nowhere"):
            async with connect(f"{servers.address('kafka_tls')}?security=ssl&cafile={tmp_path}/nowhere"):
                pass

    asyncio.run(run())


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("kafka://h?nonsense=1", "unknown option 'nonsense'"),
        ("kafka://h/topic", "has no path"),
        ("kafka://", "is no host:port"),
        ("kafka://u:p@h?security=ssl", "has no login"),
        ("kafka://h?security=sasl_ssl", "needs a login"),
        ("kafka://h?mechanism=plain", "mechanism= is for"),
        ("kafka://h?cafile=x", "cafile= is for"),
        ("kafka://h?security=ssl&certfile=x", "belong together"),
        ("kafka://h?prefix=a/b", "prefix='a/b'"),
        ("kafka://h?replication=0", "replication='0'"),
        ("kafka://u:hidden@h?security=wrong", "choose from"),
    ],
)
def test_a_url_that_cannot_be_meant(url: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as caught:
        connect(url)
    assert "hidden" not in str(caught.value)


def test_another_partition_count_is_refused_at_start(url: str, tmp_path: Path) -> None:
    async def run() -> None:
        async with connect(url) as backend:
            await backend.declare({"ledger": 3})
        with pytest.raises(ConfigurationError, match="topic 'ledger' has 3 partitions, 8 were declared"):
            async with shop(tmp_path, url):
                pass

    assert TOPICS["ledger"] == 8
    asyncio.run(run())
