"""Opening an SQLite file the one way that is safe here."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Coroutine
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from eventmill.core.errors import BackendError, BackendUnavailableError, ConfigurationError, StorageFullError

PROFILES = {"full": "FULL", "normal": "NORMAL"}

OPENING = 5.0
"""Seconds that opening a file waits for others who are about it."""


def connect(path: str, *, synchronous: str = "full", readonly: bool = False) -> sqlite3.Connection:
    """A connection in autocommit mode that waits for no lock and never checkpoints by itself.

    It may be used from any thread, one at a time. Checkpoints are the writer's, made while nobody
    else can write: SQLite up to 3.51.2 can corrupt a file when a checkpoint races a WAL reset.
    """
    uri = Path(path).absolute().as_uri() + ("?mode=ro" if readonly else "")
    try:
        connection = sqlite3.connect(
            uri, uri=True, timeout=0, isolation_level=None, check_same_thread=False, cached_statements=512
        )
        connection.execute(f"PRAGMA busy_timeout = {OPENING * 1000:.0f}")
        if not readonly:
            mode = _wal(connection)
            if mode != "wal":
                raise ConfigurationError(f"{path}: no WAL mode here (journal_mode is {mode}); use a local disk")
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute(f"PRAGMA synchronous = {PROFILES[synchronous]}")
        connection.execute("PRAGMA journal_size_limit = 67108864")
        # What is deleted is overwritten: a key that was destroyed must not be found in a free page.
        connection.execute("PRAGMA secure_delete = 1")
        connection.execute("PRAGMA cache_size = -32768")
        connection.execute("PRAGMA busy_timeout = 0")
    except sqlite3.Error as error:
        raise translate(error, path) from error
    return connection


def _wal(connection: sqlite3.Connection) -> str:
    """Switch to WAL mode; returns the mode that the file is in then.

    Of several processes that open a new file at once, those that come second are told at once that it is locked:
    SQLite does not wait where two that hold the file shared want it alone. So it is asked again.
    """
    until = time.monotonic() + OPENING
    while True:
        try:
            return str(connection.execute("PRAGMA journal_mode = WAL").fetchone()[0])
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
        time.sleep(0.005)


def translate(error: sqlite3.Error, path: str) -> BackendError:
    """The error of ours that says what to do about one of SQLite's."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return StorageFullError(f"{path}: no space left on the device; free some, nothing was written")
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return BackendUnavailableError(f"{path}: another process keeps the database locked")
    if code == sqlite3.SQLITE_CANTOPEN:
        return BackendUnavailableError(f"{path}: cannot be opened; check that the folder exists and may be written to")
    if code == sqlite3.SQLITE_NOTADB:
        return BackendError(f"{path}: this file is not an SQLite database")
    if code == sqlite3.SQLITE_CORRUPT:
        return BackendError(f"{path}: the file is damaged; stop all processes, keep a copy, and restore a backup")
    if code == sqlite3.SQLITE_READONLY:
        return BackendUnavailableError(f"{path}: the file or its folder is read-only")
    return BackendError(f"{path}: {error}")


class _Opened(Protocol):
    path: str


S = TypeVar("S", bound=_Opened)
P = ParamSpec("P")
T = TypeVar("T")


def translated(
    method: Callable[Concatenate[S, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[S, P], Coroutine[Any, Any, T]]:
    """A method that reads: what SQLite refuses it (a damaged file, a failing disk) is told as an error of ours."""

    @wraps(method)
    async def reading(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await method(self, *args, **kwargs)
        except sqlite3.Error as error:
            raise translate(error, self.path) from error

    return reading


ENVIRONMENTAL = frozenset(
    {
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_NOMEM,
    }
)


def environmental(error: BaseException) -> bool:
    """Whether an error is the machine's fault rather than of the statement that met it."""
    return isinstance(error, sqlite3.Error) and (getattr(error, "sqlite_errorcode", 0) & 0xFF) in ENVIRONMENTAL
