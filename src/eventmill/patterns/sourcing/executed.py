"""What became of a command."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from eventmill.core.stream import Appended


class Executed:
    """A command's outcome.

    value: what the command returned. events: the facts it yielded, in order.
    In a transaction of your own, positions are known when that has committed.
    """

    __slots__ = ("_appended", "events", "value")

    def __init__(self, appended: Sequence[Appended], events: Sequence[Any], value: Any) -> None:
        self._appended = appended
        self.events = events
        self.value = value

    def __repr__(self) -> str:
        return f"Executed(version={self.version}, events={list(self.events)!r}, value={self.value!r})"

    @property
    def version(self) -> int:
        """The version of the (last) stream after the command; where it yielded nothing, the one it was decided at."""
        return self._appended[-1].version if self._appended else 0

    @property
    def positions(self) -> Sequence[int]:
        """Where its events stand in the log."""
        return [position for appended in self._appended for position in appended.positions]

    @property
    def position(self) -> int:
        """The last of the positions, 0 where nothing was appended: what a view must have reached to show the outcome."""
        return max(self.positions, default=0)

    @property
    def repeated(self) -> bool:
        """Whether a call with the same `command_id` had stored these events before."""
        return any(appended.repeated for appended in self._appended)
