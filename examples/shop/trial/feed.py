"""Feeding orders in through the order service, many at a time and never more than a few dozen in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from eventmill.core.errors import BackendUnavailableError, ConflictError

from .. import order
from ..events import GoodsReturned, Intake, LinesRejected, OrderPlaced
from .generator import Arrival

IN_FLIGHT = 64
PATIENCE = 60.0
"""Seconds for which the database may stay locked: a worker that is stopped by force may hold its lock."""


class Fed:
    """What went in, as the feeder counts it: the far end must come to the same."""

    def __init__(self) -> None:
        self.lines = 0
        self.gross = 0
        self.refunded = 0

    def add(self, event: Intake) -> None:
        self.lines += len(event.lines)
        match event:
            case OrderPlaced():
                self.gross += sum(line.amount for line in event.lines)
            case GoodsReturned():
                self.refunded -= sum(line.amount for line in event.lines)
            case LinesRejected():
                pass


async def feed(arrivals: Iterable[Arrival], seen: Callable[[Arrival], None]) -> Fed:
    """Take every arrival into the shop, not before its moment; returns when all of them are durable.

    When the store cannot keep up, later arrivals wait for a place among those in flight.
    """
    loop = asyncio.get_running_loop()
    began = loop.time()
    fed = Fed()
    places = asyncio.Semaphore(IN_FLIGHT)

    async def take(arrival: Arrival) -> None:
        try:
            await _accept(arrival.events)
        finally:
            places.release()

    async with asyncio.TaskGroup() as tasks:
        for arrival in arrivals:
            await asyncio.sleep(max(0.0, began + arrival.at - loop.time()))
            await places.acquire()
            tasks.create_task(take(arrival))
            for event in arrival.events:
                fed.add(event)
            seen(arrival)
    return fed


async def _accept(events: Iterable[Intake]) -> None:
    loop = asyncio.get_running_loop()
    until = loop.time() + PATIENCE
    while True:
        try:
            async with order.app.transaction() as tx:
                for event in events:
                    await order.accept(tx, event)
        except (BackendUnavailableError, ConflictError):
            # Nothing was committed (another part of the order was faster, or the server went away): all of it again.
            if loop.time() > until:
                raise
            await asyncio.sleep(0.1)
        else:
            return
