"""How attempts end, many of them in one commit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from eventmill.core.capabilities import Store, Unit
from eventmill.core.claims import Fence
from eventmill.core.crash import point
from eventmill.core.errors import EventmillError
from eventmill.core.job import Job


class Ending(NamedTuple):
    """What becomes of a claimed job: done, again at `retry_at` (milliseconds), or dead.

    also: stages what else belongs into the same commit; it must be nothing that the store could refuse.
    """

    job: Job
    retry_at: int | None = None
    dead: bool = False
    also: Callable[[Unit], None] | None = None


class Endings:
    """Settles the jobs of one member, as many at a time as have come together.

    settled: hears how many were settled durably. failed: hears of what makes the member start again.
    """

    def __init__(
        self,
        store: Store,
        fence: Fence,
        settled: Callable[[int], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        self.count = 0
        self._store = store
        self._fence = fence
        self._settled = settled
        self._failed = failed
        self._waiting: list[Ending] = []
        self._flush: asyncio.Task[None] | None = None
        self._last: tuple[asyncio.Future[object], list[int]] | None = None

    @property
    def empty(self) -> bool:
        return self.count == 0

    def add(self, ending: Ending | asyncio.Future[object]) -> None:
        """One more; a future is the commit of a job that was settled in a unit of its own."""
        self.count += 1
        if not isinstance(ending, Ending):
            self._in_commit(ending)
            return
        self._waiting.append(ending)
        if self._flush is None:
            self._flush = asyncio.get_running_loop().create_task(self._settle())

    def _in_commit(self, durable: asyncio.Future[object]) -> None:
        if self._last is not None and self._last[0] is durable:
            self._last[1][0] += 1
            return
        number = [1]
        self._last = durable, number
        durable.add_done_callback(lambda future: self._done(future, number[0]))

    def _done(self, durable: asyncio.Future[object], number: int) -> None:
        self.count -= number
        error = None if durable.cancelled() else durable.exception()
        if error is not None:
            self._fence.valid = False
            self._failed(error)
        else:
            self._settled(number)

    async def _settle(self) -> None:
        try:
            while self._waiting:
                together, self._waiting = self._waiting, []
                unit = self._store.unit(None, self._fence)
                try:
                    for job, retry_at, dead, also in together:
                        unit.settle(job, retry_at=retry_at, dead=dead)
                        if also is not None:
                            also(unit)
                    point("jobs.staged")
                    await (await unit.finish())
                except BaseException:
                    await unit.discard()
                    raise
                self.count -= len(together)
                self._settled(len(together))
        except EventmillError as error:
            self._fence.valid = False
            self._failed(error)
        finally:
            self._flush = None

    async def close(self) -> None:
        """Settle what has ended, as far as the fence allows."""
        if self._flush is not None:
            await asyncio.wait([self._flush])
