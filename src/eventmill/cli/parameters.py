"""Values that people write on the command line: 7d, 1GB, 1..4."""

from __future__ import annotations

import re
from datetime import datetime

import click

_SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|min|h|d|w)", re.ASCII)
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3_600.0, "d": 86_400.0, "w": 604_800.0}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*((?:[kmgt]i?)?b?)", re.ASCII | re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_RANGE = re.compile(r"(\d+)(?:\.\.(\d+))?", re.ASCII)


def seconds(text: str) -> float:
    """Seconds, from a number with a unit."""
    match = _SPAN.fullmatch(text.strip())
    if match is None:
        raise click.BadParameter(f"{text!r} is no span of time; write a number and ms, s, min, h, d or w, such as 7d")
    return float(match[1]) * _SECONDS[match[2]]


def moment(text: str) -> int:
    """Milliseconds since 1970 UTC, from a date and time with its zone: 2026-11-01T12:00Z, 2026-11-01T13:00+01:00."""
    try:
        at = datetime.fromisoformat(text.strip())
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is no moment; write 2026-11-01T12:00Z") from error
    if at.tzinfo is None:
        raise click.BadParameter(f"{text!r} does not say its time zone; write {text.strip()}Z for UTC, or +01:00")
    return int(at.timestamp() * 1000)


def size(text: str) -> int:
    """Bytes: plain, in powers of 1,000 (kB, MB, GB, TB) or of 1,024 (KiB, MiB, GiB, TiB)."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise click.BadParameter(f"{text!r} is no size; write a number and B, kB, MB, GB, KiB, MiB or GiB, such as 1GB")
    unit = match[2].lower().removesuffix("b")
    base = 1_024 if unit.endswith("i") else 1_000
    return int(float(match[1]) * base ** _POWERS[unit.removesuffix("i")])


def processes(text: str) -> tuple[int, int]:
    """How many worker processes: a number, or the bounds between which the backlog decides."""
    match = _RANGE.fullmatch(text.strip())
    if match is None:
        raise click.BadParameter(f"{text!r} is neither a number of processes (4) nor a range (1..4)")
    low, high = int(match[1]), int(match[2] or match[1])
    if not 1 <= low <= high:
        raise click.BadParameter(f"{text!r}: need 1 <= LOW <= HIGH")
    return low, high
