"""Jobs: due, parked behind another of their lane, or dead."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from eventmill.backends.memory.lease import Lease
from eventmill.core.errors import LeaseLostError
from eventmill.core.job import Job
from eventmill.core.reading import Pending

DUE = "due"
RUNNING = "running"
PARKED = "parked"
DEAD = "dead"


@dataclass(slots=True)
class Entry:
    """A stored job, and the lease of whoever has claimed it."""

    job: Job
    lease: Lease | None = None

    @property
    def seen(self) -> Job:
        """The job as others see it."""
        return self.job if self.lease is None else replace(self.job, state=RUNNING)


@dataclass(frozen=True, slots=True)
class Settlement:
    """How a claimed job ended: done, unless it is to run again or is dead."""

    job: Job
    retry_at: int | None
    dead: bool


class MemoryJobs:
    """All jobs of one store, in order of their ids. Of one queue and lane, all but the first are parked."""

    def __init__(self) -> None:
        self._entries: dict[int, Entry] = {}
        self._last = 0

    def __iter__(self) -> Iterator[Job]:
        return (entry.seen for entry in self._entries.values())

    def send(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            self._last += 1
            occupied = self.occupied(job.queue, {job.lane})
            state = DEAD if job.state == DEAD else PARKED if occupied else DUE
            self._entries[self._last] = Entry(replace(job, id=self._last, state=state, token=0, crashed=0))

    def occupied(self, queue: str, lanes: Collection[str | None]) -> set[str]:
        return {job.lane for job in self if job.queue == queue and job.lane is not None and job.lane in lanes}

    def claim(self, queue: str, member: str, limit: int, now: float, lease: float, alone: int) -> list[Job]:
        waiting = [entry for entry in self._claimable(queue, now) if entry.job.due <= now * 1000]
        waiting.sort(key=lambda entry: entry.job.rank)
        # A claim that was given back counts as if it never was: the job is as suspect as before it.
        vanished = [entry for entry in waiting if 0 < entry.job.crashed >= alone]
        # One that may have killed its process takes no others with it.
        taken = vanished[:1] or waiting[:limit]
        for entry in taken:
            self._take(entry, member, now, lease, attempt=1)
        return [entry.job for entry in taken]

    def _take(self, entry: Entry, member: str, now: float, lease: float, *, attempt: int) -> None:
        entry.job = replace(entry.job, state=DUE, attempts=entry.job.attempts + attempt, token=entry.job.token + 1)
        entry.lease = Lease.starting(member, now, lease)

    def take(self, reference: str, member: str, now: float, lease: float) -> Job | None:
        entry = self._referred(reference)
        if entry is None:
            return None
        self._expire(entry, now)
        if entry.lease is not None or entry.job.state not in (DUE, PARKED):
            return None
        if entry.job.state == PARKED:
            entry.job = replace(entry.job, lane=None)
        self._take(entry, member, now, lease, attempt=0)
        return entry.job

    def find(self, reference: str) -> Job | None:
        entry = self._referred(reference)
        return None if entry is None else entry.seen

    def _referred(self, reference: str) -> Entry | None:
        return next((entry for entry in self._entries.values() if entry.job.reference == reference), None)

    def _expire(self, entry: Entry, now: float) -> None:
        if entry.lease is not None and entry.lease.ended(now):
            entry.lease = None
            entry.job = replace(entry.job, crashed=entry.job.crashed + 1)

    def next_due(self, queue: str, now: float) -> int | None:
        return min((entry.job.due for entry in self._claimable(queue, now)), default=None)

    def overdue(self, queue: str, now: float) -> Pending:
        due = [entry.job.due for entry in self._claimable(queue, now) if entry.job.due <= now * 1000]
        return Pending(len(due), min(due, default=None))

    def _claimable(self, queue: str, now: float) -> list[Entry]:
        found = [entry for entry in self._entries.values() if entry.job.queue == queue and entry.job.state == DUE]
        for entry in found:
            self._expire(entry, now)
        return [entry for entry in found if entry.lease is None]

    def require(self, job: Job, member: str | None = None) -> None:
        """Raises LeaseLostError unless the job is still claimed under its token, and by this member if one is given."""
        entry = self._entries.get(job.id)
        lease = entry.lease if entry else None
        if entry is None or lease is None or entry.job.token != job.token or member not in (None, lease.member):
            raise LeaseLostError(f"job {job.id} of {job.queue!r} is no longer claimed under token {job.token}")

    def settle(self, settlement: Settlement, now: int) -> None:
        """The claim was checked with `require`. now: milliseconds."""
        entry = self._entries[settlement.job.id]
        entry.lease = None
        job = replace(entry.job, errors=settlement.job.errors, crashed=0, attempts=settlement.job.attempts)
        if settlement.dead:
            # `due` of a dead job is the moment of its death: pruning goes by it.
            entry.job = replace(job, state=DEAD, due=now, lane=settlement.job.lane)
            if settlement.job.lane is None:
                self._go_on(job, now)
        elif settlement.retry_at is not None:
            entry.job = replace(job, due=settlement.retry_at)
        else:
            del self._entries[job.id]
            self._go_on(job, now)

    def hold(self, job: Job, lane: str) -> None:
        """The claim was checked with `require`."""
        entry = self._entries[job.id]
        entry.lease = None
        entry.job = replace(entry.job, state=PARKED, lane=lane, attempts=job.attempts, crashed=0)

    def let_go(self, queue: str, lane: str) -> None:
        for entry in self._entries.values():
            if (entry.job.queue, entry.job.lane, entry.job.state) == (queue, lane, PARKED):
                entry.job = replace(entry.job, state=DUE, lane=None)
                return

    def _go_on(self, ended: Job, now: int) -> None:
        """Let the oldest job of a lane go, unless it has been going already."""
        lane = [
            entry
            for entry in self._entries.values()
            if ended.lane is not None and (entry.job.queue, entry.job.lane) == (ended.queue, ended.lane)
        ]
        if lane and lane[0].job.state == PARKED:
            lane[0].job = replace(lane[0].job, state=DUE, due=now)

    def replay(self, ids: Collection[int], now: int) -> int:
        dead = self._dead(ids)
        for entry in dead:
            entry.job = replace(entry.job, state=DUE, due=now, attempts=0)
        return len(dead)

    def skip(self, ids: Collection[int], now: int) -> int:
        dead = self._dead(ids)
        for entry in dead:
            del self._entries[entry.job.id]
            self._go_on(entry.job, now)
        return len(dead)

    def _dead(self, ids: Collection[int]) -> list[Entry]:
        return [entry for id_, entry in sorted(self._entries.items()) if id_ in ids and entry.job.state == DEAD]

    def release(self, queue: str, member: str) -> None:
        """Give back what a member has claimed, and the attempts with it."""
        for entry in self._entries.values():
            if entry.job.queue == queue and entry.lease is not None and entry.lease.member == member:
                entry.lease = None
                entry.job = replace(entry.job, attempts=max(0, entry.job.attempts - 1))

    def forget(self, queue: str) -> None:
        self._entries = {id_: entry for id_, entry in self._entries.items() if entry.job.queue != queue}

    def leases(self) -> Sequence[Lease]:
        # A copy, made in one step: the caller may be a thread beside the event loop.
        return [lease for entry in list(self._entries.values()) if (lease := entry.lease) is not None]
