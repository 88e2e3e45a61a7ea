"""Keyed values with versions."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Document:
    """A keyed value. The first write makes version 1."""

    key: str
    version: int
    data: bytes


LAST = "\U0010ffff"
"""Behind every character: a prefix and this lie behind all keys that start with the prefix."""

ABSENT = 0
"""Expected version of a document that must not exist yet."""
