"""How far a group has come, held against how far it should be."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from eventmill.core.capabilities import Log
from eventmill.core.errors import BackendError
from eventmill.core.message import Partition
from eventmill.core.reading import Types
from eventmill.patterns.projection.ground import Ground

FASTEST = 0.003
SLOWEST = 0.05
EASE = 20
"""A group's cursors are looked at whenever the store tells of a change, and else every idle/EASE seconds, within these
two bounds: not every store tells of what other processes do to cursors."""

LINGER = 0.1
"""Seconds to go on looking when nobody waits: the next question often comes at once."""


async def passed(
    log: Log, cursors: Mapping[Partition, int], targets: Mapping[Partition, int], types: Types | None
) -> bool:
    """Whether no message of these types is left up to each partition's target.

    A cursor that stands before its target is no proof: what lies between may be of no interest. False where the
    log cannot be looked through so far yet.
    """
    at = {part: cursors.get(part, 0) for part, target in targets.items() if cursors.get(part, 0) < target}
    while at:
        page = await log.read(at, limit=1, types=types)
        if any(found.position <= targets[found.partition] for found in page.messages) or not page.after:
            return False
        at = {part: page.after.get(part, position) for part, position in at.items()}
        at = {part: position for part, position in at.items() if position < targets[part]}
    return True


class Watch:
    """Waits for a group's cursors to move: one look for all who wait in this process."""

    def __init__(self, ground: Ground, group: str) -> None:
        self._ground = ground
        self._group = group
        self._waiters: set[asyncio.Future[None]] = set()
        self._seen: Mapping[Partition, int] = {}
        self._task: asyncio.Task[None] | None = None

    async def moved(self, since: Mapping[Partition, int], timeout: float) -> None:
        """Return when the cursors are further than they were, or the time (seconds) is up. Raises BackendError."""
        if self._task is None or self._task.done():
            self._seen = since
            self._task = asyncio.get_running_loop().create_task(self._look())
        elif any(position > since.get(part, 0) for part, position in self._seen.items()):
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await asyncio.wait({waiter}, timeout=timeout)
            if waiter.done():
                waiter.result()
        finally:
            self._waiters.discard(waiter)

    async def _look(self) -> None:
        loop = asyncio.get_running_loop()
        store, log = self._ground.store, self._ground.published
        active = alone = loop.time()
        change = -1
        try:
            while loop.time() - alone < LINGER:
                cursors = await store.cursors(self._group)
                if cursors != self._seen:
                    self._seen, active = cursors, loop.time()
                    self._wake(None)
                elif self._waiters:
                    alone = loop.time()
                pause = min(max((loop.time() - active) / EASE, FASTEST), SLOWEST)
                change = await log.changed(change, pause)
        except BackendError as error:
            self._wake(error)

    def _wake(self, error: BackendError | None) -> None:
        for waiter in self._waiters:
            if waiter.done():
                continue
            if error is None:
                waiter.set_result(None)
            else:
                waiter.set_exception(error)

    async def close(self) -> None:
        """Wake nobody any more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
