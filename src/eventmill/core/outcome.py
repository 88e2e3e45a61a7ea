"""What becomes of a handled message. Outcomes are values, so that policy can be pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Ack:
    """Done: the handler's commit succeeded."""


@dataclass(frozen=True, slots=True)
class Retry:
    """Try again, `after` so many seconds."""

    after: float = 0.0


@dataclass(frozen=True, slots=True)
class Snooze:
    """Not now: again in so many seconds. It was no failure, and spends no attempt."""

    seconds: float


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Give up, and keep the message where an operator sees it, with the reason."""

    reason: str


@dataclass(frozen=True, slots=True)
class Released:
    """Of a batch: some are dead letters that hold nothing up, and the others are done.

    reasons: why, by the id and source of each dead one.
    """

    reasons: Mapping[tuple[str, str], str]


Outcome = Ack | Retry | Snooze | DeadLetter | Released
