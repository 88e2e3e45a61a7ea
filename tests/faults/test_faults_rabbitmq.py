"""The real server dies, is cut off, loses what was declared; nothing is lost, doubled or put out of order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import aio_pika
import pytest
from proxy import Proxy
from relaying import KEYS, exercise, reader, sender

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
