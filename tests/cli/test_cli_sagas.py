"""`sagas`, `aggregations` and `lineage`: seen from outside, and helped on by a person."""

from __future__ import annotations

import asyncio
import importlib
from pathlib import Path
from typing import Any

import pytest
from cli_calls import Call, parsed

MODULE = """
from eventmill import NO_RETRY, App, Collected, DeadLetter, Event, Settings, Transaction

app = App("sqlite:///longrun.db", name="shop", settings=Settings(lease=1.0))

class CliPlaced(Event, name="clisaga.placed", key="order"):
    order: str

class CliGo(Event, name="clisaga.go", key="order"):
    order: str

class CliBoth(Event, name="clicoarse.both", key="order"):
    order: str

saga = app.saga("checkout", key="order", starts_on=CliPlaced)

async def release(event: CliPlaced, tx: Transaction) -> DeadLetter | None:
    return DeadLetter("the shelf is \\x1b[31mlocked") if event.order == "stuck" else None

@saga.step(compensate=release)
async def reserve(event: CliPlaced, tx: Transaction) -> None: ...

@saga.step(retry=NO_RETRY)
async def charge(event: CliPlaced) -> DeadLetter | None:
    return DeadLetter("declined") if event.order == "stuck" else None

@saga.step(done_on=CliGo)
async def go(event: CliPlaced) -> None: ...

@app.aggregator("both", key="order", all_of=[CliPlaced, CliGo])
def both(group: Collected) -> CliBoth:
    return CliBoth(group.key)
"""

TARGET = "longrun_app:app"
URL = "sqlite:///longrun.db"


@pytest.fixture
def service(folder: Path) -> Any:
    """Three sagas: one done, one that waits, one that needs attention."""
    (folder / "longrun_app.py").write_text(MODULE)
    module = importlib.import_module("longrun_app")

    async def live() -> None:
        await work(module, module.CliPlaced("done"), module.CliPlaced("waits"), module.CliPlaced("stuck"))
        module.app = importlib.reload(module).app
        await work(module, module.CliGo("done"))

    asyncio.run(live())
    return importlib.reload(module)


async def work(module: Any, *events: object) -> None:
    """Handle until nothing is left to do."""
    app = module.app
    async with app:
        await app.publish(*events)
        running = asyncio.create_task(app.run())
        idle = 0
        while idle < 15:
            await asyncio.sleep(0.02)
            waiting = 0
            for group in await app.store.groups():
                waiting += (await app.store.backlog(group.name, group.cursors, group.types)).messages
            there = bool(await app.store.groups())
            due = [job for job in await app.store.jobs() if job.due <= app.clock.now() * 1000]
            idle = idle + 1 if there and not due and not waiting and app.handled >= len(events) else 0
        app.stop()
        await running


def test_lists_and_shows(call: Call, service: Any) -> None:
    found = {each["key"]: each for each in parsed(call("sagas", URL, "--json"))}
    assert {key: each["state"] for key, each in found.items()} == {
        "done": "COMPLETED", "waits": "RUNNING", "stuck": "NEEDS_ATTENTION"
    }  # fmt: skip
    assert found["stuck"]["at"] == "reserve"
    assert [each["key"] for each in parsed(call("sagas", URL, "--state", "running", "--json"))] == ["waits"]
    assert {each["key"] for each in parsed(call("sagas", URL, "--open", "--json"))} == {"waits", "stuck"}
    assert "there are more than these 1" in call("sagas", URL, "--limit", "1").stderr
    lines = call("sagas", "show", URL, "shop.checkout/stuck").stdout
    assert "step.undone" not in lines
    assert "the shelf is \\x1b[31mlocked" in lines
    assert "\x1b" not in lines
    whole = parsed(call("sagas", "show", URL, "stuck", "--json"))
    assert [(each["name"], each["state"]) for each in whole["steps"]] == [("reserve", "done"), ("charge", "failed")]
    assert all("after_ms" in entry for entry in whole["timeline"])
    assert "no instance 'nobody'" in call("sagas", "show", URL, "nobody", code=2).stderr
    assert "there is no saga 'x'" in call("sagas", "list", URL, "--saga", "x", code=2).stderr


def test_a_person_helps_on_and_is_named(call: Call, service: Any) -> None:
    assert "say why" in call("sagas", "skip", URL, "stuck", code=78).stderr
    assert (
        "RUNNING: skip is for what needs attention" in call("sagas", "skip", URL, "waits", "--why", "x", code=78).stderr
    )
    assert (
        call("sagas", "skip", URL, "stuck", "--why", "seen to", "--by", "ada").stdout
        == "shop.checkout/stuck: COMPENSATING\n"
    )
    assert "COMPENSATING" in call("sagas", "cancel", TARGET, "waits", "--why", "too slow", "--by", "ada").stdout
    asyncio.run(work(service))
    found = {each["key"]: each["state"] for each in parsed(call("sagas", URL, "--json"))}
    assert found == {"done": "COMPLETED", "waits": "COMPENSATED", "stuck": "COMPENSATED"}
    entries = parsed(call("sagas", "show", URL, "stuck", "--json"))["timeline"]
    assert [(e["what"], e["by"], e["detail"]) for e in entries if e.get("by")] == [("operator.skip", "ada", "seen to")]
    assert "nothing to do" in call("sagas", "resume", URL, "done", code=78).stderr


def test_groups_are_listed_shown_and_closed(call: Call, service: Any) -> None:
    found = parsed(call("aggregations", URL, "--json"))
    assert {each["key"]: [event["type"] for event in each["events"]] for each in found} == {
        "waits": ["clisaga.placed"], "stuck": ["clisaga.placed"]
    }  # fmt: skip
    assert "clisaga.placed" in call("aggregations", "show", URL, "waits").stdout
    closed = parsed(call("aggregations", "show", URL, "shop.both/done", "--json"))["closed"]
    assert [each["coarse"] for each in closed] == [["shop.both/done/1"]]
    assert call("aggregations", "close", URL, "waits", "--why", "enough").stdout == "1 group will be closed\n"
    assert "no open group" in call("aggregations", "close", URL, "done", "--why", "enough", code=78).stderr
    asyncio.run(work(service))
    assert {each["key"] for each in parsed(call("aggregations", URL, "--json"))} == {"stuck"}


def test_lineage_goes_both_ways(call: Call, service: Any) -> None:
    made = parsed(call("lineage", URL, "shop.both/done/1", "--json"))["made_of"]
    assert sorted(each["type"] for each in made["events"]) == ["clisaga.go", "clisaga.placed"]
    for each in made["events"]:
        for options in ([], ["--key", "done"]):
            into = parsed(call("lineage", URL, each["id"], *options, "--json"))["went_into"]
            assert [one["coarse"] for one in into] == [["shop.both/done/1"]]
        assert "-> shop.both/done/1" in call("lineage", URL, each["id"]).stdout
    assert "<- clisaga.go" in call("lineage", URL, "shop.both/done/1").stdout
    call("lineage", URL, "nothing", code=1)


def test_timers_are_no_types_that_an_app_must_know(call: Call, service: Any) -> None:
    found = parsed(call("check", TARGET, "--json"))
    assert found["ok"]
    assert "clisaga.placed" in [each["type"] for each in found["types"]]
