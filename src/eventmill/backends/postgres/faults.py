"""Errors of the server and of the way to it, as errors of ours that say what to do."""

from __future__ import annotations

import psycopg
from psycopg import errors, pq

from eventmill.core.errors import BackendError, BackendUnavailableError, StorageFullError

AGAIN = frozenset({"40001", "40P01", "55P03", "26000", "0A000", "42P05", "25P02"})
"""Nobody's fault: serialization, deadlocks, waited too long for a lock, a prepared statement that is gone or stale."""

LOCKED = "55P03"
"""Waited too long for a lock."""

REFUSED = frozenset({"EM001", "EM002", "EM003", "EM004", "EM005"})
"""Raised by eventmill's own functions: a lost claim, a repeated message, another version of a document or of a stream, an
event with tags that were ruled out."""

_GONE = ("08", "57P", "58")
_FULL = ("53100", "53200")
_UNAVAILABLE = ("53", "25006", "57014")
_HOPELESS = (
    "authentication failed", "does not exist", "no pg_hba.conf entry", "no password supplied", "is not permitted to",
    "certificate", "invalid connection option", "invalid sslmode", "does not support SSL", "permission denied",
    "replication role to start walsender",
)  # fmt: skip


class ConnectionLost(BackendUnavailableError):
    """The connection broke; what was under way may or may not have been done."""


def of_result(result: pq.abc.PGresult) -> psycopg.Error:
    """The error a statement ended with, as psycopg has it."""
    return errors.error_from_result(result, encoding="utf-8")


def ends_connection(error: psycopg.Error) -> bool:
    """Whether the server says with this error that it will answer nothing further here."""
    return (error.sqlstate or "").startswith(("57P", "08")) or error.sqlstate == "25P03"


def environmental(error: BaseException) -> bool:
    """Whether an error is the server's or the network's fault rather than of the statement that met it."""
    if isinstance(error, BackendError):
        return True
    state = getattr(error, "sqlstate", None) or ""
    return state.startswith((*_GONE, *_FULL, *_UNAVAILABLE)) or (
        isinstance(error, psycopg.OperationalError) and not state
    )


def translated(error: BaseException, where: str) -> BackendError:
    """The error of ours for one of the server's."""
    if isinstance(error, BackendError):
        return error
    state = getattr(error, "sqlstate", None) or ""
    text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if state == "53100":
        return StorageFullError(f"{where}: the server's disk is full; free some, nothing was written ({text})")
    if state == "25006":
        return BackendUnavailableError(f"{where}: the server is read-only (a standby?): {text}")
    if state in (LOCKED, "57014"):
        return BackendUnavailableError(f"{where}: waited too long: {text}")
    if state.startswith(_GONE) or state.startswith("53") or not state:
        return BackendUnavailableError(f"{where}: {text}")
    return BackendError(f"{where}: {text}")


def hopeless(error: BaseException) -> bool:
    """Whether trying to connect again cannot help: it is for people to mend."""
    return any(sign in str(error) for sign in _HOPELESS)
