"""Real child processes: replaced, ended, scaled, and never left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from eventmill.core.errors import ConfigurationError
from eventmill.runtime.scaling import Backlog, Scaling
from eventmill.runtime.supervisor import Restarts, Supervisor

# A worker that writes one line when it is ready and obeys SIGTERM.
WORKER = """
import os, signal, sys, threading
from eventmill.runtime.parent import end_with_parent
end_with_parent(5.0)
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
with open(sys.argv[1], "a") as file:
    file.write(f"{os.getpid()} {os.environ['EVENTMILL_INCARNATION']}\\n")
while True:
    signal.pause()
"""
QUICK = Restarts(first=0.01, cap=0.05)


class Stage:
    """A supervisor at work, what it said, and whom its workers were."""

    def __init__(self, folder: Path) -> None:
        self.journal = folder / "journal"
        self.said: list[str] = []
        self.stop = asyncio.Event()

    def supervisor(self, *, script: str = WORKER, low: int = 1, **more: object) -> Supervisor:
        options = {"high": low, "report": self.said.append, "grace": 5.0, "restarts": QUICK, **more}
        return Supervisor([sys.executable, "-c", script, str(self.journal)], low=low, **options)  # type: ignore[arg-type]

    def lives(self) -> list[tuple[int, str]]:
        if not self.journal.exists():
            return []
        lines = [line.split() for line in self.journal.read_text().splitlines()]
        return [(int(pid), incarnation) for pid, incarnation in lines]


def perform(play: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await play()

    asyncio.run(bounded())


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.01)


def state(pid: int) -> str:
    """One letter as in `ps`: S sleeping, T stopped, Z ended but not reaped yet; empty for no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def gone(pid: int) -> bool:
    return state(pid) in ("", "Z")


def test_keeps_workers_running_and_ends_them_in_good_order(tmp_path: Path) -> None:
    async def play() -> None:
        stage = Stage(tmp_path)
        supervisor = stage.supervisor(low=2)
        run = asyncio.create_task(supervisor.run(stage.stop))
        await until(lambda: len(stage.lives()) == 2)
        pids = list(supervisor.pids)
        assert sorted(pids) == sorted(pid for pid, _ in stage.lives())
        # Ctrl-C of a terminal goes to a process group: no child may be in ours.
        assert all(os.getpgid(pid) == pid for pid in pids)
        stage.stop.set()
        assert await run == 0
        assert all(gone(pid) for pid in pids)
        assert not supervisor.pids
        assert stage.said == []

    perform(play)


def test_a_killed_worker_is_buried_and_replaced_under_a_new_incarnation(tmp_path: Path) -> None:
    async def play() -> None:
        stage = Stage(tmp_path)
        buried: list[str] = []

        async def bury(incarnation: str) -> None:
            buried.append(incarnation)

        supervisor = stage.supervisor(on_death=bury)
        run = asyncio.create_task(supervisor.run(stage.stop))
        await until(lambda: len(stage.lives()) == 1)
        [(pid, first)] = stage.lives()
        os.kill(pid, signal.SIGKILL)
        await until(lambda: len(stage.lives()) == 2)
        assert buried == [first]
        assert stage.lives()[1][1] != first
        assert stage.said == [f"worker {pid} ended with signal SIGKILL; starting another in 0.0 s"]
        stage.stop.set()
        assert await run == 0

    perform(play)


def test_a_burial_that_fails_is_told_and_the_worker_is_replaced_all_the_same(tmp_path: Path) -> None:
    async def play() -> None:
        stage = Stage(tmp_path)

        async def bury(incarnation: str) -> None:
            raise OSError("disk on fire")

        run = asyncio.create_task(stage.supervisor(on_death=bury).run(stage.stop))
        await until(lambda: len(stage.lives()) == 1)
        os.kill(stage.lives()[0][0], signal.SIGKILL)
        await until(lambda: len(stage.lives()) == 2)
        assert "is not free before its leases end: disk on fire" in stage.said[0]
        stage.stop.set()
        assert await run == 0

    perform(play)


def test_a_crash_loop_is_retried_with_a_growing_delay(tmp_path: Path) -> None:
    async def play() -> None:
        stage = Stage(tmp_path)
        restarts = Restarts(first=0.01, cap=0.08, settled=60.0)
        supervisor = stage.supervisor(script="import os; os._exit(7)", restarts=restarts)
        run = asyncio.create_task(supervisor.run(stage.stop))
        await until(lambda: len(stage.said) >= 3)
        stage.stop.set()
        assert await run == 0
        assert all("ended with exit code 7; starting another in" in line for line in stage.said[:3])

    perform(play)


def test_delays_double_up_to_the_cap() -> None:
    restarts = Restarts(first=0.1, cap=5.0)
    assert [restarts.delay(early) for early in (0, 1, 2, 3, 10, 10_000)] == [0.1, 0.2, 0.4, 0.8, 5.0, 5.0]


@pytest.mark.parametrize("code", [2, 78])
def test_a_worker_that_no_start_can_mend_stops_everything(tmp_path: Path, code: int) -> None:
    # The first one to come refuses, the other runs: it must be ended, too.
    script = f"""
import os, sys
try:
    os.mkdir(sys.argv[1] + ".first")
except FileExistsError:
    exec({WORKER!r})
os._exit({code})
"""

    async def play() -> None:
        stage = Stage(tmp_path)
        assert await stage.supervisor(script=script, low=2).run(stage.stop) == code
        assert any(f"exit code {code}" in line and "stopping all workers" in line for line in stage.said)
        assert all(gone(pid) for pid, _ in stage.lives())

    perform(play)


