"""Where a command looks: a store, and the log that its groups read."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import click

from eventmill.app import App
from eventmill.backends.connect import BrokerBackend, LogBackend, StoreBackend, as_log, connect, connect_store
from eventmill.backends.memory.backend import MemoryBackend
from eventmill.backends.sqlite.backend import SqliteBackend
from eventmill.cli.target import is_url, load_app
from eventmill.core.capabilities import Capability
from eventmill.core.claims import Group
from eventmill.core.errors import CapabilityError
from eventmill.core.reading import Pending
from eventmill.patterns.relay import RELAY
from eventmill.runtime.consumer import Consumer


def kept_by(broker: BrokerBackend) -> LogBackend:
    """The broker as a log. Refused for a mere queue."""
    log = as_log(broker)
    if log is None:
        raise CapabilityError(
            f"{broker!r} hands messages out and keeps none: there is no log to read there. "
            "Give the store's URL, for what this service itself has published"
        )
    return log


@dataclass(frozen=True, slots=True)
class Place:
    """An opened store. broker: what its groups read, or None where only the App could tell; app: where one was named."""

    store: StoreBackend
    broker: BrokerBackend | None
    app: App | None

    @property
    def topics_log(self) -> LogBackend:
        """The log to list and tail: the broker's, where it is known that there is one. Refused for a mere queue."""
        return self.store if self.broker is None else kept_by(self.broker)

    @property
    def consumers(self) -> Sequence[Consumer]:
        """The consumers of the App that was named, where what is before them can be told: in a log, not in a queue."""
        if self.app is None or self.broker is None or as_log(self.broker) is None:
            return ()
        return self.app.consumers

    async def lag(self, group: Group) -> Pending | None:
        """What a group has before it; None where that is in a broker which this place does not know."""
        source = self.store if group.name == RELAY else self.broker
        return None if source is None else await source.backlog(group.name, group.cursors, group.types)


@asynccontextmanager
async def opened(target: str, *, broker: str | None = None, write: bool = False) -> AsyncIterator[Place]:
    """Open what APP_OR_URL names, which must exist already; nothing is created, nor written unless `write`."""
    app = None if is_url(target) else load_app(target)
    if app is not None:
        given_store, given_broker = app.url, app.broker_url
    else:
        given_store, given_broker = target, None
    if broker is not None:
        given_broker = broker
    async with AsyncExitStack() as stack:
        store = _store(given_store, write)
        await stack.enter_async_context(existing(store))
        source: BrokerBackend | None = store
        if given_broker is not None:
            source = connect(given_broker, readonly=not write)
            await stack.enter_async_context(existing(source))
        elif app is None and any(group.name == RELAY for group in await store.groups()):
            # A relay means that the service has a broker elsewhere, and its groups' cursors are positions of that.
            source = None
        yield Place(store, source, app)


@asynccontextmanager
async def opened_log(target: str, *, write: bool = False) -> AsyncIterator[LogBackend]:
    """The log to list and tail: of what APP_OR_URL names as in `opened`, or of a broker that keeps one, by its URL."""
    if is_url(target):
        backend = connect(target, readonly=not write)
        if Capability.STORE not in backend.offers:
            async with backend:
                yield kept_by(backend)
            return
    async with opened(target, write=write) as place:
        yield place.topics_log


B = TypeVar("B", bound=BrokerBackend)


def _store(url: str, write: bool) -> StoreBackend:
    try:
        return connect_store(url, readonly=not write)
    except CapabilityError as error:
        raise CapabilityError(
            f"{error.args[0].partition(' carries')[0]} is a broker: groups, failed messages and the outbox are in the service's store. "
            "Name the App, or the store's URL; `topics` and `tail` read a broker that keeps a log by its own URL"
        ) from error


def existing(backend: B) -> B:
    """The backend, as it is. Refuses one that would have to be created, or is nowhere else than in the process that uses it."""
    if isinstance(backend, SqliteBackend):
        file_of(backend)
    elif isinstance(backend, MemoryBackend):
        raise click.UsageError(
            f"{backend!r} lives inside the process that uses it: there is nothing to look at from here"
        )
    return backend


def file_of(backend: SqliteBackend) -> Path:
    """The database file of a backend, which must be there."""
    path = Path(backend.path)
    if not path.is_file():
        raise click.UsageError(f"{path}: there is no such file; this command does not create one")
    return path
