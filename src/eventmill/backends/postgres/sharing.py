"""How many units may share one commit: a number that learns from what happens to them."""

from __future__ import annotations

MOST = 128

REGROWTH = 1.02
"""By how much a commit lets the bound grow that a conflict has set: twice as many after 35."""


class Sharing:
    """Halved by every failure and doubled by every success, so that everybody gets through.

    A failure that was nobody's fault sends those who were undone through one at a time. Where it was somebody else's
    lock, it will be again: two processes whose batches touch the same rows, each in its own order, wait for each
    other, until one batch is undone. One unit alone takes its rows in its own order, and never does that. So a conflict
    also sets a bound, which rises slowly.
    """

    def __init__(self) -> None:
        self._limit = MOST
        self._bound: float = MOST
        self._alone = 0

    @property
    def room(self) -> int:
        """Units that may take part in the next transaction."""
        return 1 if self._alone else self._limit

    def failed(self, joined: int) -> None:
        """A transaction with so many units was undone."""
        self._limit = max(1, min(self._limit, joined) // 2)

    def one_at_a_time(self, joined: int) -> None:
        """So many units were undone for nobody's fault: they come back alone."""
        self._alone = max(self._alone, joined)

    def conflicted(self, joined: int) -> None:
        """It was another session's lock."""
        self._bound = max(1, joined // 2)
        self.one_at_a_time(joined)

    def succeeded(self, joined: int) -> None:
        if joined:
            self._bound = min(MOST, self._bound * REGROWTH)
            self._limit = min(int(self._bound), self._limit * 2)

    def ended(self, joined: int) -> None:
        """A transaction is over, well or not."""
        self._alone = max(0, self._alone - max(1, joined))
