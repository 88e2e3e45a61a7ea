"""Retry policies: pure functions of the attempt, the error, the age and a random draw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf

from eventmill.core.errors import ConfigurationError, DecodeError
from eventmill.core.outcome import DeadLetter, Outcome, Retry


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often, and when, a failing message is tried again before it is dead-lettered.

    attempts: how many times the handler is tried in all; 1 never retries.
    delays: seconds to wait before the second, third, … attempt; the last one repeats.
    jitter: each delay is multiplied by a random factor between 1 - jitter and 1 + jitter.
    max_age: seconds since the message was recorded, after which it is not tried again.
    only: exception types worth a retry; any other is dead-lettered at once.
    never: exception types that are dead-lettered at once.
    by_error: a policy of its own for an exception type (and its subclasses; the first match counts).

    Use `fixed`, `exponential` or `schedule` to make one.
    """

    attempts: int = 6
    delays: Sequence[float] = (0.5, 1.0, 2.0, 4.0, 8.0)
    jitter: float = 0.2
    max_age: float | None = None
    only: tuple[type[BaseException], ...] = (Exception,)
    never: tuple[type[BaseException], ...] = (DecodeError,)
    by_error: Mapping[type[BaseException], RetryPolicy] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.attempts, int) or self.attempts < 1:
            raise ConfigurationError(
                f"attempts={self.attempts!r}: at least 1 attempt is needed, and a whole number of them"
            )
        if self.attempts > 1 and not self.delays:
            raise ConfigurationError("delays is empty: give the seconds to wait before each further attempt")
        if not all(0 <= delay < inf for delay in self.delays):
            raise ConfigurationError(f"delays={list(self.delays)}: give seconds from 0 on, each a finite number")
        if not 0 <= self.jitter <= 1:
            raise ConfigurationError(f"jitter={self.jitter}: give a share between 0 and 1")
        if self.max_age is not None and not self.max_age > 0:
            raise ConfigurationError(f"max_age={self.max_age}: give seconds above 0, or None")
        for what, kinds in (("only", self.only), ("never", self.never), ("by_error", tuple(self.by_error))):
            if not isinstance(kinds, tuple) or not all(_is_exception(kind) for kind in kinds):
                raise ConfigurationError(
                    f"{what}={kinds!r}: give exception types, such as {what}="
                    + ("{TimeoutError: fixed(1.0)}" if what == "by_error" else "(TimeoutError,)")
                )
        for kind, policy in self.by_error.items():
            check_policy(policy, f"by_error, {kind.__name__}")

    def decide(self, attempt: int, error: BaseException, age: float, draw: float) -> Outcome:
        """The fate of a message whose `attempt` (1 is the first) failed with `error`.

        age: seconds since the message was recorded. draw: a random number in [0, 1).
        """
        for kind, policy in self.by_error.items():
            if isinstance(error, kind):
                return policy.decide(attempt, error, age, draw)
        name = type(error).__name__
        if isinstance(error, self.never) or not isinstance(error, self.only):
            return DeadLetter(f"{name} is not retried")
        if attempt >= self.attempts:
            return DeadLetter(f"failed {attempt} of {self.attempts} attempts")
        delay = self.delays[min(attempt, len(self.delays)) - 1]
        delay *= 1 + self.jitter * (2 * draw - 1)
        if self.max_age is not None and age + delay > self.max_age:
            return DeadLetter(f"older than {self.max_age:g} s at its next attempt")
        return Retry(after=delay)


def _is_exception(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseException)


def check_policy(given: object, where: str) -> None:
    """Refuse what is no retry policy."""
    if not isinstance(given, RetryPolicy):
        raise ConfigurationError(f"{where}: retry={given!r}; give a policy, such as exponential(0.5, attempts=5)")


def fixed(delay: float, *, attempts: int = 6, jitter: float = 0.0, max_age: float | None = None) -> RetryPolicy:
    """The same delay before each attempt."""
    return RetryPolicy(attempts=attempts, delays=(delay,), jitter=jitter, max_age=max_age)


def exponential(
    first: float = 0.5,
    *,
    factor: float = 2.0,
    cap: float = 300.0,
    attempts: int = 6,
    jitter: float = 0.2,
    max_age: float | None = None,
) -> RetryPolicy:
    """first, first x factor, first x factor², … seconds, at most `cap`, spread by `jitter`."""
    if not 0 <= first <= cap < inf or not 1 <= factor < inf:
        raise ConfigurationError(
            f"first={first}, factor={factor}, cap={cap}: need 0 <= first <= cap and factor >= 1, all finite"
        )
    delays = [first]
    while len(delays) < min(attempts - 1, 1024) and delays[-1] < (longer := min(cap, delays[-1] * factor)):
        delays.append(longer)
    return RetryPolicy(attempts=attempts, delays=tuple(delays), jitter=jitter, max_age=max_age)


def schedule(*delays: float, jitter: float = 0.0, max_age: float | None = None) -> RetryPolicy:
    """One attempt, then one more after each of these delays."""
    return RetryPolicy(attempts=len(delays) + 1, delays=delays, jitter=jitter, max_age=max_age)


NO_RETRY = RetryPolicy(attempts=1, delays=())
"""One attempt: the first failure is a dead letter."""
