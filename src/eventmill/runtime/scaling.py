"""How many workers the backlog asks for: a decision without a clock, a process or a database."""

from __future__ import annotations

from dataclasses import dataclass

from eventmill.core.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits to be handled. oldest: seconds that the oldest waiting message has waited, 0 when none waits."""

    messages: int
    oldest: float

    def __str__(self) -> str:
        if not self.messages:
            return "nothing waits"
        if self.messages == 1:
            return f"1 message waits, for {self.oldest:.1f} s"
        return f"{self.messages:,} messages wait, the oldest for {self.oldest:.1f} s"


@dataclass(frozen=True, slots=True)
class Change:
    """Another number of workers, and the reason as the rest of a sentence."""

    to: int
    why: str


class Scaling:
    """Adds a worker when a backlog keeps growing or drains too slowly; retires one when it stayed small.

    low, high: the bounds on workers. grow_age (seconds) and grow_messages: a backlog beyond either
    is too much, below a tenth of both it is small; between the two nothing changes. settle:
    seconds over which a trend is judged, also after each change, so that a new worker can show its
    effect first. drain_within: a backlog that falls is left alone if it will be gone in so many
    seconds. shrink_after: seconds that it must stay small before one worker is retired; doubles,
    up to 16 times, each time that a retirement turns out to have been too early.

    One object follows one backlog: it keeps what it saw, and is told the time, which never goes back.
    """

    def __init__(
        self,
        low: int,
        high: int,
        *,
        grow_age: float = 1.0,
        grow_messages: int = 1_000,
        settle: float = 2.0,
        drain_within: float = 10.0,
        shrink_after: float = 30.0,
    ) -> None:
        if not 1 <= low <= high:
            raise ConfigurationError(f"low={low}, high={high}: need 1 <= low <= high")
        if grow_age <= 0 or grow_messages < 1:
            raise ConfigurationError(
                f"grow_age={grow_age}, grow_messages={grow_messages}: give seconds above 0 and at least 1 message"
            )
        if settle <= 0 or drain_within <= 0 or shrink_after <= 0:
            raise ConfigurationError(
                f"settle={settle}, drain_within={drain_within}, shrink_after={shrink_after}: give seconds above 0"
            )
        self.low = low
        self.high = high
        self._grow_age = grow_age
        self._grow_messages = grow_messages
        self._settle = settle
        self._drain_within = drain_within
        self._shrink_after = shrink_after
        self._patience = shrink_after
        self._retired_at: float | None = None
        self._large: tuple[float, Backlog] | None = None
        self._small_since: float | None = None

    def decide(self, now: float, running: int, backlog: Backlog) -> Change | None:
        """What to change, if anything. now: seconds on a steady clock; running: workers there should be at present."""
        if running < self.low:
            return self._restart(Change(self.low, f"at least {self.low} {_workers(self.low)} asked for"))
        if running > self.high:
            return self._restart(Change(self.high, f"at most {self.high} {_workers(self.high)} allowed"))
        if backlog.messages > self._grow_messages or backlog.oldest > self._grow_age:
            self._small_since = None
            return self._grow(now, running, backlog)
        self._large = None
        if backlog.messages * 10 > self._grow_messages or backlog.oldest * 10 > self._grow_age:
            self._small_since = None
            return None
        return self._shrink(now, running)

    def _grow(self, now: float, running: int, backlog: Backlog) -> Change | None:
        if self._large is None:
            self._large = now, backlog
            return None
        since, before = self._large
        elapsed = now - since
        if elapsed < self._settle:
            return None
        self._large = now, backlog
        trend = self._trend(before, backlog, elapsed)
        if running >= self.high or trend is None:
            return None
        if self._retired_at is not None:
            early = now - self._retired_at < 2 * self._patience
            self._patience = min(self._patience * 2, self._shrink_after * 16) if early else self._shrink_after
            self._retired_at = None
        return Change(running + 1, f"{backlog}, and {trend}")

    def _trend(self, before: Backlog, after: Backlog, elapsed: float) -> str | None:
        more = after.messages > before.messages
        older = after.oldest > before.oldest
        if more:
            return "both are growing" if older else "their number is growing"
        fallen = before.messages - after.messages
        rest = after.messages * elapsed / fallen if fallen else None
        if rest is None:
            return "their age is growing" if older else "they do not get fewer"
        # The age may still rise while the number falls fast: what counts is when the last of them is handled.
        return f"draining them would take {rest:,.0f} s more" if rest > self._drain_within else None

    def _shrink(self, now: float, running: int) -> Change | None:
        if self._small_since is None:
            self._small_since = now
        quiet = now - self._small_since
        if running <= self.low or quiet < self._patience:
            return None
        self._retired_at = now
        self._small_since = now
        return Change(running - 1, f"the backlog has been small for {quiet:.0f} s")

    def _restart(self, change: Change) -> Change:
        self._large = None
        self._small_since = None
        return change


def _workers(count: int) -> str:
    return "worker is" if count == 1 else "workers are"
