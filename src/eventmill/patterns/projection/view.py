"""A projection in the hands of the service that has it: how it stands, and what can be done about it."""

from __future__ import annotations

from collections.abc import Sequence

from eventmill.patterns.projection.catch_up import Report
from eventmill.patterns.projection.difference import LIMIT, Difference, difference
from eventmill.patterns.projection.rebuild import drop, rebuild, swap
from eventmill.patterns.projection.standing import Standing


class View(Standing):
    """What a projection has made: how far it is, waiting for it, building it anew beside what readers see."""

    async def rebuild(
        self, *, show: bool = True, partial: bool = False, force: bool = False, report: Report | None = None
    ) -> int:
        """Build the next generation from the log and, unless told not to `show` it, swap to it; returns its number.

        One that was begun before by the same definition, and was killed or stopped, is gone on with.
        partial: of what is left, where the oldest messages were trimmed; else MissingHistoryError is raised.
        force: leave out what became a dead letter; else BlockedError is raised, and a further call goes on.
        report: called with a `Progress` ten times a second.
        """
        return await rebuild(self, show_it=show, partial=partial, force=force, report=report)

    async def swap(self, *, back: bool = False, force: bool = False) -> int:
        """Let readers see the newest generation, or with `back` the one before, in one transaction; returns its number.

        Raises BehindError where it lacks events which readers have seen and nobody feeds it; with `force` it may.
        """
        return await swap(self, back=back, force=force)

    async def drop(self, generation: int | None = None, *, force: bool = False) -> int:
        """Remove a generation that readers do not see, with its tables; returns its number.

        Raises BehindError while side effects are still to come from it, unless `force`.
        """
        return await drop(self, generation, force=force)

    async def difference(self, generation: int | None = None, *, limit: int = LIMIT) -> Sequence[Difference]:
        """The rows in which another generation, the newest by default, differs from what readers see, table by table."""
        return await difference(self, number=generation, limit=limit)
