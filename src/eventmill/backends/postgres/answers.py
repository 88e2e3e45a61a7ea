"""What an answer of the server means, and what to do with one that nobody waits for."""

from __future__ import annotations

import asyncio

from psycopg import pq

from eventmill.core.errors import ConflictError


def conflict(key: str, expected: int | None, error: Exception) -> Exception:
    """ConflictError for the refusal of a document; another error as it is."""
    if getattr(error, "sqlstate", None) != "EM003":
        return error
    actual = int(error.diag.message_detail or 0)  # type: ignore[attr-defined]
    return ConflictError(f"document {key!r}", expected=expected, actual=actual or None)


def rows_changed(result: pq.abc.PGresult) -> int:
    """How many rows a statement has changed; -1 where it does not say."""
    rows = result.command_tuples
    return -1 if rows is None else rows


def forgotten() -> asyncio.Future[pq.abc.PGresult]:
    """A reply that nobody waits for."""
    future: asyncio.Future[pq.abc.PGresult] = asyncio.get_running_loop().create_future()
    future.cancel()
    return future
