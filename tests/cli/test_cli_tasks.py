"""Tasks and schedules from the command line, with the App and with the store's URL alone."""

from __future__ import annotations

import asyncio
import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest
from cli_calls import Call, Start, parsed

from eventmill.cli.run import backlog
from eventmill.runtime.scaling import Backlog

URL = "sqlite:///smithy.db"

SMITHY = """
import asyncio
from eventmill import App, Limit, NO_RETRY, Settings, TaskContext, Transaction

app = App("sqlite:///smithy.db", name="smithy", settings=Settings(lease=1.0))

@app.setup
async def tables(tx: Transaction) -> None:
    await tx.execute("CREATE TABLE IF NOT EXISTS forged (number INTEGER)")

@app.schedule(cron="0 3 * * *", tz="Europe/Berlin", name="nightly")
@app.task(queue="fire", keep=3600, retry=NO_RETRY)
async def forge(context: TaskContext, tx: Transaction, number: int = 0) -> int:
    if number == 13:
        raise ValueError("bad luck: \\x1b[31mred")
    if number == 99:
        await asyncio.sleep(600)
    await tx.execute("INSERT INTO forged VALUES (?)", (number,))
    return number * 2
"""


@pytest.fixture
def smithy(folder: Path) -> ModuleType:
    """The module, imported here to send with."""
    (folder / "smithy.py").write_text(SMITHY)
    sys.modules.pop("smithy", None)
    return importlib.import_module("smithy")


def send(module: ModuleType, *numbers: int, after: float | None = None) -> list[str]:
    async def work() -> list[str]:
        async with module.app as app:
            ids = [await app.send(module.forge.job(number), after=after) for number in numbers]
            await app.tasks.schedules._register("nightly")
            return ids

    return asyncio.run(work())


def test_a_task_s_life_from_the_outside(call: Call, start: Start, smithy: ModuleType) -> None:
    first, second, third = send(smithy, 1, 2, 3, after=3600)
    found = parsed(call("tasks", URL, "--json"))
    assert [each["id"] for each in found["tasks"]] == [first, second, third]
    assert {(each["queue"], each["task"], each["state"]) for each in found["tasks"]} == {
        ("smithy/fire", "forge", "waiting")
    }
    assert found["tasks"][1]["message"]["data"] == {"number": 2}
    assert len(call("tasks", "list", "smithy:app", "--queue", "fire", "--state", "waiting").stdout.splitlines()) == 4
    assert "more than these 1" in call("tasks", URL, "--limit", "1").stderr
    assert call("tasks", URL, "--queue", "fire", code=2)
    assert "cancelled" in call("tasks", "cancel", URL, first).stdout
    assert "never was" in call("tasks", "cancel", URL, first, "nobody", code=1).stderr
    call("tasks", "pause", "smithy:app", "fire")
    assert "paused" in call("tasks", URL).stderr
    assert "there is no queue" in call("tasks", "pause", "smithy:app", "ice", code=78).stderr
    assert "1 task may run now" in call("tasks", "run", URL, second).stdout
    worker = start("smithy:app")
    call("tasks", "scale", URL, "smithy/fire", "2")
    call("tasks", "resume", URL, "smithy/fire")
    worker.until(lambda: kept(call, second).get("state") == "done")
    assert kept(call, second)["result"] == 4
    runs, dies = send(smithy, 99, 13)
    worker.until(lambda: {each["id"]: each["state"] for each in tasks(call)}.get(runs) == "running")
    worker.until(lambda: {each["id"]: each["state"] for each in tasks(call)}.get(dies) == "dead")
    shown = call("tasks", "show", URL, dies).stdout
    assert "bad luck: \\x1b[31mred" in shown
    assert "\x1b" not in shown
    assert "see `eventmill dead`" in call("tasks", "cancel", URL, dies, code=1).stderr
    assert "told to stop" in call("tasks", "cancel", URL, runs).stdout
    worker.until(lambda: kept(call, runs).get("state") == "cancelled")


def kept(call: Call, identity: str) -> dict[str, object]:
    return parsed(call("tasks", "show", URL, identity, "--json"))["report"] or {}


def tasks(call: Call) -> list[dict[str, str]]:
    found: list[dict[str, str]] = parsed(call("tasks", URL, "--json"))["tasks"]
    return found


def test_schedules_are_seen_and_changed(call: Call, smithy: ModuleType) -> None:
    send(smithy)
    (found,) = parsed(call("schedules", URL, "--json"))
    assert (found["schedule"], found["service"], found["cron"], found["tz"]) == (
        "nightly", "smithy", "0 3 * * *", "Europe/Berlin",
    )  # fmt: skip
    assert found["next"].endswith(("01:00:00.000Z", "02:00:00.000Z"))
    call("schedules", "pause", URL, "nightly")
    assert "paused" in call("schedules", "smithy:app").stdout
    call("schedules", "resume", URL, "nightly")
    call("schedules", "edit", URL, "nightly", "--every", "60")
    assert parsed(call("schedules", URL, "--json"))[0]["every"] == 60.0
    assert "is not understood" in call("schedules", "edit", URL, "nightly", "--cron", "often", code=78).stderr
    call("schedules", "edit", URL, "nightly", "--declared")
    assert parsed(call("schedules", URL, "--json")) == [found]
    sent = call("schedules", "run", URL, "nightly").stdout.strip()
    assert [each["id"] for each in tasks(call)] == [sent]
    assert "no schedule 'daily'" in call("schedules", "run", URL, "daily", code=2).stderr


def test_tasks_that_are_due_are_part_of_the_backlog(smithy: ModuleType) -> None:
    send(smithy, 1, 2, 3)
    send(smithy, 4, after=3600)

    async def look() -> list[Backlog]:
        async with smithy.app as app:
            seen = [await backlog([app])]
            await app.tasks.pause("fire")
            return [*seen, await backlog([app])]

    waiting, paused = asyncio.run(look())
    assert waiting.messages == 3
    assert waiting.oldest > 0
    assert paused == Backlog(0, 0.0)


def test_a_limit_is_changed_and_withdrawn(call: Call, smithy: ModuleType) -> None:
    send(smithy)
    assert "to 3 tasks at a time and to 100 in 60 s" in call(
        "tasks", "limit", URL, "smithy/fire", "--concurrency", "3", "--rate", "100/60"
    ).stdout  # fmt: skip
    assert "is limited to 3 tasks at a time and to 100 in 60 s" in call("tasks", URL).stderr
    assert (
        "declares no limit of concurrency"
        in call("tasks", "limit", "smithy:app", "fire", "--concurrency", "3", code=78).stderr
    )
    assert "N/SECONDS" in call("tasks", "limit", URL, "smithy/fire", "--rate", "often", code=2).stderr
    assert "or else --declared" in call("tasks", "limit", URL, "smithy/fire", code=2).stderr
    assert "as declared" in call("tasks", "limit", "smithy:app", "fire", "--declared").stdout
    assert "limited" not in call("tasks", URL).stderr
