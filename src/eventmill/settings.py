"""The knobs of an App, all with defaults that are safe."""

from __future__ import annotations

from dataclasses import dataclass, fields

from eventmill.core.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Settings:
    """How an App behaves. Times in seconds, sizes in bytes.

    lease: how long a silent worker keeps its work before others take it over; it says so every third of it.
    grace: how long a stopping worker may take to finish what it has begun.
    prefetch, prefetch_bytes: how much one member of a group holds at a time.
    max_bytes, max_depth: limits of one event, refused at publish.
    inbox_retention: how long marks against repeated messages are kept; must exceed the time a broker may redeliver in.
    dead_retention: how long a dead letter waits for an operator before it is skipped.
    housekeeping: how often retention is seen to.
    """

    lease: float = 10.0
    grace: float = 20.0
    prefetch: int = 512
    prefetch_bytes: int = 16 << 20
    max_bytes: int = 1 << 20
    max_depth: int = 64
    inbox_retention: float = 7 * 86_400.0
    dead_retention: float = 90 * 86_400.0
    housekeeping: float = 60.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
                raise ConfigurationError(f"{field.name}={value!r}: give a number above 0")
        if self.lease < 0.5:
            raise ConfigurationError(
                f"lease={self.lease}: below 0.5 s a busy machine would lose leases it still works on"
            )
