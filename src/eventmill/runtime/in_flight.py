"""What a member has in its hands, from fetching to the commit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from eventmill.runtime.delivery import Delivery


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one member holds at a time. lease: seconds."""

    lease: float
    prefetch: int
    prefetch_bytes: int


class InFlight:
    """Counts deliveries and their bytes, and hears of the commits they are in.

    dropped: called with deliveries that are in flight no more, whatever became of them.
    committed: called with the deliveries of a commit, and its error if it failed.
    """

    __slots__ = ("_bytes", "_committed", "_dropped", "_last", "_max_bytes", "_max_messages", "count")

    def __init__(
        self,
        limits: Limits,
        *,
        dropped: Callable[[Sequence[Delivery]], None],
        committed: Callable[[Sequence[Delivery], BaseException | None], None],
    ) -> None:
        self.count = 0
        self._bytes = 0
        self._max_messages = limits.prefetch
        self._max_bytes = limits.prefetch_bytes
        self._dropped = dropped
        self._committed = committed
        self._last: tuple[asyncio.Future[object], list[Delivery]] | None = None

    @property
    def room(self) -> int:
        """How many messages more may be fetched: none before half of the room is free, so that reads are large."""
        return 0 if self.count * 2 > self._max_messages else self._max_messages - self.count

    @property
    def room_bytes(self) -> int:
        return self._max_bytes - self._bytes

    def add(self, deliveries: Sequence[Delivery]) -> None:
        self.count += len(deliveries)
        self._bytes += sum(delivery.size for delivery in deliveries)

    def settled(self, deliveries: Sequence[Delivery], durable: asyncio.Future[object]) -> None:
        """Deliveries are decided; they stay in flight until the commit."""
        if self._last is not None and self._last[0] is durable:
            self._last[1].extend(deliveries)
            return
        together = list(deliveries)
        if durable.done():
            self._ended(durable, together)
            return
        self._last = (durable, together)
        durable.add_done_callback(lambda future: self._ended(future, together))

    def _ended(self, durable: asyncio.Future[object], deliveries: Sequence[Delivery]) -> None:
        self._committed(deliveries, None if durable.cancelled() else durable.exception())
        self.drop(deliveries)

    def drop(self, deliveries: Sequence[Delivery]) -> None:
        """Deliveries that are in hand no more; one that was dropped before counts no second time."""
        fresh = [delivery for delivery in deliveries if not delivery.dropped]
        for delivery in fresh:
            delivery.dropped = True
            self._bytes -= delivery.size
        self.count -= len(fresh)
        if fresh:
            self._dropped(fresh)
