"""The part of a store that keeps jobs."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from eventmill.core.job import Job
from eventmill.core.reading import Pending


class JobStore(Protocol):
    """Jobs are claimed by members, each under a token of its own; `Unit.settle` ends them."""

    async def claim(self, queue: str, member: str, *, limit: int, lease: float, alone: int = 1) -> Sequence[Job]:
        """Take due jobs in the order of `Job.rank`, counting the attempt.

        alone: a job whose last claims vanished, so many or more in a row, comes by itself, `crashed` saying how many.
        What it costs does not depend on how many jobs wait, due or not.
        """
        ...

    async def take(self, reference: str, member: str, *, lease: float) -> Job | None:
        """Claim the job of this reference before its time or out of a lane that holds it, without counting an attempt; None
        while it runs, is dead, or is not there."""
        ...

    async def find(self, reference: str) -> Job | None:
        """The job of this reference, whatever its state: `due`, `running`, `parked` or `dead`."""
        ...

    async def next_due(self, queue: str) -> int | None:
        """When the earliest waiting job of the queue is due (milliseconds), or None."""
        ...

    async def overdue(self, queue: str) -> Pending:
        """How many jobs of the queue are due and wait all the same for somebody to claim them, and since when the first does.

        What it costs does not depend on the jobs whose time has not come, nor on those that a lane holds.
        """
        ...

    async def jobs(
        self, queue: str | None = None, *, state: str | None = None, limit: int = 100, after_id: int = 0
    ) -> Sequence[Job]:
        """Jobs in order of their ids. state: `due`, `running`, `parked` (behind another of its lane) or `dead`."""
        ...

    async def replay(self, ids: Collection[int]) -> int:
        """Let dead jobs be tried again, with fresh attempts; returns how many were dead."""
        ...

    async def skip(self, ids: Collection[int]) -> int:
        """Drop dead jobs and let what is parked behind them go; returns how many were dead."""
        ...

    async def occupied(self, queue: str, lanes: Collection[str]) -> Collection[str]:
        """Those of the lanes that have a job: their later messages must queue behind it."""
        ...
