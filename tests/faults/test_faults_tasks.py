"""Workers and schedulers of tasks that are killed, paused, blocked and stopped, as real processes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import forge as program
import pytest
from forge import LEASE, TICK

import eventmill
from stopping import freeze

pytestmark = pytest.mark.timeout(240)

PATIENCE = 90.0
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(eventmill.__file__).parents[1])}


class Forge:
    """A folder with the forge's file, and its processes."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.processes: list[subprocess.Popen[bytes]] = []
        self.given: set[int] = set()

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        with (self.place / "output.txt").open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, program.__file__, str(self.place), *arguments],
                stdout=output, stderr=output, env=ENVIRONMENT,
            )  # fmt: skip
        self.processes.append(process)
        return process

    def give(self, numbers: range, kind: str, seconds: float) -> None:
        async def send() -> None:
            async with program.make(self.place) as app:
                work = app.tasks.by_type["task.work"]
                async with app.transaction() as tx:
                    for number in numbers:
                        tx.send(work.job(number, kind, seconds))

        asyncio.run(send())
        self.given |= set(numbers)

    def query(self, sql: str) -> list[tuple[object, ...]]:
        with contextlib.closing(sqlite3.connect(self.place / "forge.db", timeout=PATIENCE)) as connection:
            connection.execute("PRAGMA wal_autocheckpoint = 0")
            return connection.execute(sql).fetchall()

    def done(self) -> list[int]:
        return [int(str(number)) for (number,) in self.query("SELECT number FROM done WHERE kind <> 'tick' ORDER BY 1")]

    def begun(self) -> list[tuple[int, int]]:
        file = self.place / "begun"
        lines = file.read_text().splitlines() if file.exists() else []
        return [(int(line.split()[0]), int(line.split()[1])) for line in lines]

    def until(self, condition: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, f"never: {what}\n{self.said()}"
            time.sleep(0.02)

    def said(self) -> str:
        return (self.place / "output.txt").read_text(errors="replace")[-6000:]

    def end(self) -> None:
        running = [process for process in self.processes if process.poll() is None]
        for process in running:
            self.until(lambda process=process: (self.place / f"up-{process.pid}").exists(), "it is up")  # type: ignore[misc]
            process.send_signal(signal.SIGTERM)
        codes = [process.wait(PATIENCE) for process in running]
        assert codes == [0] * len(codes), f"{codes}\n{self.said()}"

    def kill(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
            process.wait()

    def verify(self, *, without: set[int] | None = None) -> None:
        """Each task that was given is done, once."""
        assert self.done() == sorted(self.given - (without or set()))
        assert self.query("PRAGMA integrity_check") == [("ok",)]


@pytest.fixture
def forge(tmp_path: Path) -> Iterator[Forge]:
    made = Forge(tmp_path)
    yield made
    made.kill()


@pytest.mark.parametrize("seed", [1, 2])
def test_workers_killed_at_random_under_load(forge: Forge, seed: int) -> None:
    chance = random.Random(seed)
    forge.give(range(400), "slow", 0.05)
    workers = [forge.start() for _ in range(3)]
    for turn in range(6):
        time.sleep(chance.uniform(0.3, 0.8))
        forge.give(range(400 + turn * 40, 440 + turn * 40), "slow", 0.02)
        victim = chance.randrange(2)  # the third one is left alone
        workers[victim].kill()
        workers[victim].wait()
        workers[victim] = forge.start()
    forge.until(lambda: len(forge.done()) >= len(forge.given), "all are done")
    forge.end()
    forge.verify()


def test_a_worker_paused_past_its_lease_changes_nothing_when_it_wakes(forge: Forge) -> None:
    forge.give(range(3), "slow", 1.0)
    paused = forge.start()
    forge.until(lambda: len(forge.begun()) == 3, "the first worker has begun")
    freeze(paused, forge.place / "forge.db")
    assert forge.done() == []
    forge.start()
    forge.until(lambda: len(forge.done()) == 3, "another one has done it")
    assert len(forge.begun()) == 6
    paused.send_signal(signal.SIGCONT)
    time.sleep(2.0)
    forge.give(range(3, 6), "slow", 0.0)
    forge.until(lambda: len(forge.done()) == 6, "both go on")
    forge.end()
    forge.verify()
    assert (paused.pid,) not in forge.query("SELECT DISTINCT pid FROM done WHERE number < 3")


@pytest.mark.parametrize("kind", ["slow", "block"])
def test_a_task_of_twenty_leases_runs_once(forge: Forge, kind: str) -> None:
    forge.give(range(2), kind, 20 * LEASE)
    forge.start()
    forge.until(forge.begun, "it has begun")
    forge.start()
    time.sleep(2 * LEASE)
    forge.until(lambda: len(forge.done()) == 2, "it is done")
    forge.end()
    assert sorted(number for number, _ in forge.begun()) == [0, 1]
    assert forge.query("SELECT DISTINCT attempt FROM done WHERE kind <> 'tick'") == [(1,)]
    forge.verify()


def test_a_task_that_kills_its_process_is_dead_after_its_attempts(forge: Forge) -> None:
    forge.give(range(20), "slow", 0.3)
    forge.give(range(100, 101), "die", 0.0)
    forge.give(range(200, 220), "slow", 0.3)
    deaths = 0

    def buried() -> bool:
        nonlocal deaths
        if forge.processes[-1].poll() is not None:
            assert forge.processes[-1].returncode == -signal.SIGKILL, forge.said()
            deaths += 1
            forge.start()
        return len(forge.done()) == 40 and forge.query("SELECT 1 FROM eventmill_jobs WHERE state = 'dead'") != []

    forge.start()
    forge.until(buried, "the killer is dead, and its neighbours are done")
    forge.end()
    assert deaths == 4
    ((attempts, errors),) = forge.query(
        "SELECT attempts, CAST(errors AS TEXT) FROM eventmill_jobs WHERE state = 'dead'"
    )
    assert "the process running it died, 4 times" in str(errors)
    assert attempts == 5
    forge.verify(without={100})


def test_stopping_spends_no_attempt(forge: Forge) -> None:
    forge.give(range(4), "slow", 1.5)
    worker = forge.start()
    forge.until(lambda: len(forge.begun()) == 4, "all have begun")
    worker.send_signal(signal.SIGTERM)
    time.sleep(0.2)  # two at once would be one
    worker.send_signal(signal.SIGTERM)  # do not wait for them
    assert worker.wait(PATIENCE) == 0
    assert forge.done() == []
    jobs = forge.query("SELECT state, attempts, crashed FROM eventmill_jobs WHERE queue = 'forge/work'")
    assert jobs == [("due", 0, 0)] * 4
    forge.start()
    forge.until(lambda: len(forge.done()) == 4, "another one has done them")
    forge.end()
    forge.verify()


def test_five_schedulers_killed_and_started_again_fire_each_moment_once(forge: Forge) -> None:
    chance = random.Random(7)
    crew = [forge.start() for _ in range(5)]
    forge.until(lambda: (forge.place / "forge.db").exists(), "the file is there")
    began = time.monotonic()
    while time.monotonic() - began < 15:
        time.sleep(chance.uniform(0.2, 0.7))
        victim = chance.randrange(5)
        crew[victim].kill()
        crew[victim].wait()
        crew[victim] = forge.start()
    forge.until(lambda: len(fires(forge)) >= 120, "they have fired often")
    forge.end()
    found = fires(forge)
    step = round(TICK * 1000)
    assert found == list(range(found[0], found[0] + step * len(found), step)), "none twice, none left out"


def fires(forge: Forge) -> list[int]:
    """The moments of fires that are done, or sent and not done yet."""
    done = forge.query("SELECT fire FROM done WHERE kind = 'tick' ORDER BY fire")
    return [int(str(fire)) for (fire,) in done]


def test_of_many_processes_that_send_a_unique_task_one_does(forge: Forge) -> None:
    forge.give(range(1), "slow", 0.0)
    for number in range(4):
        senders = [forge.start("send", str(number)) for _ in range(6)]
        assert [sender.wait(PATIENCE) for sender in senders] == [0] * 6, forge.said()
    rows = forge.query("SELECT count(*) FROM eventmill_jobs WHERE due > unixepoch() * 1000 + 1000000")
    assert rows == [(4,)]
