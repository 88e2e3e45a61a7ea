"""Dead letters: seen whole, let go again, or dropped."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_calls import Call, parsed
from cli_seeds import GROUP, dead, group, message

URL = "sqlite:///bakery.db"


@pytest.fixture
def letters(folder: Path) -> list[int]:
    """Two dead letters, of the keys a and b; two messages are parked behind the first."""
    group(folder / "bakery.db")
    dead(folder / "bakery.db", [message(1, "a"), message(2, "b"), message(3, "a"), message(4, "a")])
    return [1, 2]


def states(call: Call) -> tuple[int, int, int]:
    [found] = parsed(call("groups", URL, "--json"))
    return found["retrying"], found["parked"], found["dead"]


def test_lists_them_with_cause_and_attempts(call: Call, letters: list[int]) -> None:
    found = parsed(call("dead", URL, "--json"))
    assert [each["id"] for each in found] == letters
    assert [each["message"]["partitionkey"] for each in found] == ["a", "b"]
    assert found[0]["group"] == GROUP
    assert found[0]["errors"][0]["error"] == "ValueError: \x1b[31mred"
    lines = call("dead", "list", URL, "--group", GROUP).stdout
    assert "ValueError: \\x1b[31mred" in lines
    assert "\x1b" not in lines
    short = call("dead", URL, "--limit", "1")
    assert len(short.stdout.splitlines()) == 2
    assert "there are more than these 1" in short.stderr


def test_shows_one_whole(call: Call, letters: list[int]) -> None:
    found = parsed(call("dead", "show", URL, "1", "--json"))
    assert (found["id"], found["parked_behind"], found["message"]["data"]) == (1, 2, {"order": "a", "loaves": 1})
    shown = call("dead", "show", URL, "1").stdout
    assert "\\x1b]0;owned\\x07" in shown
    assert "\x1b" not in shown
    assert "3 is not a dead letter here" in call("dead", "show", URL, "3", code=2).stderr


def test_replay_by_id_says_what_was_none(call: Call, letters: list[int]) -> None:
    done = call("dead", "replay", URL, "1", "77", code=1)
    assert done.stdout == "replayed 1 message\n"
    assert "77 is not a dead letter here" in done.stderr
    assert states(call) == (1, 2, 1)


def test_replay_of_a_group_and_of_all(call: Call, letters: list[int]) -> None:
    assert "there are: bakery.bake" in call("dead", "replay", URL, "--group", "x", code=2).stderr
    assert call("dead", "replay", "bakery:app", "--group", GROUP).stdout == "replayed 2 messages\n"
    assert states(call) == (2, 2, 0)
    assert call("dead", "replay", URL, "--all").stdout == "replayed 0 messages\n"


def test_skip_lets_what_is_parked_go(call: Call, letters: list[int]) -> None:
    assert call("dead", "skip", URL, "1").stdout == "skipped 1 message\n"
    assert states(call) == (1, 1, 1)


def test_dropping_many_wants_a_yes(call: Call, letters: list[int]) -> None:
    assert "add --yes" in call("dead", "skip", URL, "--all", code=2).stderr
    assert states(call) == (0, 2, 2)
    assert call("dead", "skip", URL, "--all", "--yes").stdout == "skipped 2 messages\n"
    assert states(call) == (1, 1, 0)


@pytest.mark.parametrize("which", [[], ["1", "--all"], ["--group", GROUP, "--all"]])
def test_one_choice_must_be_made(call: Call, letters: list[int], which: list[str]) -> None:
    assert "say which" in call("dead", "replay", URL, *which, code=2).stderr


def test_more_than_a_page(call: Call, folder: Path) -> None:
    group(folder / "bakery.db")
    for start in range(0, 700, 100):
        dead(folder / "bakery.db", [message(number, f"k{number}") for number in range(start, start + 100)])
    assert call("dead", "replay", URL, "--all").stdout == "replayed 700 messages\n"
    assert states(call) == (700, 0, 0)
