"""What the end of a call brings about, in the commit that ends it."""

from __future__ import annotations

from typing import Any

import msgspec

from eventmill.core.capabilities import Transaction
from eventmill.core.job import Job
from eventmill.patterns.tasks.call import (
    FIRE,
    GROUP,
    THEN,
    UNIQUE,
    Desk,
    Progress,
    decode_spec,
    group_key,
    start,
)
from eventmill.patterns.tasks.held import CARRIED
from eventmill.patterns.tasks.limit import Limits
from eventmill.patterns.tasks.results import Report, State, expire, keep
from eventmill.patterns.tasks.unique import vacate

_decode_progress = msgspec.json.Decoder(Progress).decode


class Finale:
    """Frees unique places, keeps results, starts what follows, counts the members of groups.

    abandoned: seconds after which a group is forgotten whose members have all ended, some of them dead and never replayed.
    """

    def __init__(self, desk: Desk, limits: Limits, abandoned: float) -> None:
        self._desk = desk
        self._limits = limits
        self._abandoned = abandoned

    def plain(self, job: Job, kept: float | None) -> bool:
        """Whether there is nothing to do: no other document or job hangs on this end."""
        carried = job.message.extensions
        return kept is None and (not carried or (len(carried) == 1 and FIRE in carried))

    async def stage(
        self, unit: Transaction, job: Job, name: str, state: State, kept: float | None, result: Any, error: str = ""
    ) -> None:
        """Stage all of it. kept: seconds to keep the result for. Raises EncodeError for a result that is no JSON."""
        message = job.message
        carried = message.extensions or {}
        unique = carried.get(UNIQUE)
        if CARRIED in carried:
            await self._limits.free(unit, job)
        if unique is not None:
            await vacate(unit, self._desk.prefix, unique, message.id)
        if kept is not None:
            report = Report(message.id, name, state, attempt=job.attempts, result=result, error=error)
            keep(unit, self._desk, job.queue, report, kept)
        group = carried.get(GROUP)
        then = carried.get(THEN)
        if then is not None and state == "done":
            start(unit, self._desk, decode_spec(then), group)
        elif group is not None:
            await self._step(unit, job.queue, group, message.id, state)

    async def _step(self, unit: Transaction, queue: str, group: str, member: str, state: State) -> None:
        """One member of a group has ended; a dead one may be done later, after it was replayed."""
        key = group_key(self._desk, group)
        found = await unit.get(key)
        if found is None:
            return
        progress = _decode_progress(found.data)
        if member in progress.failed:
            if state == "done":
                progress.failed.remove(member)
        else:
            progress.left -= 1
            if state != "done":
                progress.failed.append(member)
        progress.lost = progress.lost or state == "cancelled"
        over = progress.left == 0 and (progress.always or not progress.failed)
        if not over and not (progress.left == 0 and progress.lost):
            unit.put(key, msgspec.json.encode(progress), expected=found.version)
            if progress.left == 0:
                at = int((self._desk.clock.now() + self._abandoned) * 1000)
                expire(unit, self._desk, queue, key, at)
            return
        unit.put(key, None, expected=found.version)
        outer = progress.outer
        if over and progress.then is not None:
            start(unit, self._desk, progress.then, None if outer is None else outer[0])
        elif outer is not None:
            await self._step(unit, queue, outer[0], outer[1], "done" if over else "cancelled")
