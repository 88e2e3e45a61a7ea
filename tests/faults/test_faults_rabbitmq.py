"""The real server dies, is cut off, loses what was declared; nothing is lost, doubled or put out of order."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import aio_pika
import pytest

from eventmill.core.message import Partition
from tests.backends.test_rabbitmq import broker_url
from tests.faults.relaying import KEYS, Proxy, exercise, reader, running, sender, steps
from eventmill.testing.conformance.apps import effects, in_order, until

pytestmark = pytest.mark.usefixtures("rabbitmq_url")

ROOT = Path(__file__).resolve().parents[2]


async def restart(*options: str) -> None:
    process = await asyncio.create_subprocess_exec(
        str(ROOT / "scripts" / "servers"), "restart", "rabbitmq", "--folder", os.environ["EVENTMILL_TEST_SERVERS"],
        *options, stdout=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    assert await process.wait() == 0


@pytest.mark.parametrize("options", [("--kill",), ()])
def test_a_restart_under_load(tmp_path: Path, options: tuple[str, ...]) -> None:
    async def harm() -> None:
        await asyncio.sleep(1)
        await restart(*options)

    asyncio.run(exercise(tmp_path, broker_url(tmp_path), harm, rounds=300))


def test_connections_that_are_cut(tmp_path: Path) -> None:
    async def main() -> None:
        async with Proxy(broker_url(tmp_path)).listening() as proxy:

            async def harm() -> None:
                for number in range(12):
                    await asyncio.sleep(0.3 + 0.07 * number)
                    proxy.cut()

            await exercise(tmp_path, proxy.url, harm, rounds=400)
            assert proxy.accepted > 12

    asyncio.run(main())


def test_a_half_open_connection(tmp_path: Path) -> None:
    """Longer than it takes to notice, and shorter."""

    async def main() -> None:
        async with Proxy(broker_url(tmp_path, heartbeat=1)).listening() as proxy:

            async def harm() -> None:
                for seconds in (1.0, 6.0):
                    await asyncio.sleep(1)
                    proxy.swallow()
                    await asyncio.sleep(seconds)
                    proxy.heal()

            await exercise(tmp_path, proxy.url, harm, rounds=300)

    asyncio.run(main())


def test_deleted_queues_and_exchanges_come_back(tmp_path: Path) -> None:
    url = broker_url(tmp_path)
    prefix = url.partition("prefix=")[2]

    async def main() -> None:
        apps = reader(tmp_path, url), sender(tmp_path, url)
        async with running(*apps):
            await apps[1].publish(*steps(KEYS, 1))
            await until(apps[0], lambda found: len(found) >= KEYS)
            connection = await aio_pika.connect(os.environ["EVENTMILL_TEST_RABBITMQ"])
            async with connection, connection.channel() as channel:
                for number in range(16):
                    await channel.queue_delete(f"{prefix}.readers/{Partition('conformance', number)}")
                await channel.exchange_delete(f"{prefix}.conformance")
            for number in range(1, 4):
                await apps[1].publish(*steps(KEYS, 1, number))
            await until(apps[0], lambda found: len(found) >= 4 * KEYS)
        assert in_order(await effects(apps[0])) == {f"key{key}": [0, 1, 2, 3] for key in range(KEYS)}
        for app in apps:
            await app.close()

    asyncio.run(main())
