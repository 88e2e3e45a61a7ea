"""Positions in a server's write-ahead log: a number here, two hexadecimal halves in its own texts."""

from __future__ import annotations


def lsn_text(position: int) -> str:
    """As PostgreSQL writes it: `16/B374D848`."""
    return f"{position >> 32:X}/{position & 0xFFFFFFFF:X}"


def lsn_of(text: str) -> int:
    """Raises ValueError for anything else than two hexadecimal numbers and a slash."""
    high, low = text.split("/")
    return int(high, 16) << 32 | int(low, 16)
