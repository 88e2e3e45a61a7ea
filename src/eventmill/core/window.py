"""Windows: which spans of time an event belongs to. Times in milliseconds; a span holds its start and not its end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from eventmill.core.checks import check_seconds
from eventmill.core.errors import ConfigurationError


class Span(NamedTuple):
    """From `start` up to, and without, `end`."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Fixed:
    """Spans of one size; one begins `every` so many milliseconds since 1970 UTC. They overlap where every < size."""

    size: int
    every: int

    def spans(self, at: int, among: Sequence[Span]) -> Sequence[Span]:
        """All that hold the moment, earliest first."""
        last = at - at % self.every
        first = last - (self.size - 1) // self.every * self.every
        return [
            Span(start, start + self.size) for start in range(first, last + 1, self.every) if start + self.size > at
        ]


@dataclass(frozen=True, slots=True)
class Gap:
    """Spans of activity: a moment that comes within `gap` of another one belongs to the same span."""

    gap: int

    def spans(self, at: int, among: Sequence[Span]) -> Sequence[Span]:
        """The one that holds the moment and all that it joins of those `among` which it falls into."""
        start, end = at, at + self.gap
        for span in among:
            if span.start <= end and start <= span.end:
                start, end = min(start, span.start), max(end, span.end)
        return [Span(start, end)]


Window = Fixed | Gap


def tumbling(size: float) -> Window:
    """One span after another, each of `size` seconds."""
    return Fixed(_milliseconds(size, "size"), _milliseconds(size, "size"))


def sliding(size: float, *, every: float) -> Window:
    """Spans of `size` seconds, one beginning every so many seconds: an event is in several of them."""
    whole, step = _milliseconds(size, "size"), _milliseconds(every, "every")
    if step > whole:
        raise ConfigurationError(
            f"every={every:g} is more than size={size:g}: events between two windows would be in none"
        )
    if whole > 1_000 * step:
        raise ConfigurationError(
            f"size={size:g} is more than 1,000 times every={every:g}: each event would be in so many"
        )
    return Fixed(whole, step)


def session(gap: float) -> Window:
    """A span ends when nothing has come for `gap` seconds."""
    return Gap(_milliseconds(gap, "gap"))


def _milliseconds(seconds: float, what: str) -> int:
    found = round(check_seconds(seconds, "window", what) * 1000)
    if found < 1:
        raise ConfigurationError(f"{what}={seconds}: give seconds, at least 0.001")
    return found
