"""One member of a queue: claims jobs, runs them, and settles them."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from itertools import count
from time import monotonic
from typing import Protocol

import msgspec

from eventmill.core.capabilities import Store
from eventmill.core.claims import Fence
from eventmill.core.clock import Clock
from eventmill.core.errors import BackendError, LeaseLostError
from eventmill.core.job import Job
from eventmill.runtime.ending import Ending, Endings
from eventmill.runtime.heartbeat import Heartbeat

log = logging.getLogger("eventmill")

AHEAD = 512
"""Jobs that are claimed before they can begin, at most: one claim costs about as much as running some."""

AHEAD_SECONDS = 0.05
"""Jobs are claimed ahead for about so long: others could begin them, and a crash would count as an attempt of each."""

STALE = 1.0
"""Seconds after which a job that was claimed ahead and could not begin is given back to others."""

SUSPECT = 2
"""A job whose claims vanished so often in a row is run alone: it may be what kills its process."""

PATIENCE = 10.0
"""Seconds that such a job waits for what else is running; what takes long must not hold up the queue."""

BREATH = 0.01
"""Seconds after which a runner whose jobs never wait lets the event loop see to others."""

LOOK_FIRST, LOOK_LAST, LOOK_EASE = 0.003, 0.25, 20
"""Seconds between looks for due jobs, where nothing has told of any: the time nothing came, divided, within bounds."""

RESTART_FIRST, RESTART_CAP = 0.1, 5.0


class Execution(Protocol):
    """Runs one claimed job. What it returns is how to settle it, or the commit that does; None where it was set back."""

    async def run(self, job: Job, fence: Fence) -> Ending | asyncio.Future[object] | None: ...


class Worker:
    """Claims what is due in one queue, as many at a time as its concurrency says, until it is stopped.

    Jobs are claimed in bulk, and what needs no transaction of its own is settled in bulk. Everything stands on the
    fence: whatever is lost (a lease, a commit) makes it start again under a new name, and what it had in hand is done again.
    """

    _endings: Endings  # made anew for each membership

    def __init__(
        self,
        queue: str,
        execution: Execution,
        *,
        store: Store,
        heartbeat: Heartbeat,
        clock: Clock,
        lease: float,
        member: str,
        concurrency: int,
        changed: Changed,
    ) -> None:
        self.queue = queue
        self.handled = 0
        self.concurrency = concurrency
        self.paused = False
        self._execution = execution
        self._store = store
        self._heartbeat = heartbeat
        self._clock = clock
        self._lease = lease
        self._member = member
        self._changed = changed
        self._fence = Fence(queue, member)
        self._epochs = count(1)
        self._stopping = False
        self._wake = asyncio.Event()
        self._reset()

    def _reset(self) -> None:
        self._ready: deque[Job] = deque()
        self._claimed_at = 0.0
        self._idle: deque[asyncio.Future[None]] = deque()
        self._runners: set[asyncio.Task[None]] = set()
        self._running: dict[int, tuple[Job, asyncio.Task[None]]] = {}
        self._failure: BaseException | None = None
        self._alone: Job | None = None
        self._alone_since = 0.0
        self._begun = 0
        self._ahead = 0
        self._measured = (monotonic(), 0)

    def set(self, *, paused: bool, concurrency: int) -> None:
        """Pause or go on, and run so many jobs at a time; those that run already go on."""
        if (paused, concurrency) != (self.paused, self.concurrency):
            self.paused, self.concurrency = paused, concurrency
            self._wake.set()

    def stop(self) -> None:
        """Claim nothing more; `run` returns when what is running has ended."""
        self._stopping = True
        self._wake.set()

    async def run(self) -> None:
        """Serve until stopped."""
        pause = RESTART_FIRST
        while not self._stopping:
            started = self._clock.now()
            try:
                await self._serve()
            except LeaseLostError as error:
                log.warning("%s starts again: %s", self.queue, error)
                await self._pause(RESTART_FIRST)
            except BackendError as error:
                pause = RESTART_FIRST if self._clock.now() - started > 60 else min(pause * 2, RESTART_CAP)
                log.warning("%s starts again in %.1f s: %s", self.queue, pause, error)
                await self._pause(pause)

    async def _pause(self, seconds: float) -> None:
        self._wake.clear()
        if not self._stopping:
            waits = [asyncio.ensure_future(wait) for wait in (self._clock.sleep(seconds), self._wake.wait())]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for wait in waits:
                wait.cancel()

    async def _serve(self) -> None:
        """One membership, from joining to leaving."""
        self._reset()
        member = f"{self._member}.{next(self._epochs)}"
        self._fence = Fence(self.queue, member)
        self._endings = Endings(self._store, self._fence, self._settled, self._failed)
        self._heartbeat.add(member)
        watch = asyncio.create_task(self._watch())
        watch.add_done_callback(lambda _: self._wake.set())
        clean = False
        try:
            await self._loop(member, watch)
            clean = True
        finally:
            watch.cancel()
            if not clean:
                self._fence.valid = False
            for runner in self._runners:
                runner.cancel()
            if self._runners:
                await asyncio.wait(self._runners)
            await self._endings.close()
            self._heartbeat.remove(member)
            try:
                # Whatever was claimed and not settled goes back, without the attempt.
                await self._store.release(self.queue, member, None)
            except BackendError as error:
                log.warning("%s: claims are left to run out: %s", self.queue, error)

    async def _watch(self) -> None:
        """Wake up whenever anything was committed: a job may have come."""
        seen = -1
        while True:
            seen = await self._changed.changed(seen, LOOK_LAST)
            self._wake.set()

    async def _loop(self, member: str, watch: asyncio.Task[None]) -> None:
        active = monotonic()
        while True:
            self._wake.clear()
            if self._failure is not None:
                raise self._failure
            if watch.done():
                watch.result()  # without it nothing would wake us any more
            if not self._fence.valid:
                raise LeaseLostError(f"{member} was refused by the store")
            self._scale()
            self._give_back()
            if self._stopping:
                if not self._running and self._endings.empty:
                    return
                await self._wake.wait()
                continue
            if await self._claim(member):
                active = monotonic()
                await asyncio.sleep(0)  # the runners' turn
                continue
            if self._room() <= 0 or self._alone is not None:
                await self._woken(STALE)
            else:
                await self._woken(min(max((monotonic() - active) / LOOK_EASE, LOOK_FIRST), LOOK_LAST))

    async def _woken(self, seconds: float) -> None:
        alarm = asyncio.get_running_loop().call_later(seconds, self._wake.set)
        await self._wake.wait()
        alarm.cancel()

    # Claiming

    def _room(self) -> int:
        """How many jobs more may be claimed; none before half of what is claimed ahead has begun."""
        now = monotonic()
        since, before = self._measured
        if now - since > AHEAD_SECONDS:
            self._ahead = min(int((self._begun - before) / (now - since) * AHEAD_SECONDS), AHEAD)
            self._measured = now, self._begun
        if len(self._ready) * 2 > self._ahead or self._endings.count > 4 * AHEAD:
            return 0
        return self.concurrency + self._ahead - len(self._ready) - len(self._running)

    async def _claim(self, member: str) -> bool:
        """Take due jobs; returns whether there were any."""
        if self._alone is not None:
            return self._run_alone()
        room = self._room()
        if room <= 0 or self.paused:
            return False
        jobs = await self._store.claim(self.queue, member, limit=room, lease=self._lease, alone=SUSPECT)
        if not jobs:
            return False
        if jobs[0].crashed >= SUSPECT:
            self._alone, self._alone_since = jobs[0], monotonic()
            self._run_alone()
            return True
        self._offer(jobs)
        return True

    def _run_alone(self) -> bool:
        job = self._alone
        waited = monotonic() - self._alone_since > PATIENCE
        if job is None or job.id in self._running or (self._running and not waited) or self._ready:
            return False
        self._offer([job])
        return True

    def _offer(self, jobs: Sequence[Job]) -> None:
        self._ready.extend(jobs)
        self._claimed_at = monotonic()
        for _ in range(min(len(jobs), len(self._idle))):
            idle = self._idle.popleft()
            if not idle.done():
                idle.set_result(None)

    def _give_back(self) -> None:
        """What was claimed ahead and cannot begin here soon may begin elsewhere."""
        if self._ready and (self._stopping or self.paused or monotonic() - self._claimed_at > STALE):
            for job in self._ready:
                if self._alone is job:
                    self._alone = None
                back = msgspec.structs.replace(job, attempts=job.attempts - 1)
                self._endings.add(Ending(back, retry_at=job.due))
            self._ready.clear()
            self._ahead = 0

    # Running

    def _scale(self) -> None:
        """As many runners as the concurrency says; those that are too many end after their job."""
        while len(self._runners) < self.concurrency:
            runner = asyncio.create_task(self._work(), name=self.queue)
            self._runners.add(runner)
            runner.add_done_callback(self._ended)
        if len(self._runners) > self.concurrency:
            for idle in self._idle:
                if not idle.done():
                    idle.set_result(None)

    def _ended(self, runner: asyncio.Task[None]) -> None:
        self._runners.discard(runner)
        if not runner.cancelled() and runner.exception() is not None:
            self._failed(runner.exception())
        self._wake.set()

    def _failed(self, error: BaseException | None) -> None:
        self._failure = self._failure or error
        self._wake.set()

    async def _work(self) -> None:
        me = asyncio.current_task()
        assert me is not None
        ready, running = self._ready, self._running
        breathed = monotonic()
        while True:
            while not ready:
                if len(self._runners) > self.concurrency:
                    self._runners.discard(me)
                    return
                self._wake.set()
                idle: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                self._idle.append(idle)
                await idle
                breathed = monotonic()
            job = ready.popleft()
            self._begun += 1
            running[job.id] = job, me
            try:
                ending = await self._execution.run(job, self._fence)
            finally:
                del running[job.id]
                if job is self._alone:
                    self._alone = None
                    self._wake.set()
            if ending is not None:
                self._endings.add(ending)
            if len(self._runners) > self.concurrency:
                self._runners.discard(me)
                return
            if len(ready) * 2 <= self._ahead:
                self._wake.set()
            if monotonic() - breathed > BREATH:
                await asyncio.sleep(0)
                breathed = monotonic()

    def _settled(self, number: int) -> None:
        """So many jobs were settled, durably."""
        self.handled += number
        if self._stopping or self._ready or not self._running:
            self._wake.set()

    @property
    def fence(self) -> Fence:
        return self._fence

    def running(self, reference: str) -> tuple[Job, asyncio.Task[None]] | None:
        """The job of this reference and the task that runs it, where that is here."""
        for job, runner in self._running.values():
            if job.reference == reference:
                return job, runner
        return None


class Changed(Protocol):
    """What tells that something was committed; see `Log.changed`."""

    async def changed(self, seen: int, timeout: float) -> int: ...
