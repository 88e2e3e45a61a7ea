"""How a transaction begins: with all that a session would remember, so that a pooler may hand out any connection."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

from eventmill.backends.postgres.address import Address
from eventmill.backends.postgres.values import Value, text


class Lock(IntEnum):
    """Milliseconds that a statement waits for somebody's lock."""

    SHARED = 100
    """Where several units share the transaction: they keep rows of many keys from others, and the server takes a
    second to see that two such transactions wait for each other."""

    ALONE = 2_000
    """Where a unit is alone, but on the connection that others wait for."""

    PUBLISHED = 10_000
    """Where only messages are written: what they may wait for is another one of the same key, in a user's transaction."""

    USERS = 0
    """For as long as it takes: it is the user's own transaction."""


def begin(address: Address, lock: Lock) -> Sequence[tuple[bytes, Sequence[Value]]]:
    """The statements that open a transaction."""
    settings: list[tuple[str, str]] = []
    if address.schema is not None:
        settings.append(("search_path", f"{address.quoted}, public"))
    if address.synchronous_commit is not None:
        settings.append(("synchronous_commit", address.synchronous_commit))
    if lock:
        settings.append(("lock_timeout", str(int(lock))))
    if not settings:
        return [(b"BEGIN", ())]
    places = ", ".join(f"set_config(${2 * number + 1}, ${2 * number + 2}, true)" for number in range(len(settings)))
    values = [text(part) for setting in settings for part in setting]
    return [(b"BEGIN", ()), (f"SELECT {places}".encode(), values)]
