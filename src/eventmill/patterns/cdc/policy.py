"""What to do when a source keeps too much of its log for a capture that is behind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from eventmill.core.changes import Health
from eventmill.core.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class RetentionPolicy:
    """When the source keeps more than `limit` bytes for the capture, then:

    pause: a snapshot under way waits until the stream has caught up to half of the limit; it is the snapshot that can
    wait. refuse: the capture ends with an error, and does not start; what the source keeps is for people to decide.
    drop: what the source keeps is given up, since its disk matters more; the capture ends and must begin anew.
    """

    limit: int = 10 << 30
    act: Literal["pause", "refuse", "drop"] = "pause"

    def __post_init__(self) -> None:
        if self.limit < 1:
            raise ConfigurationError(f"limit={self.limit}: give bytes above 0")
        if self.act not in ("pause", "refuse", "drop"):
            raise ConfigurationError(f"act={self.act!r}: choose pause, refuse or drop")

    def exceeded(self, health: Health) -> bool:
        return health.retained > self.limit

    def relaxed(self, health: Health) -> bool:
        """Whether a pause may end."""
        return health.retained <= self.limit // 2
