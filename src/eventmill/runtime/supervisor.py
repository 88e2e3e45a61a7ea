"""Worker processes: started, replaced when they die, made more or fewer, and ended."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from eventmill.core.clock import Clock, Ids, SystemClock
from eventmill.core.errors import ConfigurationError
from eventmill.runtime.parent import PIPE
from eventmill.runtime.scaling import Backlog, Scaling

INCARNATION = "EVENTMILL_INCARNATION"
"""Environment variable: the id of one life of one worker process, never used twice."""

FINAL = {2: "its command line is wrong", 78: "its configuration is wrong"}
"""Exit codes that another start cannot mend."""

_log = logging.getLogger("eventmill.supervisor")


@dataclass(frozen=True, slots=True)
class Restarts:
    """How long to wait before a dead worker is replaced, in seconds.

    `first` after a worker that had lived for `settled`; doubled, up to `cap`, for each one in
    a row that had not.
    """

    first: float = 0.1
    cap: float = 5.0
    settled: float = 1.0

    def delay(self, early_deaths: int) -> float:
        return min(self.cap, self.first * 2.0 ** min(early_deaths, 32))


@dataclass(eq=False, slots=True)
class Worker:
    """One life of one child process."""

    incarnation: str
    process: asyncio.subprocess.Process
    started: float

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def alive(self) -> bool:
        return self.process.returncode is None

    def send(self, number: signal.Signals) -> None:
        if self.alive:
            self.process.send_signal(number)


@dataclass(eq=False, slots=True)
class _Place:
    """Where one worker after another lives, until it is to go."""

    leave: asyncio.Event = field(default_factory=asyncio.Event)
    worker: Worker | None = None
    task: asyncio.Task[None] | None = None


class Supervisor:
    """Keeps between `low` and `high` children of one command running.

    Each child gets a fresh incarnation id in its environment, and a pipe by which it notices the
    end of this process (`end_with_parent`). A child that dies is replaced after a growing delay;
    `on_death` is told its incarnation first, so that what it held can be freed at once. A child
    that says its command line or configuration is wrong (exit 2 or 78) ends all of them.

    Children live in process groups of their own. Ctrl-C in a terminal goes to the whole foreground
    group: the children would get that SIGINT and this process's SIGTERM, and two signals mean
    "stop hard". They stay in the session, though: should this process die while a child is
    stopped (SIGSTOP), the kernel hangs up the orphaned group, so that not even that one is left.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        low: int,
        high: int,
        backlog: Callable[[], Awaitable[Backlog]] | None = None,
        report: Callable[[str], None] = _log.info,
        grace: float = 20.0,
        env: Mapping[str, str] | None = None,
        on_death: Callable[[str], Awaitable[None]] | None = None,
        scaling: Scaling | None = None,
        look_every: float = 1.0,
        restarts: Restarts | None = None,
        clock: Clock | None = None,
    ) -> None:
        if not command:
            raise ConfigurationError("command is empty: give the program and its arguments")
        if grace < 0:
            raise ConfigurationError(f"grace={grace}: give seconds, 0 or more")
        self._scaling = scaling or Scaling(low, high)
        if (self._scaling.low, self._scaling.high) != (low, high):
            raise ConfigurationError("scaling has other bounds than low and high: give the same to both")
        if high > low and backlog is None:
            raise ConfigurationError(f"low={low}, high={high} needs backlog=, to tell when to change between them")
        self._command = tuple(command)
        self._low = low
        self._backlog = backlog
        self._report = report
        self._grace = grace
        self._env = env or {}
        self._on_death = on_death
        self._look_every = look_every
        self._restarts = restarts or Restarts()
        self._clock = clock or SystemClock()
        self._new_id = Ids(self._clock)
        self._places: list[_Place] = []
        self._leaving: set[_Place] = set()
        self._over = asyncio.Event()
        self._stopping = False
        self._code = 0
        self._pipe = -1

    @property
    def workers(self) -> Sequence[Worker]:
        """Live children, oldest place first."""
        places = (*self._places, *self._leaving)
        return [place.worker for place in places if place.worker is not None and place.worker.alive]

    @property
    def pids(self) -> Sequence[int]:
        """Process ids of the live children."""
        return [worker.pid for worker in self.workers]

    async def run(self, stop: asyncio.Event) -> int:
        """Keep the children running until `stop` is set; returns the exit code for this process.

        That is 0 after a stop in good order, 1 when a child had to be killed for it, or the code
        of the child that no other start could mend.
        """
        self._pipe, ours = os.pipe()
        watching: list[asyncio.Task[object]] = [
            asyncio.create_task(stop.wait()),
            asyncio.create_task(self._over.wait()),
        ]
        if self._backlog is not None:
            watching.append(asyncio.create_task(self._scale(self._backlog)))
        try:
            self._spread(self._low)
            done, _ = await asyncio.wait(watching, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in watching:
                task.cancel()
            self._stopping = True
            self._spread(0)
            await asyncio.gather(*(place.task for place in self._leaving if place.task is not None))
            os.close(self._pipe)
            os.close(ours)
        return self._code

    def hurry(self) -> None:
        """Send every child SIGTERM again, which asks it to interrupt what it has begun: for a second signal."""
        for worker in self.workers:
            worker.send(signal.SIGTERM)

    def kill(self) -> None:
        """End every child at once, whatever it is doing: for a third signal."""
        for worker in self.workers:
            worker.send(signal.SIGKILL)

    def _spread(self, count: int) -> None:
        """Open places, or let the youngest go, until there are `count`."""
        while len(self._places) < count:
            place = _Place()
            place.task = asyncio.create_task(self._occupy(place))
            self._places.append(place)
        while len(self._places) > count:
            place = self._places.pop()
            self._leaving.add(place)
            place.leave.set()

    async def _occupy(self, place: _Place) -> None:
        early = 0
        try:
            while not place.leave.is_set():
                place.worker = worker = await self._start()
                if await self._ended(worker, place.leave):
                    early = early + 1 if self._clock.now() - worker.started < self._restarts.settled else 0
                    delay = self._restarts.delay(early)
                    await self._died(worker, delay)
                    await _either(place.leave, delay)
        except Exception as error:
            # Whatever it was, it must end the run: a place that is silently empty would look like a running one.
            self._report(f"a worker cannot be kept running: {error}")
            self._finish(1)
            if place.worker is not None:
                place.worker.send(signal.SIGKILL)
        finally:
            self._leaving.discard(place)

    async def _start(self) -> Worker:
        incarnation = self._new_id()
        process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **self._env, INCARNATION: incarnation, PIPE: str(self._pipe)},
            pass_fds=(self._pipe,),
            process_group=0,
        )
        return Worker(incarnation, process, self._clock.now())

    async def _ended(self, worker: Worker, leave: asyncio.Event) -> bool:
        """Wait for the end of a worker, and make it end when it is to leave; True when it died unasked."""
        exit_ = asyncio.create_task(worker.process.wait())
        asked = asyncio.create_task(leave.wait())
        await asyncio.wait((exit_, asked), return_when=asyncio.FIRST_COMPLETED)
        asked.cancel()
        if exit_.done() and not leave.is_set():
            return True
        worker.send(signal.SIGTERM)
        await asyncio.wait((exit_,), timeout=self._grace)
        if not exit_.done():
            self._report(f"worker {worker.pid} did not end within {self._grace:g} s of SIGTERM: killing it")
            worker.send(signal.SIGKILL)
        code = await exit_
        # A child that was still starting has no handler for SIGTERM yet, and nothing in its hands.
        if code not in (0, -signal.SIGTERM):
            if self._stopping:
                self._code = self._code or 1
            self._report(f"worker {worker.pid} ended with {_cause(code)} while stopping")
            await self._bury(worker)
        return False

    async def _died(self, worker: Worker, delay: float) -> None:
        code = worker.process.returncode or 0
        await self._bury(worker)
        if code in FINAL:
            self._report(f"worker {worker.pid} ended with exit code {code}: {FINAL[code]}; stopping all workers")
            self._finish(code)
        else:
            self._report(f"worker {worker.pid} ended with {_cause(code)}; starting another in {delay:.1f} s")

    async def _bury(self, worker: Worker) -> None:
        if self._on_death is None:
            return
        try:
            async with asyncio.timeout(5.0):
                await self._on_death(worker.incarnation)
        except Exception as error:
            # Nothing is lost: its leases run out by themselves.
            reason = str(error) or type(error).__name__
            self._report(f"what worker {worker.pid} held is not free before its leases end: {reason}")

    def _finish(self, code: int) -> None:
        self._code = self._code or code
        self._over.set()
        self._spread(0)

    async def _scale(self, backlog: Callable[[], Awaitable[Backlog]]) -> None:
        loop = asyncio.get_running_loop()
        failing = False
        while True:
            began = loop.time()
            try:
                seen = await backlog()
                failing = False
            except Exception as error:
                # Told once each time it begins; the workers themselves meet the same fault and say more.
                if not failing:
                    self._report(f"the backlog cannot be read, so the number of workers stays: {error}")
                failing = True
            else:
                running = len(self._places)
                change = self._scaling.decide(loop.time(), running, seen)
                if change is not None and not self._over.is_set():
                    self._report(f"scaling {running} → {change.to}: {change.why}")
                    self._spread(change.to)
            # A large backlog takes long to count: spend no more than a tenth of the time on it.
            await asyncio.sleep(max(self._look_every, 9 * (loop.time() - began)))


async def _either(event: asyncio.Event, seconds: float) -> None:
    """Wait until the event is set or the time is up."""
    waiting = asyncio.create_task(event.wait())
    await asyncio.wait((waiting,), timeout=seconds)
    waiting.cancel()


def _cause(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"
