"""Where a command looks: a store, and the log that its groups read."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import click

from eventmill.app import App
from eventmill.backends.connect import StoreBackend, connect
from eventmill.backends.sqlite.backend import SqliteBackend
from eventmill.cli.target import is_url, load_app
from eventmill.core.claims import Group
from eventmill.core.reading import Pending
from eventmill.patterns.relay import RELAY


@dataclass(frozen=True, slots=True)
class Place:
    """An opened store. log: what its groups read, or None where only the App could tell; app: where one was named."""

    store: StoreBackend
    log: StoreBackend | None
    app: App | None

    @property
    def topics_log(self) -> StoreBackend:
        """The log to list and tail: the broker's, where it is known that there is one."""
        return self.log or self.store

    async def lag(self, group: Group) -> Pending | None:
        """What a group has before it; None where that is in a broker which this place does not know."""
        source = self.store if group.name == RELAY else self.log
        return None if source is None else await source.pending(group.cursors, group.types)


@asynccontextmanager
async def opened(target: str, *, broker: str | None = None, write: bool = False) -> AsyncIterator[Place]:
    """Open what APP_OR_URL names, which must exist already; nothing is created, nor written unless `write`."""
    app = None if is_url(target) else load_app(target)
    if app is not None:
        given_store, given_log = app.store, app.log
    else:
        given_store = given_log = connect(target)
    if broker is not None:
        given_log = connect(broker)
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(_existing(given_store, write=write))
        log: StoreBackend | None = store
        if given_log is not given_store:
            log = await stack.enter_async_context(_existing(given_log, write=write))
        elif app is None and any(group.name == RELAY for group in await store.groups()):
            # A relay means that the service has a broker elsewhere, and its groups' cursors are positions of that.
            log = None
        yield Place(store, log, app)


def _existing(backend: StoreBackend, *, write: bool) -> SqliteBackend:
    """The same place once more, without the right to create it."""
    path = file_of(backend)
    if not path.is_file():
        raise click.UsageError(f"{path}: there is no such file; this command does not create one")
    return SqliteBackend(str(path), readonly=not write)


def file_of(backend: StoreBackend) -> Path:
    """The database file of a backend."""
    if not isinstance(backend, SqliteBackend):
        raise click.UsageError(
            f"{backend!r} lives inside the process that uses it: there is nothing to look at from here"
        )
    return Path(backend.path)
