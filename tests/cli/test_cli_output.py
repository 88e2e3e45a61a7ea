"""What reaches the terminal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventmill.cli.output import counted, moment, safe, span, table


@given(st.text())
def test_nothing_that_a_terminal_would_obey_gets_through(text: str) -> None:
    shown = safe(text)
    assert shown.isprintable()
    shown.encode()


@given(st.text(st.characters(categories=["L", "N", "P"])))
def test_readable_text_stays_as_it_is(text: str) -> None:
    assert safe(text) == text


def test_escapes_are_visible() -> None:
    assert safe("a\x1b[31mb\x9b\u202e\ud800\n") == "a\\x1b[31mb\\x9b\\u202e\\ud800\\n"
    assert safe("a\nb\r", lines=True) == "a\nb\\r"


def test_columns_line_up_with_numbers_to_the_right(capsys: pytest.CaptureFixture[str]) -> None:
    table(["NAME", "MESSAGES"], [["a\x1b", 1], ["longer", 12_400], ["none", None]])
    assert capsys.readouterr().out.splitlines() == [
        "NAME    MESSAGES",
        "a\\x1b          1",
        "longer    12,400",
        "none           -",
    ]


def test_units() -> None:
    spans = [span(each) for each in (None, -1.0, 0.25, 119.0, 120.0, 7_200.0, 172_800.0)]
    assert spans == [None, "0.0 s", "0.2 s", "119.0 s", "2 min", "2 h", "2 d"]
    assert moment(1_700_000_000_123) == "2023-11-14T22:13:20.123Z"
    assert (counted(1, "process", "processes"), counted(2_000, "message")) == ("1 process", "2,000 messages")
