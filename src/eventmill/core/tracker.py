"""How far one partition has been handled, when its messages finish out of order."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection


class Tracker:
    """The cursor of one partition: a contiguous prefix, and what is done ahead of it.

    Keys are handled in parallel, so a later message may be finished while an earlier one still
    runs. The cursor then keeps its place before the earlier one and lists the later one as done
    ahead; both travel in the same commit as the effects, so a restart repeats neither.
    """

    __slots__ = ("_ahead", "_open", "_pending", "_scanned", "position")

    def __init__(self, position: int, ahead: Collection[int] = ()) -> None:
        self.position = position
        self._pending: deque[int] = deque()
        self._open: set[int] = set()
        self._ahead = set(ahead)
        self._scanned = position

    @property
    def in_flight(self) -> int:
        return len(self._open)

    def start(self, position: int) -> bool:
        """Note a message handed out; False when it was finished before and must not run again."""
        if position <= self.position or position in self._ahead:
            return False
        self._pending.append(position)
        self._open.add(position)
        return True

    def scanned(self, position: int) -> None:
        """Everything up to `position` was read; what was not handed out is of no interest here."""
        self._scanned = max(self._scanned, position)

    def done(self, position: int) -> None:
        self._open.discard(position)
        self._ahead.add(position)

    def preview(self, done: Collection[int]) -> tuple[int, list[int]]:
        """What `cursor` would say if these were done, too: for a commit that may fail."""
        prefix = self._scanned
        for position in self._pending:
            if position in self._open and position not in done:
                prefix = position - 1
                break
        prefix = max(prefix, self.position)
        return prefix, sorted({position for position in (*self._ahead, *done) if position > prefix})

    def cursor(self) -> tuple[int, list[int]]:
        """The prefix up to which all is done, and the positions done beyond it."""
        while self._pending and self._pending[0] not in self._open:
            self._pending.popleft()
        prefix = self._pending[0] - 1 if self._pending else self._scanned
        if prefix > self.position:
            self.position = prefix
        if self._ahead:
            self._ahead = {position for position in self._ahead if position > self.position}
        return self.position, sorted(self._ahead)
