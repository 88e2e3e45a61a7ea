"""How a transaction begins: with all that a session would remember, so that a pooler may hand out any connection."""

from __future__ import annotations

from collections.abc import Sequence

from eventmill.backends.postgres.address import Address
from eventmill.backends.postgres.values import Value, text

LOCK_TIMEOUT = 10_000
"""Milliseconds that a statement of a shared transaction waits for somebody's lock."""


def begin(address: Address, *, shared: bool = True) -> Sequence[tuple[bytes, Sequence[Value]]]:
    """The statements that open a transaction. shared: it is not the user's alone, and may not wait for long."""
    settings: list[tuple[str, str]] = []
    if address.schema is not None:
        settings.append(("search_path", f"{address.quoted}, public"))
    if address.synchronous_commit is not None:
        settings.append(("synchronous_commit", address.synchronous_commit))
    if shared:
        settings.append(("lock_timeout", str(LOCK_TIMEOUT)))
    if not settings:
        return [(b"BEGIN", ())]
    places = ", ".join(f"set_config(${2 * number + 1}, ${2 * number + 2}, true)" for number in range(len(settings)))
    values = [text(part) for setting in settings for part in setting]
    return [(b"BEGIN", ()), (f"SELECT {places}".encode(), values)]
