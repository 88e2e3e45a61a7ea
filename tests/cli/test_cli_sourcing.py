"""`eventmill history` and `eventmill check`."""

from __future__ import annotations

import asyncio
from pathlib import Path

from cli_calls import Call, parsed

from eventmill import App, named

NEWER = """
from eventmill import App, Event

app = App("sqlite:///meadow.db", name="meadow")

class Mown(Event, name="meadow.mown", key="field", version=2):
    field: str
    bales: int
"""
UPCASTER = """
from eventmill import upcast

@upcast("meadow.mown", from_version=1)
def bales(data):
    return {"field": data["field"], "bales": data["hay"] // 10}
"""


def fill(folder: Path) -> None:
    """Two events of one field, one of another, and one of a type without a class."""

    async def publish() -> None:
        async with App("sqlite:///meadow.db", name="seeds") as app:
            for number, field in enumerate("aab"):
                await app.append(f"meadow/{field}", named("meadow.mown", {"field": field, "hay": number * 10}))
            await app.append("meadow/a", named("meadow.flooded", {"depth": "\x1b[31m"}))

    asyncio.run(publish())


def write(folder: Path, module: str, text: str) -> None:
    (folder / f"{module}.py").write_text(text.replace("Mown(Event", f"{module.title()}Mown(Event"))


def test_history_shows_what_happened_and_why(call: Call, folder: Path) -> None:
    fill(folder)
    text = call("history", "meadow/a", "sqlite:///meadow.db").output
    lines = text.splitlines()
    assert lines[0].split()[0] == "1"
    assert "meadow.mown" in lines[0]
    assert '{"field": "a", "hay": 0}' in lines[0]
    assert "by seeds" in lines[1]
    assert "correlation" in lines[1]
    assert "\x1b" not in text
    found = parsed(call("history", "meadow/a", "sqlite:///meadow.db", "--json"))
    assert (found["stream"], found["version"], found["closed"]) == ("meadow/a", 3, None)
    assert [event["version"] for event in found["events"]] == [1, 2, 3]
    assert found["events"][1]["data"] == {"field": "a", "hay": 10}
    assert {"recorded_at", "position", "id", "correlationid", "source"} <= set(found["events"][0])
    some = parsed(call("history", "meadow/a", "sqlite:///meadow.db", "--json", "--after", "1", "--limit", "1"))
    assert [event["version"] for event in some["events"]] == [2]
    assert "no events" in call("history", "meadow/z", "sqlite:///meadow.db", code=2).output
    call("history", "meadow", "sqlite:///meadow.db", code=78)


def test_history_says_that_a_stream_is_closed(call: Call, folder: Path) -> None:
    fill(folder)

    async def archive() -> None:
        async with App("sqlite:///meadow.db", name="seeds") as app:
            await app.archive("meadow/b", reason="built over")

    asyncio.run(archive())
    assert "the stream is archived" in call("history", "meadow/b", "sqlite:///meadow.db").output
    assert parsed(call("history", "meadow/b", "sqlite:///meadow.db", "--json"))["closed"] == "archived"


def test_check_finds_a_missing_upcaster(call: Call, folder: Path) -> None:
    fill(folder)
    from eventmill.core.registry import REGISTRY

    assert REGISTRY.named("meadow.mown") is None
    write(folder, "newer", NEWER)
    output = call("check", "newer:app", code=1).output
    assert "the step from version 1 is missing" in output
    assert "meadow.flooded" in output
    found = parsed(call("check", "newer:app", "--json", "--ignore", "meadow.flooded", code=1))
    assert found["ok"] is False
    (kind,) = [kind for kind in found["types"] if kind["type"] == "meadow.mown"]
    assert (kind["version"], kind["messages"], kind["unreadable"]) == (1, 3, 3)
    assert kind["first_at"][0] == "position 1"
    (folder / "steps.py").write_text(UPCASTER)
    write(folder, "whole", "import newer, steps\nfrom newer import app\n")
    found = parsed(call("check", "whole:app", "--json", "--ignore", "meadow.flooded"))
    assert found["ok"] is True
    shown = parsed(call("history", "meadow/a", "whole:app", "--json"))
    assert shown["events"][1]["data"] == {"field": "a", "bales": 1}
    call("check", "sqlite:///meadow.db", code=78)
