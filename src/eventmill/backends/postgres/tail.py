"""How far the log may be read: no further than where no lower position can still appear.

Positions come from a sequence, are drawn during a transaction and become visible at its commit; so a lower one may
appear after a higher one. Whoever appends holds a lock, shared, from before it draws positions to the end of its
transaction. A look at the log takes down the head of the sequence first, then who holds the lock. As soon as those
are gone, whoever else came since, everything up to that head is there for good. Writers are never blocked or slowed;
readers wait for exactly the transactions that could still fill a gap, and no timeout makes them skip one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from time import monotonic

from eventmill.backends.postgres.reader import Reader
from eventmill.backends.postgres.values import number
from eventmill.core.message import Partition

log = logging.getLogger("eventmill")

LOOKS = 32
"""Looks remembered whose holders have not gone yet; between them, the oldest and the newest matter."""

STUCK = 5.0
"""Seconds after which an append that holds readers up is named in the log."""


class Tail:
    """The end of what may be read, kept up with by one look for all readers of a process.

    advanced: called whenever the end has moved.
    """

    def __init__(self, reader: Reader, advanced: Callable[[], None]) -> None:
        self.end = 0
        self.head = 0
        self.waiting = False
        self._reader = reader
        self._advanced = advanced
        self._begin = 0
        self._started = False
        self._ends: dict[tuple[str, int], int] = {}
        self._looks: list[tuple[int, set[str]]] = []
        self._looking: asyncio.Future[None] | None = None
        self._next: asyncio.Future[None] | None = None
        self._held_since: float | None = None

    async def look(self) -> None:
        """Take in what has been committed until now; `end` is then as far as may be read.

        Those who ask at the same time share a look, but never one that had begun before they asked.
        """
        if self._looking is not None:
            if self._next is None:
                self._next = asyncio.ensure_future(self._after(self._looking))
            await asyncio.shield(self._next)
            return
        await self._begin_look()

    async def _after(self, looking: asyncio.Future[None]) -> None:
        await asyncio.wait([looking])
        self._next = None
        await self._begin_look()

    async def _begin_look(self) -> None:
        if self._looking is None:
            self._looking = asyncio.ensure_future(self._look())
            self._looking.add_done_callback(self._looked)
        await asyncio.shield(self._looking)

    def _looked(self, looking: asyncio.Future[None]) -> None:
        self._looking = None
        if not looking.cancelled():
            looking.exception()  # told to those who waited

    async def _look(self) -> None:
        # First the head, then the holders: whoever draws a position after that is of no concern.
        ((head,),) = await self._reader.fetch("head")
        if head <= self.end and not self._looks:
            return
        holders = {str(holder) for holder, _ in await self._reader.fetch("appending")}
        end = self.end if holders else head
        self._looks = [(position, still & holders) for position, still in self._looks]
        for position, still in self._looks:
            if not still:
                end = max(end, position)
        self.head = head
        self._looks = [(position, still) for position, still in self._looks if still and position > end]
        if head > end and (not self._looks or self._looks[-1][0] < head):
            self._looks.append((head, holders))
        if len(self._looks) > LOOKS:
            del self._looks[LOOKS // 2]
        self.waiting = bool(self._looks)
        if self.waiting and end == self.end:
            await self._complain()
        else:
            self._held_since = None
        await self._move(end)

    async def _move(self, end: int) -> None:
        if not self._started:
            # What lies before the first look is not known partition by partition.
            self._started = True
            self._begin = self.end = end
        elif end > self.end:
            for topic, partition, position in await self._reader.fetch("tail", [number(self.end), number(end)]):
                self._ends[topic, partition] = position
            self.end = end
        else:
            return
        self._advanced()

    async def _complain(self) -> None:
        now = monotonic()
        if self._held_since is None:
            self._held_since = now
        elif now - self._held_since > STUCK:
            self._held_since = now
            for pid, age, state, query, _ in await self._reader.fetch("stuck", [number(STUCK)]):
                log.warning(
                    "%s: messages wait for an append that has not ended: pid %s, for %.0f s, %s: %s",
                    self._reader.address, pid, age or 0.0, state or "a prepared transaction", query,
                )  # fmt: skip

    def moved(self, partition: Partition, after: int) -> bool:
        """Whether there may be a message beyond `after`."""
        return after < self._ends.get(partition, self._begin)
