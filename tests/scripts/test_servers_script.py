"""scripts/servers: what it starts serves, survives restarts, and is gone afterwards, however its user ends."""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import aio_pika
import psycopg
import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, NewTopic

import servers

Restart = Callable[..., None]


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="eventmill-script-", dir="/var/tmp") as path:
        Path(path).chmod(0o711)
        yield Path(path) / "servers"
        servers.call("stop", "--folder", f"{path}/servers")


def start(folder: Path, *arguments: str) -> str:
    """Start a PostgreSQL, and return its URL."""
    servers.address("postgres")  # skips where it is not installed
    started = servers.call("start", "postgres", "--folder", str(folder), *arguments)
    assert started.returncode == 0, started.stderr
    addresses = dict(line.split("=", 1) for line in shlex.split(started.stdout))
    assert shlex.split((folder / "env").read_text()) == shlex.split(started.stdout)
    return addresses["EVENTMILL_TEST_POSTGRES"]


def execute(url: str, statement: str) -> int:
    with psycopg.connect(url, autocommit=True) as connection:
        return connection.execute(statement.encode()).rowcount


def refuses(url: str) -> bool:
    try:
        psycopg.connect(url, connect_timeout=5).close()
    except psycopg.OperationalError:
        return True
    return False


def server_pid(folder: Path) -> int:
    said = servers.call("status", "--folder", str(folder)).stdout
    return int(said.partition("pid=")[2].split()[0])


def gone(pid: int) -> bool:
    """Dead; a zombie that nobody collects is."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_it_starts_restarts_and_stops(folder: Path) -> None:
    url = start(folder)
    execute(url, "CREATE TABLE kept AS SELECT 1 AS n")
    assert start(folder) == url, "a second start leaves it as it is"
    for how in ([], ["--kill"]):
        pid = server_pid(folder)
        assert servers.call("restart", "postgres", *how, "--folder", str(folder)).returncode == 0
        assert gone(pid)
        assert execute(url, "SELECT * FROM kept") == 1
    pid = server_pid(folder)
    assert servers.call("stop", "--folder", str(folder)).returncode == 0
    assert gone(pid)
    assert refuses(url)
    assert not folder.exists()


def test_the_folder_of_a_crashed_run_is_no_obstacle(folder: Path) -> None:
    start(folder)
    os.kill(server_pid(folder), signal.SIGKILL)
    until(lambda: servers.call("status", "--folder", str(folder)).returncode == 1)
    assert execute(start(folder), "SELECT 1") == 1


def test_a_stranger_that_was_given_a_servers_pid_is_left_alone(folder: Path) -> None:
    start(folder)
    pid = server_pid(folder)
    with subprocess.Popen(["sleep", "60"]) as stranger:
        record = folder / "postgres" / "server.json"
        record.write_text(record.read_text().replace(f"[{pid},", f"[{stranger.pid},"))
        assert servers.call("stop", "--folder", str(folder)).returncode == 0
        assert stranger.poll() is None
        stranger.kill()
    os.kill(pid, signal.SIGQUIT)  # at once, but with its shared memory freed


def test_servers_stop_when_pytest_is_killed(tmp_path: Path) -> None:
    servers.address("postgres")
    (tmp_path / "conftest.py").write_text((Path(servers.__file__).parent / "conftest.py").read_text())
    (tmp_path / "test_hanging.py").write_text(
        "import pathlib, time\n"
        "def test_hanging(postgres_url):\n"
        f"    pathlib.Path({str(tmp_path / 'url')!r}).write_text(postgres_url)\n"
        "    time.sleep(60)\n"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("EVENTMILL_")}
    environment["PYTHONPATH"] = str(Path(servers.__file__).parent)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(tmp_path), "--rootdir", str(tmp_path)]
    with subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as run:
        until(lambda: (tmp_path / "url").exists() or run.poll() is not None)
        url = (tmp_path / "url").read_text()
        assert not refuses(url)
        run.kill()
    until(lambda: refuses(url))


def test_what_is_not_installed_is_named_with_the_remedy(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVENTMILL_KAFKA_FOLDER", str(folder / "nowhere"))
    refused = servers.call("start", "kafka", "--folder", str(folder))
    assert refused.returncode == 1
    assert "scripts/servers install" in refused.stderr
    left_out = servers.call("start", "kafka", "--available", "--folder", str(folder))
    assert left_out.returncode == 0
    assert "left out" in left_out.stderr
    assert left_out.stdout == ""


def test_an_unknown_server_is_refused(folder: Path) -> None:
    refused = servers.call("start", "oracle", "--folder", str(folder))
    assert refused.returncode == 2
    assert "postgres, rabbitmq, kafka" in refused.stderr


def test_kafka_keeps_what_it_confirmed_through_kill_9(kafka_url: str, kafka_prefix: str, restart: Restart) -> None:
    broker, topic = urlsplit(kafka_url).netloc, f"{kafka_prefix}kept"
    admin = AdminClient({"bootstrap.servers": broker})
    admin.create_topics([NewTopic(topic, 1, 1)])[topic].result()
    producer = Producer({"bootstrap.servers": broker, "acks": "all"})
    producer.produce(topic, b"here")
    assert producer.flush(20) == 0
    restart("kafka", kill=True)
    consumer = Consumer({"bootstrap.servers": broker, "group.id": topic, "auto.offset.reset": "earliest"})
    consumer.subscribe([topic])
    message = consumer.poll(30)
    consumer.close()
    assert message is not None
    assert message.value() == b"here"


async def _queue(url: str, *, publish: bool) -> bytes | None:
    async with await aio_pika.connect(url, timeout=20) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue("kept", durable=True, arguments={"x-queue-type": "quorum"})
        if publish:
            await channel.default_exchange.publish(aio_pika.Message(b"here", delivery_mode=2), "kept")
            return None
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if message := await queue.get(no_ack=True, fail=False, timeout=30):
                return message.body
        return None


def test_rabbitmq_keeps_what_it_confirmed_through_kill_9(rabbitmq_url: str, restart: Restart) -> None:
    asyncio.run(_queue(rabbitmq_url, publish=True))
    time.sleep(1)  # RabbitMQ 3.10 loses a quorum queue, not just messages, that was declared half a second before
    restart("rabbitmq", kill=True)
    assert asyncio.run(_queue(rabbitmq_url, publish=False)) == b"here"


def test_a_room_is_there_again_after_a_graceful_restart(postgres_url: str, restart: Restart) -> None:
    execute(postgres_url, "CREATE TABLE kept (n int)")
    restart("postgres")
    assert execute(postgres_url, "INSERT INTO kept VALUES (1)") == 1
