"""What becomes of a handled message. Outcomes are values, so that policy can be pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from eventmill.core.checks import check_seconds
from eventmill.core.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Ack:
    """Done: the handler's commit succeeded."""


@dataclass(frozen=True, slots=True)
class Retry:
    """Try again, `after` so many seconds."""

    after: float = 0.0

    def __post_init__(self) -> None:
        check_seconds(self.after, "Retry", "after", zero=True)


@dataclass(frozen=True, slots=True)
class Snooze:
    """Not now: again in so many seconds. It was no failure, and spends no attempt."""

    seconds: float

    def __post_init__(self) -> None:
        check_seconds(self.seconds, "Snooze", "seconds", zero=True)


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Give up, and keep the message where an operator sees it, with the reason."""

    reason: str

    def __post_init__(self) -> None:
        if not isinstance(self.reason, str) or not self.reason:
            raise ConfigurationError(f"DeadLetter: reason={self.reason!r}; say in words why it is given up")


@dataclass(frozen=True, slots=True)
class Released:
    """Of a batch: some are dead letters that hold nothing up, and the others are done.

    reasons: why, by the id and source of each dead one.
    """

    reasons: Mapping[tuple[str, str], str]


Outcome = Ack | Retry | Snooze | DeadLetter | Released
