"""Handing deliveries to a bounded number of workers, one at a time per key, in order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from time import monotonic

from eventmill.runtime.delivery import Delivery

BREATH = 0.01
"""Seconds after which a worker whose handlers never wait lets the event loop see to others."""


class Dispatcher:
    """Keys in parallel, each key in order.

    Workers are tasks that live as long as the dispatcher: a handler that never waits costs no task
    switch at all.
    """

    def __init__(
        self, handle: Callable[[Sequence[Delivery]], Awaitable[None]], *, concurrency: int, batch: int | None
    ) -> None:
        self._handle = handle
        self._batch = batch or 1
        self._lanes: dict[object, list[Delivery]] = {}
        self._ready: deque[object] = deque()
        self._idle: deque[asyncio.Future[None]] = deque()
        self._failure: BaseException | None = None
        self._breathed = monotonic()  # when the event loop had its turn at the latest
        self._workers = [asyncio.create_task(self._work()) for _ in range(concurrency)]
        for worker in self._workers:
            worker.add_done_callback(self._ended)

    def offer(self, deliveries: Sequence[Delivery]) -> None:
        """Queue deliveries; those of one lane are handled in this order."""
        for delivery in deliveries:
            lane: object = delivery.lane or delivery
            queue = self._lanes.get(lane)
            if queue is None:
                self._lanes[lane] = [delivery]
                self._ready.append(lane)
            else:
                queue.append(delivery)
        for _ in range(min(len(self._ready), len(self._idle))):
            idle = self._idle.popleft()
            if not idle.done():
                idle.set_result(None)

    def holds(self, lane: str) -> bool:
        """Whether any delivery of the lane is queued or being handled."""
        return lane in self._lanes

    @property
    def empty(self) -> bool:
        return not self._lanes

    def _ended(self, worker: asyncio.Task[None]) -> None:
        if not worker.cancelled() and worker.exception() is not None and self._failure is None:
            self._failure = worker.exception()

    def check(self) -> None:
        """Raise what ended a worker, if anything did."""
        if self._failure is not None:
            raise self._failure

    async def _work(self) -> None:
        try:
            await self._serve()
        except Exception as error:
            self._failure = self._failure or error  # at once: what it leads to must not be taken for the cause
            raise

    async def _serve(self) -> None:
        while True:
            while not self._ready:
                idle: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                self._idle.append(idle)
                await idle
                self._breathed = monotonic()
            if self._batch == 1:
                lane = self._ready.popleft()
                queue = self._lanes[lane]
                await self._handle((queue.pop(0),))
                self._left(lane, queue)
            else:
                await self._some()
            if monotonic() - self._breathed > BREATH:
                self._breathed = monotonic()  # one of the workers is enough, whose handlers wait each for itself
                await asyncio.sleep(0)

    async def _some(self) -> None:
        taken: list[object] = []
        batch: list[Delivery] = []
        while self._ready and len(batch) < self._batch:
            lane = self._ready.popleft()
            taken.append(lane)
            queue = self._lanes[lane]
            while queue and len(batch) < self._batch:
                batch.append(queue.pop(0))
        await self._handle(batch)
        for lane in taken:
            self._left(lane, self._lanes[lane])

    def _left(self, lane: object, queue: list[Delivery]) -> None:
        """A lane that was worked on: to be worked on again, or empty."""
        if queue:
            self._ready.append(lane)
        else:
            del self._lanes[lane]

    def abandon(self) -> list[Delivery]:
        """Drop what is queued but not begun, and return it; what is being handled goes on."""
        dropped = [delivery for queue in self._lanes.values() for delivery in queue]
        for queue in self._lanes.values():
            queue.clear()
        for lane in self._ready:
            del self._lanes[lane]
        self._ready.clear()
        return dropped

    async def close(self) -> None:
        """Cancel what is being handled, and wait for its end."""
        for worker in self._workers:
            worker.cancel()
        await asyncio.wait(self._workers)
