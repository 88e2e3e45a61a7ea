"""How long a claim lasts without news from who holds it."""

from __future__ import annotations

from dataclasses import dataclass

_NEVER = float("-inf")


@dataclass(slots=True)
class Lease:
    """A member's claim. until: seconds since 1970 UTC. seconds: the length it was last given."""

    member: str
    until: float
    seconds: float

    @classmethod
    def starting(cls, member: str, now: float, seconds: float) -> Lease:
        return cls(member, now + seconds, seconds)

    def extend(self, now: float, seconds: float) -> None:
        if self.until == _NEVER:
            return
        self.until = now + seconds
        self.seconds = seconds

    def end(self) -> None:
        """Count as ended from here on, whatever the clock and late heartbeats say."""
        self.until = _NEVER

    def ended(self, now: float) -> bool:
        """Whether it ran out, or lies so far ahead that only a clock set back explains it."""
        return not now < self.until <= now + 2 * self.seconds
