"""Workers that are killed, paused, blocked and stopped, as real processes."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import sqlite3
import time

import mill as program
import pytest
from mill import LEASE, Task
from workers import Mill

from stopping import freeze

pytestmark = pytest.mark.timeout(240)


def tasks(lanes: int, numbers: range, does: str = "") -> list[Task]:
    return [Task(f"lane{number % lanes}", number, does) for number in numbers]


@pytest.mark.parametrize("seed", [1, 2])
def test_two_of_three_workers_killed_at_random_under_load(mill: Mill, seed: int) -> None:
    chance = random.Random(seed)
    mill.give(*tasks(24, range(400), "slow"))
    workers = [mill.start(attempts=50) for _ in range(3)]
    given = 400
    for _ in range(10):
        time.sleep(chance.uniform(0.2, 0.6))
        mill.give(*tasks(24, range(given, given + 60), "slow"))
        given += 60
        victim = chance.randrange(2)  # the third one is left alone
        workers[victim].kill()
        workers[victim].wait()
        workers[victim] = mill.start(attempts=50)
    mill.until_done()
    mill.end()
    mill.verify()


def test_a_worker_paused_past_its_lease_changes_nothing_when_it_wakes(mill: Mill) -> None:
    mill.give(*tasks(1, range(6), "pause"))
    paused = mill.start()
    mill.until(mill.begun, "the first worker has begun")
    freeze(paused, mill.file)
    while mill.query("SELECT 1 FROM done WHERE number = ?", mill.begun()[-1]):  # caught between two tasks
        paused.send_signal(signal.SIGCONT)
        time.sleep(0.05)
        freeze(paused, mill.file)
    (in_hand,) = mill.begun()[-1:]
    mill.start()
    mill.until_done()
    assert mill.begun().count(in_hand) == 2, "the second worker began again what the first one had in hand"
    paused.send_signal(signal.SIGCONT)
    mill.give(*tasks(1, range(6, 10)))
    mill.until_done()
    mill.end()
    ((worker,),) = mill.query("SELECT pid FROM done WHERE number = ?", in_hand)
    assert worker != paused.pid
    mill.verify()


def test_a_handler_that_kills_its_process_is_dead_after_its_attempts(mill: Mill) -> None:
    mill.give(*tasks(5, range(15)))
    mill.give(Task("lane0", 100, "die"))
    mill.give(*tasks(5, range(101, 131)))
    deaths = 0
    total = 15 + 30 - len([number for number in range(101, 131) if number % 5 == 0])

    def buried() -> bool:
        nonlocal deaths
        if mill.workers[-1].poll() is not None:
            assert mill.workers[-1].returncode == -signal.SIGKILL, mill.said()
            deaths += 1
            mill.start()
        return mill.done() >= total and mill.query("SELECT 1 FROM eventmill_jobs WHERE state = 'dead'") != []

    mill.start()
    mill.until(buried, "the killer is dead, and its neighbours are done")
    assert 3 <= deaths <= 5, "three attempts, and at most two deaths before it was alone"
    ((attempts, errors),) = mill.query("SELECT attempts, errors FROM eventmill_jobs WHERE state = 'dead'")
    assert "the process handling it died" in str(errors)
    assert int(str(attempts)) in (3, 4)
    behind = [number for number in range(101, 131) if number % 5 == 0]

    def parked() -> list[int]:
        return [
            int(str(number))
            for (number,) in mill.query(
                "SELECT json_extract(CAST(l.data AS TEXT), '$.number') FROM eventmill_jobs j"
                " JOIN eventmill_log l ON l.position = j.position WHERE j.state = 'parked' ORDER BY j.id"
            )
        ]

    mill.until(lambda: len(parked()) == len(behind), "the later ones of its lane are parked")
    assert parked() == behind
    mill.verify(without=[("lane0", number) for number in (100, *behind)])

    (mill.place / "healed").touch()
    asyncio.run(replay(mill))
    mill.until_done()
    mill.end()
    mill.verify()


async def replay(mill: Mill) -> None:
    async with program.mill(mill.place) as app:
        dead = await app.store.jobs(state="dead")
        assert await app.store.replay([job.id for job in dead]) == 1


def test_a_handler_that_blocks_the_event_loop_keeps_its_lease(mill: Mill) -> None:
    mill.give(Task("lane0", 0, "block"), *tasks(4, range(1, 9)))
    mill.start()
    mill.until(mill.begun, "the handler blocks")
    mill.start()
    mill.until_done()
    mill.end()
    assert mill.begun() == [0], "it was begun once"
    mill.verify()


def test_sigterm_under_load_ends_well_and_spends_nothing(mill: Mill) -> None:
    mill.give(*tasks(40, range(2000), "slow"))
    worker = mill.start()
    mill.until(lambda: mill.done() > 50, "some are done")
    assert mill.stop(worker) == 0, mill.said()
    assert 50 < mill.done() < 2000
    assert mill.query("SELECT 1 FROM eventmill_jobs") == []
    assert mill.query("SELECT 1 FROM eventmill_members") == []
    mill.start()
    mill.until_done()
    mill.end()
    assert mill.query("SELECT DISTINCT attempt FROM done") == [(1,)]
    mill.verify()


def test_what_sigterm_interrupts_after_the_grace_spends_no_attempt(mill: Mill) -> None:
    mill.give(Task("lane0", 0, "stick"), *tasks(4, range(1, 9)))
    worker = mill.start(attempts=1, grace=0.5)
    mill.until(lambda: mill.begun() and mill.done() == 6, "one sticks, all of other lanes are done")
    assert mill.stop(worker) == 0, mill.said()
    assert mill.query("SELECT 1 FROM eventmill_jobs WHERE attempts > 0") == []
    (mill.place / "healed").touch()
    mill.start(attempts=1)
    mill.until_done()
    mill.end()
    assert mill.query("SELECT attempt FROM done WHERE number = 0") == [(1,)]
    mill.verify()


def test_somebody_elses_long_transaction_delays_and_breaks_nothing(mill: Mill) -> None:
    mill.give(*tasks(16, range(300), "slow"))
    for _ in range(2):
        mill.start(attempts=50)
    mill.until(lambda: mill.done() > 20, "some are done")
    with contextlib.closing(sqlite3.connect(mill.file, timeout=90, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        held = connection.execute("SELECT count(*) FROM done").fetchone()
        time.sleep(LEASE + 0.5)  # no heartbeat can be written for longer than a lease
        assert connection.execute("SELECT count(*) FROM done").fetchone() == held
        connection.execute("ROLLBACK")
    mill.until_done()
    mill.end()
    mill.verify()
