"""What tests of a real server ask for. `servers` says how the servers come about, `rooms` what a test gets of them."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator

import pytest

import rooms
import servers

Restart = Callable[..., None]


def pytest_collection_finish(session: pytest.Session) -> None:
    """Start what the collected tests need, side by side, and nothing for those that need nothing."""
    if not session.config.option.collectonly:
        fixtures = {name for item in session.items for name in getattr(item, "fixturenames", ())}
        servers.provide({name for name in servers.NAMES if f"{name}_server" in fixtures})


def pytest_configure() -> None:
    """A shell starts what it puts in the background with SIGINT ignored, and so would be what the tests start and interrupt."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_unconfigure() -> None:
    servers.release()


@pytest.fixture(scope="session")
def postgres_server() -> str:
    """The URL of the server's own database, as a user who may do everything."""
    return servers.address("postgres")


@pytest.fixture(scope="session")
def rabbitmq_server() -> str:
    """The URL of the virtual host `/`, as a user who may do everything."""
    return servers.address("rabbitmq")


@pytest.fixture(scope="session")
def rabbitmq_management(rabbitmq_server: str) -> str:
    """Where `rooms.manage` finds RabbitMQ's management API."""
    return servers.address("rabbitmq_management")


@pytest.fixture(scope="session")
def kafka_server() -> str:
    """The URL of the broker, without topics of anybody's."""
    return servers.address("kafka")


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[str]:
    """A database of the test's own."""
    with rooms.database(postgres_server) as url:
        yield url


@pytest.fixture
def rabbitmq_url(rabbitmq_server: str, rabbitmq_management: str) -> Iterator[str]:
    """A virtual host of the test's own."""
    with rooms.virtual_host(rabbitmq_server, rabbitmq_management) as url:
        yield url


@pytest.fixture
def kafka_url(kafka_server: str) -> str:
    """The broker that all tests share: name topics and groups with `kafka_prefix`."""
    return kafka_server


@pytest.fixture
def kafka_prefix(kafka_server: str) -> Iterator[str]:
    """What the names of the test's topics and groups begin with; the topics are deleted after the test."""
    with rooms.topics(kafka_server) as prefix:
        yield prefix


@pytest.fixture
def restart() -> Restart:
    """`restart("kafka", kill=True)`: end a server, gracefully or with kill -9, and have it serve again.

    The same data, the same ports; seconds go by. It blocks: in a coroutine, `await asyncio.to_thread(restart, …)`.
    """

    def restart(name: str, *, kill: bool = False) -> None:
        servers.address(name)
        done = servers.call("restart", name, *(["--kill"] if kill else []), "--folder", servers.address("servers"))
        assert done.returncode == 0, done.stderr

    return restart


@pytest.fixture(scope="module")
def rabbitmq_room(rabbitmq_server: str, rabbitmq_management: str) -> Iterator[str]:
    """A virtual host for all tests of a module."""
    with rooms.virtual_host(rabbitmq_server, rabbitmq_management) as url:
        yield url
