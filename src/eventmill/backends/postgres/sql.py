"""eventmill's own statements, for one schema."""

from __future__ import annotations

from functools import cache

from eventmill.backends.sql.statements import load

_TEXTS = load("eventmill.backends.postgres", "statements.sql")


@cache
def statements(schema: str) -> dict[str, bytes]:
    """The statements by their names. schema: quoted, as SQL writes it."""
    return {name: text.replace("{schema}", schema).encode() for name, text in _TEXTS.items()}
