"""`eventmill run`: real processes, real signals, real backlogs."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import sys
import time
from pathlib import Path

import pytest
from cli_calls import BAKERY, Call, Start

from eventmill.cli.run import backlog
from eventmill.cli.target import load_app
from eventmill.runtime.scaling import Backlog, Scaling
from eventmill.runtime.supervisor import Supervisor

SLOW = BAKERY.replace(
    'await tx.execute("INSERT', 'import asyncio, os; await asyncio.sleep(0.02)\n    await tx.execute("INSERT'
).replace('(event.order, "")', "(event.order, str(os.getpid()))")


def order(call: Call, *numbers: int) -> None:
    lines = "".join(json.dumps({"order": f"k{number}"}) + "\n" for number in numbers)
    call("publish", "bakery", "bread.ordered", input=lines)


def baked(folder: Path) -> list[str]:
    connection = sqlite3.connect(folder / "bakery.db")
    try:
        return [row[0] for row in connection.execute("SELECT loaf FROM baked ORDER BY rowid")]
    finally:
        connection.close()


def children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("processes", ["1", "2"])
def test_handles_until_told_to_stop(
    folder: Path, call: Call, start: Start, processes: str, number: signal.Signals
) -> None:
    order(call, *range(20))
    running = start("bakery:app", "--processes", processes)
    running.until(lambda: len(baked(folder)) == 20)
    assert running.end(number) == 0
    assert sorted(baked(folder)) == sorted(f"k{each}" for each in range(20))
    said = running.log.read_text()
    assert "group   bakery.bake  bread.ordered" in said
    assert f"store   sqlite:///{folder}/bakery.db" in said
    assert said.count("look   eventmill groups bakery:app") == 1


def test_what_a_stranger_published_does_not_reach_the_terminal_raw(call: Call, start: Start) -> None:
    call("publish", "bakery", "bread.ordered", '{"order": "a", "loaves": -1}')
    running = start("bakery")
    running.until(lambda: json.loads(call("dead", "bakery", "--json").stdout))
    assert running.end() == 0
    assert "\\x1b[31mred" in running.log.read_text()
    assert "\x1b" not in running.log.read_text()


def test_a_killed_worker_is_replaced_and_nothing_is_lost_or_done_twice(folder: Path, call: Call, start: Start) -> None:
    (folder / "bakery.py").write_text(SLOW)
    order(call, *range(300))
    running = start("bakery", "--processes", "2")
    running.until(lambda: len(baked(folder)) > 20)
    killed = children(running.process.pid)
    assert len(killed) == 2
    os.kill(killed[0], signal.SIGKILL)
    running.until(lambda: len(baked(folder)) == 300)
    assert len(children(running.process.pid)) == 2
    assert running.end() == 0
    assert f"worker {killed[0]} ended with signal SIGKILL; starting another" in running.log.read_text()
    assert sorted(baked(folder)) == sorted(f"k{each}" for each in range(300))


def test_workers_end_when_their_parent_is_killed(folder: Path, call: Call, start: Start) -> None:
    order(call, 1)
    running = start("bakery", "--processes", "2")
    running.until(lambda: len(baked(folder)) == 1 and len(children(running.process.pid)) == 2)
    orphans = children(running.process.pid)
    running.process.kill()
    running.process.wait()
    deadline = time.monotonic() + 45
    while not all(gone(pid) for pid in orphans):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_grows_with_a_backlog_and_says_why(folder: Path, call: Call, start: Start) -> None:
    (folder / "bakery.py").write_text(SLOW.replace("@app.on(Ordered, ", "@app.on(Ordered, concurrency=1, "))
    order(call, *range(4_000))
    running = start("bakery", "--processes", "1..2")
    running.until(lambda: len(children(running.process.pid)) == 2)
    said = running.log.read_text()
    assert "scaling 1 → 2: " in said
    assert "messages wait, the oldest for" in said
    assert running.end() == 0, running.log.read_text()


def test_scales_up_and_down_on_a_real_backlog(folder: Path, call: Call) -> None:
    (folder / "bakery.py").write_text(SLOW)
    order(call, *range(400))
    app = load_app("bakery:app")
    said: list[str] = []

    async def play() -> None:
        stop = asyncio.Event()
        async with asyncio.timeout(60), app:
            supervisor = Supervisor(
                [sys.executable, "-m", "eventmill", "run", "bakery:app", "--worker"],
                low=1,
                high=2,
                backlog=lambda: backlog([app]),
                report=said.append,
                on_death=app.store.bury,
                scaling=Scaling(1, 2, grow_messages=10, settle=0.05, drain_within=0.05, shrink_after=0.3),
                look_every=0.05,
            )
            running = asyncio.create_task(supervisor.run(stop))
            while not said or not said[-1].startswith("scaling 2 → 1"):
                await asyncio.sleep(0.02)
                assert not running.done()
            stop.set()
            assert await running == 0
            assert await backlog([app]) == Backlog(0, 0.0)

    asyncio.run(play())
    assert said[0].startswith("scaling 1 → 2: ")
    assert sorted(baked(folder)) == sorted(f"k{each}" for each in range(400))


def test_exit_codes(folder: Path, call: Call) -> None:
    (folder / "broken.py").write_text("1 / 0\n")
    (folder / "far.py").write_text("from eventmill import App\napp = App('sqlite:///no/such/folder/x.db')\n")
    (folder / "light.py").write_text("from eventmill import App\napp = App('memory://')\n")
    (folder / "plain.py").write_text("app = 3\n")
    assert "ZeroDivisionError" in call("run", "broken:app", code=78).stderr
    assert "not an App" in call("run", "plain:app", code=78).stderr
    assert "use --processes 1" in call("run", "light", "--processes", "2", code=78).stderr
    for processes in ("1", "2"):
        assert "cannot be opened" in call("run", "far", "--processes", processes, code=69).stderr
    call("run", code=2)
    call("run", "bakery", "--processes", "4..1", code=2)
    call("run", "bakery", "--grace", "-1", code=2)


def test_a_worker_whose_configuration_is_wrong_ends_the_run(folder: Path, start: Start) -> None:
    refusing = "import os\nif 'EVENTMILL_INCARNATION' in os.environ: raise ValueError('not in a worker')\n"
    (folder / "bakery.py").write_text(refusing + BAKERY)
    running = start("bakery", "--processes", "2")
    assert running.process.wait(timeout=45) == 78
    assert "not in a worker" in running.log.read_text()
    assert "stopping all workers" in running.log.read_text()


def test_help_names_every_command_and_loads_none(call: Call) -> None:
    shown = call("--help").stdout
    for name in ("run", "demo", "publish", "tail", "topics", "groups", "dead", "outbox", "doctor"):
        assert f"  {name} " in shown
        assert name in call(name, "--help").stdout
    assert "No such command" in call("serve", code=2).stderr


def test_two_services_of_one_name_on_one_broker_do_not_start(folder: Path, call: Call) -> None:
    (folder / "twins.py").write_text(
        "from eventmill import App\n"
        "apps = [App(f'sqlite:///{letter}.db', broker='sqlite:///broker.db', name='twin') for letter in 'ab']\n"
    )
    result = call("run", "twins:apps", code=78)
    assert "two Apps with the same broker are called 'twin'" in result.stderr
