"""The real server dies, is cut off, loses what was declared; nothing is lost, doubled or put out of order."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import aio_pika
import member
import pytest
from proxy import Proxy
from relaying import KEYS, exercise, reader, sender
from workers import ENVIRONMENT

from eventmill.backends.connect import connect
from eventmill.backends.rabbitmq import publishing
from eventmill.core.errors import BackendUnavailableError
from eventmill.core.message import Partition
from eventmill.testing.conformance.apps import effects, in_order, running, steps, until
from eventmill.testing.conformance.samples import TOPIC, partitions
from eventmill.testing.conformance.samples import message as sample


@pytest.mark.parametrize("kill", [True, False])
def test_a_restart_under_load(tmp_path: Path, rabbitmq_url: str, restart: Callable[..., None], kill: bool) -> None:
    async def harm() -> None:
        await asyncio.sleep(1)
        await asyncio.to_thread(restart, "rabbitmq", kill=kill)

    asyncio.run(exercise(tmp_path, rabbitmq_url, harm, rounds=300))


def test_connections_that_are_cut(tmp_path: Path, rabbitmq_url: str) -> None:
    async def main() -> None:
        async with Proxy(rabbitmq_url) as proxy:

            async def harm() -> None:
                for number in range(12):
                    await asyncio.sleep(0.3 + 0.07 * number)
                    proxy.cut()

            await exercise(tmp_path, proxy.url, harm, rounds=400)

    asyncio.run(main())


def test_cuts_after_so_many_bytes(tmp_path: Path, rabbitmq_url: str) -> None:
    """In the middle of frames, and of what confirms and acknowledges them."""

    async def main() -> None:
        async with Proxy(rabbitmq_url) as proxy:

            async def harm() -> None:
                for number in range(8):
                    await asyncio.sleep(0.6)
                    proxy.cut_after(700 + 3_917 * number, towards="client" if number % 2 else "server")

            await exercise(tmp_path, proxy.url, harm, rounds=300)

    asyncio.run(main())


def test_a_half_open_connection(tmp_path: Path, rabbitmq_url: str) -> None:
    """Longer than it takes to notice, and shorter."""

    async def main() -> None:
        async with Proxy(rabbitmq_url) as proxy:

            async def harm() -> None:
                for seconds in (1.0, 6.0):
                    await asyncio.sleep(1)
                    proxy.freeze()
                    await asyncio.sleep(seconds)
                    await proxy.heal()

            await exercise(tmp_path, f"{proxy.url}?heartbeat=1", harm, rounds=300)

    asyncio.run(main())


def test_deleted_queues_and_exchanges_come_back(tmp_path: Path, rabbitmq_url: str) -> None:
    async def main() -> None:
        apps = reader(tmp_path, rabbitmq_url), sender(tmp_path, rabbitmq_url)
        async with running(*apps):
            await apps[1].publish(*steps(KEYS, 1))
            await until(apps[0], lambda found: len(found) >= KEYS)
            connection = await aio_pika.connect(rabbitmq_url)
            async with connection, connection.channel() as channel:
                for number in range(16):
                    await channel.queue_delete(f"eventmill.readers/{Partition('conformance', number)}")
                await channel.exchange_delete("eventmill.conformance")
            for number in range(1, 4):
                await apps[1].publish(*steps(KEYS, 1, number))
            await until(apps[0], lambda found: len(found) >= 4 * KEYS)
        assert in_order(await effects(apps[0])) == {f"key{key}": [0, 1, 2, 3] for key in range(KEYS)}
        for app in apps:
            await app.close()

    asyncio.run(main())


def test_publishing_during_an_outage_ends(rabbitmq_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishing, "REACH", 0.5)
    monkeypatch.setattr(publishing, "CONFIRM", 1.0)

    async def main() -> None:
        async with Proxy(rabbitmq_url) as proxy, connect(proxy.url) as rabbit:
            await rabbit.declare({TOPIC: 16})
            await rabbit.admit("all", None, partitions(16))
            await rabbit.publish([sample(1)])
            proxy.freeze()
            calls = [asyncio.create_task(rabbit.publish([sample(number)])) for number in range(2, 22)]
            for result in await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 5):
                assert isinstance(result, BackendUnavailableError), result
            await proxy.heal()
            await asyncio.sleep(1.5)
            await rabbit.publish([sample(30)])

    asyncio.run(main())


def test_members_that_come_and_go_and_die(tmp_path: Path, rabbitmq_url: str) -> None:
    """Processes start, stop, are killed, and are paused for longer than their lease."""
    url = f"{rabbitmq_url}?heartbeat=1"
    rng = random.Random(5)
    members: list[subprocess.Popen[bytes]] = []

    def start() -> None:
        with (tmp_path / "output.txt").open("ab") as output:
            command = [sys.executable, member.__file__, str(tmp_path), url, f"member{len(members)}"]
            members.append(subprocess.Popen(command, stdout=output, stderr=output, env=ENVIRONMENT))

    async def harm() -> None:
        for _ in range(14):
            await asyncio.sleep(rng.uniform(0.3, 1.2))
            alive = [process for process in members if process.poll() is None]
            victim = rng.choice(alive)
            deed = rng.choice(["kill", "stop", "pause"])
            if deed == "pause":
                victim.send_signal(signal.SIGSTOP)
                await asyncio.sleep(rng.uniform(0.5, 3.5))
                victim.send_signal(signal.SIGCONT)
            else:
                victim.send_signal(signal.SIGKILL if deed == "kill" else signal.SIGTERM)
                start()

    try:
        for _ in range(3):
            start()
        asyncio.run(exercise(tmp_path, url, harm, rounds=600, members=1))
    finally:
        for process in members:
            process.kill()
            process.wait()


def test_a_server_that_takes_nothing_for_a_while(tmp_path: Path, rabbitmq_url: str) -> None:
    """Down while messages gather in the outbox; afterwards all of them arrive, in order."""
    count = 1_000 if "EVENTMILL_LONG" not in os.environ else 100_000 // KEYS

    async def main() -> None:
        async with Proxy(rabbitmq_url) as proxy:
            apps = reader(tmp_path, proxy.url), sender(tmp_path, proxy.url)
            async with running(*apps):
                await apps[1].publish(*steps(KEYS, 1))
                await until(apps[0], lambda found: len(found) >= KEYS)
                await proxy.refuse()
                proxy.cut()
                for number in range(1, count):
                    await apps[1].publish(*steps(KEYS, 1, number))
                await asyncio.sleep(3 if count == 1_000 else 60)
                await proxy.heal()
                healed = asyncio.get_running_loop().time()
                await until(apps[0], lambda found: len(found) > KEYS)
                assert asyncio.get_running_loop().time() - healed < 10
                await until(apps[0], lambda found: len(found) >= count * KEYS, 60)
            assert in_order(await effects(apps[0])) == {f"key{key}": list(range(count)) for key in range(KEYS)}
            for app in apps:
                await app.close()

    asyncio.run(main())


def test_an_outage_is_called_by_its_name(
    tmp_path: Path, rabbitmq_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The relay says why it starts again, and not that somebody took its lease."""
    monkeypatch.setattr(publishing, "REACH", 0.3)

    async def main() -> None:
        async with Proxy(rabbitmq_url) as proxy, sender(tmp_path, proxy.url) as app, running(app):
            await app.publish(*steps(1, 1))
            await proxy.refuse()
            proxy.cut()
            while "relay starts again in" not in caplog.text:
                await asyncio.sleep(0.05)
            await app.publish(*steps(1, 1, 1))
            await asyncio.sleep(1)
            await proxy.heal()

    asyncio.run(main())
    assert "not reached within" in caplog.text
    assert "refused by the store" not in caplog.text
