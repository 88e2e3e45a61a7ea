"""Callers whose messages wait for the next commit."""

from __future__ import annotations

from collections.abc import Sequence

from eventmill.backends.postgres.batch import Batch, Published, refuse

TRIES = 5
"""Times that a caller's messages are tried again after failures that were nobody's fault."""


class Queue:
    """First come, first served; but after a refusal, those whom it was not about go first and by themselves.

    So a refused commit is followed by one that nobody else can make fail again: the callers in it grow fewer each time.
    """

    def __init__(self) -> None:
        self._waiting: list[Published] = []
        self._survivors: list[Published] = []

    def __bool__(self) -> bool:
        return bool(self._waiting or self._survivors)

    def put(self, entry: Published) -> None:
        self._waiting.append(entry)

    def take(self, batch: Batch) -> None:
        """Stage with the others of a batch whoever may go with it."""
        entries, self._survivors = self._survivors, []
        if not entries:
            entries, self._waiting = self._waiting, []
        later: list[Published] = []
        for entry in entries:
            (batch.published if entry.join(batch.staged) else later).append(entry)
        self._waiting[:0] = later

    def again(self, entries: Sequence[Published], *, survivors: bool = False) -> None:
        """Those of them who have not been told anything go once more."""
        left = [entry for entry in entries if not entry.durable.done()]
        if survivors:
            self._survivors[:0] = left
        else:
            self._waiting[:0] = left

    def undone(self, batch: Batch, error: Exception, *, environmental: bool) -> None:
        """A batch was rolled back. Whom it is about is told; the others go again, if not too often."""
        for entry in batch.published:
            if entry in batch.blamed:
                refuse(entry.durable, batch.blamed[entry])
            elif not batch.blamed:
                entry.tries += 1
                if environmental or entry.tries > TRIES:
                    refuse(entry.durable, error)
        self.again(batch.published, survivors=bool(batch.blamed))

    def refuse(self, error: Exception) -> None:
        """Nobody can be served."""
        entries, self._waiting, self._survivors = [*self._survivors, *self._waiting], [], []
        for entry in entries:
            refuse(entry.durable, error)