def test_a_command_that_cannot_be_started_ends_the_run(tmp_path: Path) -> None:
    async def play() -> None:
        said: list[str] = []
        supervisor = Supervisor([str(tmp_path / "missing")], low=1, high=1, report=said.append)
        assert await supervisor.run(asyncio.Event()) == 1
        assert "cannot be kept running" in said[0]
        assert "missing" in said[0]

    perform(play)


def test_a_worker_that_ignores_sigterm_is_killed_after_the_grace(tmp_path: Path) -> None:
    script = WORKER.replace("lambda *_: os._exit(0)", "signal.SIG_IGN")

    async def play() -> None:
        stage = Stage(tmp_path)
        run = asyncio.create_task(stage.supervisor(script=script, grace=0.2).run(stage.stop))
        await until(lambda: len(stage.lives()) == 1)
        stage.stop.set()
        assert await run == 1
        assert "did not end within 0.2 s of SIGTERM" in stage.said[0]
        assert gone(stage.lives()[0][0])

    perform(play)


def test_kill_ends_a_stop_at_once(tmp_path: Path) -> None:
    script = WORKER.replace("lambda *_: os._exit(0)", "signal.SIG_IGN")

    async def play() -> None:
        stage = Stage(tmp_path)
        supervisor = stage.supervisor(script=script, grace=3_600.0)
        run = asyncio.create_task(supervisor.run(stage.stop))
        await until(lambda: len(stage.lives()) == 1)
        stage.stop.set()
        await asyncio.sleep(0.05)
        assert not run.done()
        supervisor.kill()
        assert await run == 1

    perform(play)


def test_scales_up_and_down_and_says_why(tmp_path: Path) -> None:
    async def play() -> None:
        stage = Stage(tmp_path)
        seen = [Backlog(0, 0.0)]

        async def backlog() -> Backlog:
            if seen[-1].messages:
                seen.append(Backlog(seen[-1].messages + 5_000, seen[-1].oldest + 1.0))
            return seen[-1]

        scaling = Scaling(1, 2, settle=0.05, shrink_after=0.2)
        supervisor = stage.supervisor(high=2, backlog=backlog, scaling=scaling, look_every=0.02)
        run = asyncio.create_task(supervisor.run(stage.stop))
        await until(lambda: len(stage.lives()) == 1)
        oldest = stage.lives()[0][0]
        seen.append(Backlog(5_000, 2.0))
        await until(lambda: len(stage.lives()) == 2)
        assert stage.said[0].startswith("scaling 1 → 2: ")
        assert stage.said[0].endswith("and both are growing")
        seen.append(Backlog(0, 0.0))
        await until(lambda: list(supervisor.pids) == [oldest])
        assert stage.said[-1].startswith("scaling 2 → 1: the backlog has been small for")
        stage.stop.set()
        assert await run == 0

    perform(play)


def test_a_backlog_that_cannot_be_read_is_told_once_and_changes_nothing(tmp_path: Path) -> None:
    async def play() -> None:
        stage = Stage(tmp_path)
        looks: list[int] = []

        async def backlog() -> Backlog:
            looks.append(1)
            raise OSError("locked")

        supervisor = stage.supervisor(high=2, backlog=backlog, look_every=0.01)
        run = asyncio.create_task(supervisor.run(stage.stop))
        await until(lambda: len(looks) > 3)
        assert stage.said == ["the backlog cannot be read, so the number of workers stays: locked"]
        stage.stop.set()
        assert await run == 0

    perform(play)


@pytest.mark.parametrize("stopped", [False, True])
def test_no_worker_outlives_a_killed_parent(tmp_path: Path, stopped: bool) -> None:
    script = f"""
import asyncio, sys
from eventmill.runtime.supervisor import Supervisor
command = [sys.executable, "-c", {WORKER!r}, {str(tmp_path / "journal")!r}]
asyncio.run(Supervisor(command, low=2, high=2).run(asyncio.Event()))
"""
    parent = subprocess.Popen([sys.executable, "-c", script])
    stage = Stage(tmp_path)

    async def play() -> None:
        await until(lambda: len(stage.lives()) == 2)
        pids = [pid for pid, _ in stage.lives()]
        if stopped:
            os.kill(pids[0], signal.SIGSTOP)
            await until(lambda: state(pids[0]) == "T")
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        await until(lambda: all(gone(pid) for pid in pids))

    try:
        perform(play)
    finally:
        parent.kill()
        parent.wait()


def test_a_worker_with_a_blocked_loop_is_ended_after_the_grace(tmp_path: Path) -> None:
    script = """
import os, signal, sys, time
from eventmill.runtime.parent import PIPE, end_with_parent
signal.signal(signal.SIGTERM, signal.SIG_IGN)
assert end_with_parent(0.1) and PIPE not in os.environ and not end_with_parent(0.1)
while True:
    time.sleep(1)
"""
    reading, writing = os.pipe()
    env = {**os.environ, "EVENTMILL_PARENT": str(reading)}
    child = subprocess.Popen([sys.executable, "-c", script], env=env, pass_fds=(reading,))
    try:
        time.sleep(0.3)
        assert child.poll() is None
        os.close(writing)
        assert child.wait(timeout=30) == 1
    finally:
        child.kill()
        child.wait()
        os.close(reading)


def test_bounds_that_differ_need_a_backlog() -> None:
    with pytest.raises(ConfigurationError, match="backlog"):
        Supervisor(["true"], low=1, high=2)
