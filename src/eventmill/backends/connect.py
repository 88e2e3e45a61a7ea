"""From a URL to a backend."""

from __future__ import annotations

from types import TracebackType
from typing import Protocol
from urllib.parse import parse_qsl, unquote, urlsplit

from eventmill.backends.memory.backend import MemoryBackend
from eventmill.backends.sqlite.backend import SqliteBackend
from eventmill.backends.sqlite.connection import PROFILES
from eventmill.core.capabilities import Log, Store
from eventmill.core.clock import Clock, SystemClock
from eventmill.core.errors import ConfigurationError


class StoreBackend(Log, Store, Protocol):
    """A backend that is a whole store: log, cursors, jobs and documents. `async with` opens and closes it."""

    async def __aenter__(self) -> object: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


_SQLITE_OPTIONS = {"synchronous", "busy_timeout"}


def connect(url: str, clock: Clock | None = None, *, readonly: bool = False) -> StoreBackend:
    """The backend of a URL, not yet open.

    `sqlite:///orders.db` is a path relative to the current folder, `sqlite:////var/lib/orders.db` an absolute
    one; options: `synchronous=full|normal`, `busy_timeout=SECONDS`. `memory://` is the App's own;
    backends of one `memory://NAME` share it within one event loop.
    Raises ConfigurationError for anything it does not know.
    """
    clock = clock or SystemClock()
    parts = urlsplit(url)
    if parts.scheme == "memory":
        return MemoryBackend(clock, name=unquote(parts.netloc + parts.path) or None)
    if parts.scheme != "sqlite":
        known = "sqlite:///file.db or memory://"
        raise ConfigurationError(
            f"{_masked(url)}: no backend for {parts.scheme or 'a URL without a scheme'}; use {known}"
        )
    if parts.netloc or not parts.path.strip("/"):
        raise ConfigurationError(f"{_masked(url)}: a SQLite URL has three slashes and a file: sqlite:///orders.db")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    if unknown := sorted(set(options) - _SQLITE_OPTIONS):
        raise ConfigurationError(
            f"{url}: unknown option {unknown[0]!r}; SQLite knows {', '.join(sorted(_SQLITE_OPTIONS))}"
        )
    synchronous = options.get("synchronous", "full").lower()
    if synchronous not in PROFILES:
        raise ConfigurationError(f"{url}: synchronous={synchronous!r}; choose from {', '.join(PROFILES)}")
    return SqliteBackend(
        unquote(parts.path[1:]),
        clock,
        synchronous=synchronous,
        busy_timeout=_seconds(url, options.get("busy_timeout", "30")),
        readonly=readonly,
        shared=True,
    )


def _seconds(url: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 86_400:
        raise ConfigurationError(f"{url}: busy_timeout={text!r}; give seconds above 0")
    return value


def _masked(url: str) -> str:
    """A URL that may be shown: without its password."""
    parts = urlsplit(url)
    if parts.password is None:
        return url
    return url.replace(f":{parts.password}@", ":***@", 1)
