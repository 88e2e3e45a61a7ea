"""Publishing from the command line."""

from __future__ import annotations

import json
from pathlib import Path

from cli_calls import Call
from cli_seeds import log, message


def records(call: Call, target: str = "sqlite:///bakery.db") -> list[dict[str, object]]:
    return [json.loads(line) for line in call("tail", target, "--json").stdout.splitlines()]


def test_an_event_is_checked_keyed_and_stored(call: Call) -> None:
    done = call("publish", "bakery:app", "bread.ordered", '{"order": "a", "loaves": 2}')
    assert done.stdout == "published 1 message of bread.ordered, position 1\n"
    [record] = records(call)
    assert record["data"] == {"order": "a", "loaves": 2}
    assert (record["partitionkey"], record["source"], record["type"]) == ("a", "bakery", "bread.ordered")


def test_lines_of_json_are_published_in_order(call: Call) -> None:
    lines = "".join(f'{{"order": "k", "loaves": {number}}}\n\n' for number in range(1_234))
    assert call("publish", "bakery", "bread.ordered", "--count", input=lines).stdout == "1234\n"
    assert [each["data"]["loaves"] for each in records(call)] == list(range(1_234))  # type: ignore[index]


def test_a_bad_line_is_named_and_ends_it_after_those_before(call: Call) -> None:
    lines = '{"order": "a"}\n{"order": "b"}\n\n{"order": 3}\n{"order": "d"}\n'
    failed = call("publish", "bakery", "bread.ordered", input=lines, code=1)
    assert "line 4: " in failed.stderr
    assert "2 messages before it published" in failed.stderr
    assert [each["partitionkey"] for each in records(call)] == ["a", "b"]


def test_what_is_not_json_is_refused(call: Call, folder: Path) -> None:
    log(folder / "bakery.db", message(1))
    for target in ("bakery", "sqlite:///bakery.db"):
        for text in ("{", "NaN", "{'a': 1}"):
            assert "line 1: " in call("publish", target, "bread.ordered", text, code=1).stderr
    assert len(records(call)) == 1


def test_an_unregistered_type_is_refused_with_the_nearest_one(call: Call) -> None:
    refused = call("publish", "bakery", "bread.orderd", "{}", code=2)
    assert "did you mean bread.ordered?" in refused.stderr
    call("publish", "bakery", "bread.orderd", "{}", "--any-type", "--key", "k")
    [record] = records(call)
    assert (record["type"], record["partitionkey"]) == ("bread.orderd", "k")


def test_a_given_key_goes_before_the_events_own(call: Call) -> None:
    call("publish", "bakery", "bread.ordered", '{"order": "a"}', "--key", "mine")
    [record] = records(call)
    assert record["partitionkey"] == "mine"


def test_a_url_takes_any_type_but_creates_no_file(call: Call, folder: Path) -> None:
    assert "bakery.db" in call("publish", "sqlite:///bakery.db", "flour.bought", "{}", code=2).stderr
    log(folder / "bakery.db", message(1))
    call("publish", "sqlite:///bakery.db", "flour.bought", '{"kilos": 1}', "--key", "k")
    record = records(call)[-1]
    assert (record["type"], record["data"], record["partitionkey"]) == ("flour.bought", {"kilos": 1}, "k")


def test_too_large_and_a_wrong_name_are_refused(call: Call) -> None:
    large = json.dumps({"crumbs": "a" * 2_000_000})
    refused = call("publish", "bakery", "bread.crumbled", "--any-type", input=large + "\n", code=1)
    assert "max_bytes" in refused.stderr
    assert call("publish", "bakery", "Bread Ordered", "{}", "--any-type", code=78).stderr
