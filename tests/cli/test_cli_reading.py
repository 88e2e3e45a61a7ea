"""tail, topics and groups: exact, harmless, and without a trace on the disk."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cli_calls import Call, parsed
from cli_seeds import dead, group, log, message

from eventmill.core.reading import Types

READING = [["tail"], ["topics"], ["groups"], ["dead"], ["outbox"], ["doctor"]]


def test_tail_prints_the_log_in_order_and_filters_it(folder: Path, call: Call) -> None:
    log(folder / "bakery.db", *(message(number, "a" if number % 2 else "b") for number in range(1, 7)))
    log(folder / "bakery.db", message(7, None, type_="flour.bought"))
    records = [json.loads(line) for line in call("tail", "sqlite:///bakery.db", "--json").stdout.splitlines()]
    assert [each["position"] for each in records] == [1, 2, 3, 4, 5, 6, 7]
    assert [each["sequence"] for each in records if each.get("partitionkey") == "a"] == [1, 2, 3]
    assert records[0]["data"] == {"order": "a", "loaves": 1}
    assert (records[0]["id"], records[0]["source"], records[0]["topic"]) == ("m1", "test", "bread")

    def positions(*options: str) -> list[int]:
        lines = call("tail", "sqlite:///bakery.db", "--json", *options).stdout.splitlines()
        return [json.loads(line)["position"] for line in lines]

    assert positions("--topic", "flour") == [7]
    assert positions("--type", "flour.*", "--type", "none") == [7]
    assert positions("--limit", "2") == [1, 2]
    assert positions("--from", "end") == []


def test_tail_reads_more_than_a_page(folder: Path, call: Call) -> None:
    log(folder / "bakery.db", *(message(number, f"k{number % 50}") for number in range(1, 1_234)))
    assert len(call("tail", "sqlite:///bakery.db").stdout.splitlines()) == 1_233


def test_tail_shows_no_control_characters_and_keeps_bytes_in_json(folder: Path, call: Call) -> None:
    evil = b"\x1b]0;owned\x07\xff"
    log(folder / "bakery.db", message(1, "k\x1b[2J", data=evil))
    shown = call("tail", "sqlite:///bakery.db").stdout
    assert shown.rstrip("\n").isprintable()
    assert "\\x1b]0;owned\\x07" in shown
    [record] = [json.loads(line) for line in call("tail", "sqlite:///bakery.db", "--json").stdout.splitlines()]
    assert record["data_base64"] == "G10wO293bmVkB/8="
    assert record["partitionkey"] == "k\x1b[2J"


def test_tail_follows_what_others_append(folder: Path) -> None:
    log(folder / "bakery.db", message(1))
    command = [
        sys.executable,
        "-m",
        "eventmill",
        "tail",
        "sqlite:///bakery.db",
        "--follow",
        "--from",
        "end",
        "--limit",
        "2",
    ]
    following = subprocess.Popen([*command, "--json"], cwd=folder, stdout=subprocess.PIPE)
    try:
        number = 2
        # Only what comes after it has begun counts, and nobody says when that is.
        while following.poll() is None:
            log(folder / "bakery.db", message(number, type_="bread.ordered" if number % 2 else "flour.bought"))
            number += 1
            assert number < 500
            time.sleep(0.05)
        assert following.returncode == 0
        assert following.stdout is not None
        records = [json.loads(line) for line in following.stdout.read().splitlines()]
        assert len(records) == 2
        assert records[0]["position"] + 1 == records[1]["position"] > 2
    finally:
        following.kill()
        following.communicate()


def test_a_reader_that_has_seen_enough_is_no_error(folder: Path) -> None:
    log(folder / "bakery.db", *(message(number) for number in range(1, 3_000)))
    command = f"{sys.executable} -m eventmill tail sqlite:///bakery.db | head -n 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], cwd=folder, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr, len(done.stdout.splitlines())) == (0, "", 1)


def test_topics_counts_messages_and_their_age(folder: Path, call: Call) -> None:
    log(folder / "bakery.db", *(message(number, f"k{number}") for number in range(1, 6)))
    [topic] = parsed(call("topics", "sqlite:///bakery.db", "--json"))
    assert (topic["topic"], topic["partitions"], topic["messages"]) == ("bread", 16, 5)
    assert topic["oldest"] == topic["newest"]
    assert call("topics", "sqlite:///bakery.db").stdout.splitlines()[1].split()[:3] == ["bread", "16", "5"]


def test_trim_stops_for_a_group_says_so_and_goes_on_by_force(folder: Path, call: Call) -> None:
    log(folder / "bakery.db", *(message(number) for number in range(1, 6)))
    group(folder / "bakery.db")
    held = call("topics", "trim", "sqlite:///bakery.db", "bread", "--max-bytes", "0")
    assert "removed 0 messages of bread" in held.stdout
    assert "group bakery.bake has not handled what comes after it" in held.stderr
    options = ("bread", "--max-bytes", "0", "--json")
    assert parsed(call("topics", "trim", "sqlite:///bakery.db", *options))["held_by"] == "bakery.bake"
    forced = parsed(call("topics", "trim", "sqlite:///bakery.db", *options, "--force"))
    assert forced["removed"] >= 4
    assert forced["held_by"] is None


def test_trim_refuses_what_it_cannot_mean(folder: Path, call: Call) -> None:
    log(folder / "bakery.db", message(1))
    assert "say how much may go" in call("topics", "trim", "sqlite:///bakery.db", "bread", code=2).stderr
    refused = call("topics", "trim", "sqlite:///bakery.db", "bred", "--older-than", "7d", code=2)
    assert "there are: bread" in refused.stderr


def test_groups_says_how_far_behind_each_is(folder: Path, call: Call) -> None:
    path = folder / "bakery.db"
    log(path, *(message(number, f"k{number}") for number in range(1, 6)), message(6, type_="bread.eaten"))
    group(path, types=Types(frozenset({"bread.ordered"}), frozenset({"flour."})))
    dead(path, [message(1), message(2), message(3)])
    [found] = parsed(call("groups", "sqlite:///bakery.db", "--json"))
    assert (found["group"], found["members"], found["lag"]) == ("bakery.bake", {}, 5)
    assert (found["retrying"], found["parked"], found["dead"]) == (0, 2, 1)
    assert found["types"] == "bread.ordered, flour.*"
    assert found["oldest_age"] >= 0
    assert call("groups", "list", "bakery:app").stdout.splitlines()[1].split()[:3] == ["bakery.bake", "0", "5"]


def test_the_lag_of_groups_that_read_a_broker_is_not_guessed(folder: Path, call: Call) -> None:
    log(folder / "broker.db", message(1), message(2))
    group(folder / "bakery.db")
    group(folder / "bakery.db", "relay")
    alone = call("groups", "sqlite:///bakery.db", "--json")
    assert {each["group"]: each["lag"] for each in parsed(alone)} == {"bakery.bake": None, "relay": 0}
    assert "LAG is not known here" in call("groups", "sqlite:///bakery.db").stderr
    told = call("groups", "sqlite:///bakery.db", "--broker", "sqlite:///broker.db", "--json")
    assert {each["group"]: each["lag"] for each in parsed(told)} == {"bakery.bake": 2, "relay": 0}


def test_forget_asks_and_removes_the_group(folder: Path, call: Call) -> None:
    group(folder / "bakery.db")
    assert "add --yes" in call("groups", "forget", "bakery", "bakery.bake", code=2).stderr
    assert "there are: bakery.bake" in call("groups", "forget", "bakery", "backery", "--yes", code=2).stderr
    call("groups", "forget", "bakery", "bakery.bake", "--yes")
    assert parsed(call("groups", "sqlite:///bakery.db", "--json")) == []


@pytest.mark.parametrize("command", READING)
def test_reading_creates_no_file_and_names_the_missing_one(folder: Path, call: Call, command: list[str]) -> None:
    for target in ("sqlite:///missing.db", "bakery:app"):
        name = "missing.db" if target.startswith("sqlite") else "bakery.db"
        assert str(folder / name) in call(*command, target, code=2).stderr
    assert not list(folder.glob("*.db*"))


@pytest.mark.parametrize("command", READING)
def test_reading_changes_nothing(folder: Path, call: Call, command: list[str]) -> None:
    path = folder / "bakery.db"
    log(path, message(1), message(2))
    group(path)
    dead(path, [message(3)])
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    call(*command, "sqlite:///bakery.db")
    call(*command, "sqlite:///bakery.db", "--json")
    assert hashlib.sha256(path.read_bytes()).hexdigest() == before
    wal = folder / "bakery.db-wal"
    assert not wal.exists() or not wal.stat().st_size


@pytest.mark.parametrize("command", READING)
def test_a_file_that_is_no_store_is_refused(folder: Path, call: Call, command: list[str]) -> None:
    (folder / "text.db").write_bytes(b"order,loaves\n" * 1_000)
    result = call(*command, "sqlite:///text.db", code=1)
    assert "not an SQLite database" in result.output or "not a database" in result.output


def test_memory_has_nothing_to_look_at(call: Call) -> None:
    assert "lives inside the process" in call("groups", "memory://", code=2).stderr


def test_an_unknown_scheme_is_a_configuration_error(call: Call) -> None:
    assert "no backend for oracle" in call("groups", "oracle://x/y", code=78).stderr


def test_a_group_that_never_ran_is_listed_with_all_that_is_before_it(folder: Path, call: Call) -> None:
    call("publish", "bakery:app", "bread.ordered", '{"order": "a"}')
    (group,) = parsed(call("groups", "bakery:app", "--json"))
    assert (group["group"], group["members"], group["lag"], group["dead"]) == ("bakery.bake", {}, 1, 0)


def test_the_stream_comes_before_the_app(folder: Path, call: Call) -> None:
    call("publish", "bakery:app", "bread.ordered", '{"order": "a"}')
    result = call("history", "bakery:app", "bread/a", code=2)
    assert "eventmill history bread/a bakery:app" in result.stderr
