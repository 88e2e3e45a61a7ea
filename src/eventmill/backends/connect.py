"""From a URL to a backend."""

from __future__ import annotations

from importlib import import_module
from pathlib import PurePath
from types import TracebackType
from typing import Any, NamedTuple, Protocol, cast

from eventmill.backends.url import Url
from eventmill.core.capabilities import Capability, Log, Publisher, Store, Subscriber
from eventmill.core.changes import Source
from eventmill.core.clock import Clock, SystemClock
from eventmill.core.errors import CapabilityError


class Opened(Protocol):
    """`async with` opens and closes it. offers: what it can do."""

    offers: frozenset[Capability]

    async def __aenter__(self) -> object: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class BrokerBackend(Publisher, Subscriber, Opened, Protocol):
    """A backend that carries messages between services."""


class LogBackend(Log, Opened, Protocol):
    """A backend that keeps them, so that they can be read again."""


class StoreBackend(Log, Store, Opened, Protocol):
    """A backend that is a whole store: log, cursors, jobs and documents."""


class _Kind(NamedTuple):
    module: str
    name: str
    extra: str | None
    """What to install for it, where it is more than the core."""
    example: str


KINDS = {
    "sqlite": _Kind("eventmill.backends.sqlite.backend", "SqliteBackend", None, "sqlite:///file.db"),
    "memory": _Kind("eventmill.backends.memory.backend", "MemoryBackend", None, "memory://"),
    "postgresql": _Kind(
        "eventmill.backends.postgres.backend", "PostgresBackend", "postgres", "postgresql://user@host/database"
    ),
    "kafka": _Kind("eventmill.backends.kafka.backend", "KafkaBackend", "kafka", "kafka://host:9092"),
    "amqp": _Kind("eventmill.backends.rabbitmq.backend", "RabbitBackend", "rabbitmq", "amqp://user@host/vhost"),
}
"""Where each scheme's backend is. A module is loaded when a URL asks for it: it may need what is not installed."""

ALIASES = {"postgres": "postgresql", "amqps": "amqp"}

STORES = ("sqlite", "postgresql", "memory")


SOURCES = {
    "sqlite": _Kind("eventmill.backends.sqlite.capturing.source", "SqliteSource", None, "sqlite:///legacy.db"),
    "postgresql": _Kind(
        "eventmill.backends.postgres.replication.source",
        "PostgresSource",
        "postgres",
        "postgresql://user@host/database",
    ),
}
"""Databases whose tables can be captured."""


def connect(url: str, clock: Clock | None = None, *, readonly: bool = False) -> BrokerBackend:
    """The backend of a URL, not yet open; its class says which options it takes.

    Raises ConfigurationError for anything it does not know, and for a backend whose driver is not installed.
    """
    parsed = Url.parse(url)
    kind = KINDS.get(ALIASES.get(parsed.scheme, parsed.scheme))
    if kind is None:
        known = ", ".join(kind.example for kind in KINDS.values())
        raise parsed.refusal(f"no backend for {parsed.scheme or 'a URL without a scheme'}; use one of {known}")
    backend = _load(kind, parsed)
    return cast(BrokerBackend, backend.from_url(parsed, clock or SystemClock(), readonly=readonly))


def connect_source(url: str, clock: Clock) -> Source:
    """The database of a URL as one whose tables are captured; nothing is opened yet. Errors as for `connect`."""
    parsed = Url.parse(url)
    kind = SOURCES.get(ALIASES.get(parsed.scheme, parsed.scheme))
    if kind is None:
        known = ", ".join(kind.example for kind in SOURCES.values())
        raise parsed.refusal(
            f"changes cannot be captured from {parsed.scheme or 'a URL without a scheme'}; use {known}"
        )
    return cast(Source, _load(kind, parsed).from_url(parsed, clock))


def database_of(url: str) -> str:
    """The database's name, as far as it may be part of other names."""
    return PurePath(Url.parse(url).path).stem.lower()


def _load(kind: _Kind, url: Url) -> Any:
    try:
        return getattr(import_module(kind.module), kind.name)
    except ModuleNotFoundError as error:
        if kind.extra is None or (error.name or "").startswith("eventmill"):
            raise
        raise url.refusal(f"{error.name} is not installed; run: pip install 'eventmill[{kind.extra}]'") from error


def connect_store(url: str, clock: Clock | None = None, *, readonly: bool = False) -> StoreBackend:
    """The same where a service keeps its truth. Raises CapabilityError for what only carries messages."""
    backend = connect(url, clock, readonly=readonly)
    if Capability.STORE not in backend.offers:
        stores = ", ".join(KINDS[scheme].example for scheme in STORES)
        raise CapabilityError(
            f"{backend!r} carries messages, but cannot be a service's store: that keeps cursors, jobs and documents in "
            f"one transaction with your tables. Give it as broker=, and one of these as the store: {stores}"
        )
    return cast(StoreBackend, backend)


def as_log(backend: BrokerBackend) -> LogBackend | None:
    """The backend as a log, if it is one."""
    return cast(LogBackend, backend) if Capability.LOG in backend.offers else None


def as_store(backend: BrokerBackend) -> StoreBackend | None:
    """The backend as a whole store, if it is one."""
    return cast(StoreBackend, backend) if Capability.STORE in backend.offers else None
