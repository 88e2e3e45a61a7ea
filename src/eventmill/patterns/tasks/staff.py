"""Who runs the tasks of an App in one process."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from eventmill.patterns.tasks.control import Control, Controlled
from eventmill.patterns.tasks.schedules import Schedules
from eventmill.runtime.processes import Processes
from eventmill.runtime.worker import Worker


class Staff:
    """The workers of one process, and what goes on beside them."""

    def __init__(
        self, controlled: Sequence[Controlled], control: Control, schedules: Schedules | None, processes: Processes
    ) -> None:
        self.workers: list[Worker] = [each.worker for each in controlled]
        self._control = control
        self._schedules = schedules
        self._processes = processes
        self._beside: list[asyncio.Task[None]] = []

    def begin(self) -> None:
        """Begin to look at what operators say, and to fire schedules."""
        if self.workers:
            self._beside.append(asyncio.create_task(self._control.run(), name="control of tasks"))
        if self._schedules is not None:
            self._beside.append(asyncio.create_task(self._schedules.run(), name="schedules"))

    async def end(self) -> None:
        """End what is not a worker."""
        for task in self._beside:
            task.cancel()
        await asyncio.gather(*self._beside, return_exceptions=True)
        await self._processes.close()
