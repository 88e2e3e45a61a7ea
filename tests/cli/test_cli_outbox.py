"""What has reached the broker, and what has not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_calls import BAKERY, Call, Start, parsed
from cli_seeds import dead, group, inside, log, message

from eventmill.backends.sqlite.backend import SqliteBackend
from eventmill.core.message import Partition
from eventmill.core.partition import partition_of

URL = "sqlite:///bakery.db"


@pytest.fixture
def outgoing(folder: Path) -> None:
    """Six messages: the relay has sent 1 and 2, gave 3 up, parks 4 behind it, and has 5 and 6 before it."""
    path = folder / "bakery.db"
    log(path, *(message(number) for number in range(1, 7)))
    group(path, "relay")
    dead(path, [message(3), message(4)], queue="relay")

    async def advance(store: SqliteBackend) -> None:
        partition = Partition("bread", partition_of("a", "", 16))
        query = "UPDATE eventmill_cursors SET position = 4 WHERE grp = 'relay' AND topic = ? AND partition = ?"
        async with store.transaction() as tx:
            assert (await tx.execute(query, tuple(partition))).rowcount == 1

    inside(path, advance)


def test_counts_and_lists_each_state(call: Call, outgoing: None) -> None:
    found = parsed(call("outbox", URL, "--json"))
    counts = [found[each] for each in ("pending", "retrying", "parked", "failed", "sent")]
    assert counts == [2, 0, 1, 1, 2]
    assert [(each["id"], each["state"]) for each in found["messages"]] == [
        ("m3", "failed"),
        ("m4", "parked"),
        ("m5", "pending"),
        ("m6", "pending"),
    ]
    assert found["messages"][0]["error"] == "ValueError: \x1b[31mred"
    sent = parsed(call("outbox", URL, "--state", "sent", "--json"))["messages"]
    assert [each["id"] for each in sent] == ["m1", "m2"]
    shown = call("outbox", URL, "--limit", "3")
    assert shown.stdout.startswith("2 pending, 0 retrying, 1 parked, 1 failed, 2 sent; the oldest not sent waits")
    assert "\x1b" not in shown.stdout
    assert "there are more" in shown.stderr


def test_a_store_that_is_its_own_broker_has_none(call: Call, folder: Path) -> None:
    log(folder / "bakery.db", message(1))
    assert parsed(call("outbox", "bakery:app", "--json")) == {"relay": False}
    assert "Nothing waits" in call("outbox", URL).stdout


def test_before_the_relay_first_ran_everything_is_pending(call: Call, folder: Path) -> None:
    (folder / "bakery.py").write_text(BAKERY.replace('bakery.db",', 'bakery.db", broker="sqlite:///broker.db",'))
    call("publish", "bakery", "bread.ordered", '{"order": "a"}')
    found = parsed(call("outbox", "bakery", "--json"))
    assert (found["pending"], found["sent"], found["oldest_age"] >= 0) == (1, 0, True)


def test_a_running_relay_empties_it(call: Call, folder: Path, start: Start) -> None:
    (folder / "bakery.py").write_text(BAKERY.replace('bakery.db",', 'bakery.db", broker="sqlite:///broker.db",'))
    lines = "".join(json.dumps({"order": f"k{number}"}) + "\n" for number in range(50))
    call("publish", "bakery", "bread.ordered", input=lines)
    running = start("bakery")
    running.until(lambda: parsed(call("outbox", "bakery", "--json"))["sent"] == 50)
    running.until(lambda: all(each["lag"] == 0 for each in parsed(call("groups", "bakery", "--json"))))
    assert running.end() == 0
    [topic] = parsed(call("topics", "bakery", "--json"))
    assert topic["messages"] == 50
