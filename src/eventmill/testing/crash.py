"""Killing a program at a named point, starting it again, and seeing what it left behind.

The program under test calls `arm()` before anything else; what kills it stands in its environment:

    from eventmill.testing import crash

    crash.arm()
    asyncio.run(serve())

The test runs it with `outlive`, which lets it die and starts it again until it ends well:

    report = outlive([sys.executable, "-m", "shop"], Crash("commit.after", nth=2), folder)
    assert report.kills == 1

The process is ended by SIGKILL, as by the kernel or an operator: nothing of it is flushed, closed or
given back. What a power failure does beyond that (losing what was never flushed) it does not show.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from eventmill.core import crash
from eventmill.core.errors import ConfigurationError

VARIABLE = "EVENTMILL_CRASH"
"""Environment variable: where to die, as `str(Crash(…))` writes it."""

PASSED = "EVENTMILL_CRASH_PASSED"
"""Environment variable: the file that gets the name of each point at its first passing, one a line."""

POINTS: Mapping[str, str] = {
    "transaction.begin": "the turn is taken, no transaction is open yet",
    "handler.done": "the handler has returned, its mark is not staged yet",
    "retry.staged": "the message is to be tried again, in a unit that is not finished",
    "dead.staged": "the message is dead, in a unit that is not finished",
    "parked.staged": "the message is to wait behind its key, in a unit that is not finished",
    "relay.published": "the broker has the messages, the relay's cursor does not say so",
    "commit.before": "everything is written, COMMIT was not sent",
    "commit.after": "COMMIT has returned, nobody was told",
    "lease.taken": "partitions were taken over, the member does not know",
    "lease.release": "partitions or a whole membership are about to be given back",
    "task.done": "the task has returned, the end of its job is not staged yet",
    "schedule.fired": "a schedule's task and its next moment are staged, in a unit that is not finished",
    "jobs.staged": "the ends of some jobs are staged, in a unit that is not finished",
    "job.claimed": "jobs were claimed, the member does not know",
    "checkpoint.begin": "the write lock is held for a checkpoint that has not begun",
    "checkpoint.end": "the checkpoint is done, the lock is still held",
}
"""Every point that eventmill itself passes, but for those of rebuilding. A program may pass points of its own, too."""

REBUILDING: Mapping[str, str] = {
    "projection.created": "a projection's first tables are made and shown, in a unit that is not finished",
    "rebuild.enrolled": "the next generation's group is there, its tables are not",
    "rebuild.created": "the next generation's tables are made, in a unit that is not finished",
    "rebuild.caught_up": "the next generation has taken in what there is, the workers do not feed it yet",
    "rebuild.fed": "the workers feed the next generation, readers do not see it",
    "swap.staged": "the views are another generation's, in a unit that is not finished",
    "swap.done": "readers see another generation, older ones are not dropped",
    "drop.staged": "a generation's tables are dropped, in a unit that is not finished",
    "drop.done": "a generation's tables are gone, its group is not forgotten",
}
"""Those that are passed where a projection is made, rebuilt, swapped or dropped."""

CAPTURE_POINTS: Mapping[str, str] = {
    "cdc.prepared": "the source keeps changes for a new capture, the store does not know its position",
    "cdc.chunk.read": "rows of a snapshot were read, no mark is in the source's log for them",
    "cdc.chunk.marked": "the mark is there, the rows are not told",
    "cdc.commit.before": "captured changes are staged with the capture's progress",
    "cdc.commit.after": "they are durable, the source was not told",
}
"""The points that only a program passes which captures changes."""


@dataclass(frozen=True, slots=True)
class Crash:
    """Where to die: at the `nth` passing of a point (1 is the first), `delay` seconds later.

    With a delay the process goes on meanwhile: it dies in the middle of whatever follows the point.
    """

    point: str
    nth: int = 1
    delay: float = 0.0

    def __post_init__(self) -> None:
        if not self.point or ":" in self.point:
            raise ConfigurationError(f"point={self.point!r}: give the name of a point, without a colon")
        if self.nth < 1:
            raise ConfigurationError(f"nth={self.nth}: give 1 for the first passing, or more")
        if not self.delay >= 0:
            raise ConfigurationError(f"delay={self.delay}: give seconds, 0 or more")

    def __str__(self) -> str:
        return f"{self.point}:{self.nth}:{self.delay:g}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """From `point`, `point:nth` or `point:nth:delay`."""
        point, *rest = text.split(":")
        try:
            return cls(point, *(convert(part) for convert, part in zip((int, float), rest, strict=False)))
        except ValueError as error:
            raise ConfigurationError(f"{VARIABLE}={text!r}: write point, point:nth or point:nth:delay") from error


def arm(environment: Mapping[str, str] | None = None) -> None:
    """Die where the environment says. Without its variables this does nothing.

    A program calls it once, before it opens anything.
    """
    environment = os.environ if environment is None else environment
    where = environment.get(VARIABLE)
    passed = environment.get(PASSED)
    if where or passed:
        crash.hook = _Hook(Crash.parse(where) if where else None, Path(passed) if passed else None)


class _Hook:
    """Counts the passings. Points are passed on the event loop's thread and on the commit's."""

    def __init__(self, where: Crash | None, passed: Path | None) -> None:
        self._where = where
        self._passed = passed
        self._seen: set[str] = set()
        self._count = 0
        self._lock = threading.Lock()

    def __call__(self, name: str) -> None:
        with self._lock:
            if name not in self._seen:
                self._seen.add(name)
                self._note(name)
            if self._where is None or name != self._where.point:
                return
            self._count += 1
            if self._count != self._where.nth:
                return
        if self._where.delay:
            alarm = threading.Timer(self._where.delay, _die)
            alarm.daemon = True
            alarm.start()
        else:
            _die()

    def _note(self, name: str) -> None:
        if self._passed is not None:
            # Opened each time, so that the line is the kernel's before the process can die.
            with self._passed.open("a", encoding="utf-8") as file:
                file.write(f"{name}\n")


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True, slots=True)
class Report:
    """How a program lived. passed: the points it passed in all its lives. kills: how often it was killed."""

    kills: int
    lives: int
    passed: frozenset[str]


class ProgramFailedError(AssertionError):
    """The program ended otherwise than by the crash it was armed with, or well."""


def outlive(
    command: Sequence[str],
    where: Crash,
    folder: Path,
    *,
    times: int = 1,
    timeout: float = 120.0,
    environment: Mapping[str, str] | None = None,
    after_kill: Callable[[], None] | None = None,
) -> Report:
    """Run a program in `folder` until it has been killed at the point `times` times, then until it ends well.

    Its first lives are armed, so with `times` above 1 the recovery is killed as well; a life that
    does not come to the point so often ends well, and that is the end. timeout: seconds for each life.
    environment: further variables. after_kill: called between a death and the next life, to look at
    what is there. What the program writes is kept in `folder/output.txt`.

    Raises ProgramFailedError, with the end of that output, for any other end.
    """
    passed = folder / "passed.txt"
    output = folder / "output.txt"
    base = {**os.environ, **(environment or {}), PASSED: str(passed)}
    base.pop(VARIABLE, None)
    kills = lives = 0
    while True:
        armed = kills < times
        lives += 1
        with output.open("ab") as log:
            process = subprocess.Popen(  # noqa: S603 - the command is the test's own
                command, cwd=folder, stdout=log, stderr=log, env={**base, VARIABLE: str(where)} if armed else base
            )
            code = _wait(process, timeout, where, output)
        if code == 0:
            names = passed.read_text(encoding="utf-8").split() if passed.exists() else []
            return Report(kills, lives, frozenset(names))
        if code != -signal.SIGKILL or not armed:
            raise ProgramFailedError(f"{where}: life {lives} ended with {code}\n{_end_of(output)}")
        kills += 1
        if after_kill is not None:
            after_kill()


def _wait(process: subprocess.Popen[bytes], timeout: float, where: Crash, output: Path) -> int:
    began = time.monotonic()
    try:
        return process.wait(timeout)
    except subprocess.TimeoutExpired:
        raise ProgramFailedError(
            f"{where}: still running after {time.monotonic() - began:.0f} s\n{_end_of(output)}"
        ) from None
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def _end_of(output: Path) -> str:
    return output.read_text(encoding="utf-8", errors="replace")[-4000:]
