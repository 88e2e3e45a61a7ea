from __future__ import annotations

import pytest

from eventmill.core.trace import child_of

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"


@pytest.mark.parametrize(
    ("parent", "flags"),
    [
        (f"00-{TRACE}-{SPAN}-01", "01"),
        (f"00-{TRACE}-{SPAN}-00", "00"),
        (f"00-{TRACE}-{SPAN}-ff", "03"),
        (f"cc-{TRACE}-{SPAN}-01-what-comes-later", "01"),
    ],
)
def test_a_child_keeps_the_trace_and_has_its_own_span(parent: str, flags: str) -> None:
    child = child_of(parent, "id-1")
    assert child is not None
    version, trace, span, kept = child.split("-")
    assert (version, trace, kept, len(span)) == ("00", TRACE, flags, 16)
    assert span != SPAN


def test_each_child_has_a_span_of_its_own() -> None:
    parent = f"00-{TRACE}-{SPAN}-01"
    assert len({child_of(parent, f"id-{number}") for number in range(1000)}) == 1000
    assert child_of(parent, "id-1") == child_of(parent, "id-1")


@pytest.mark.parametrize(
    "parent",
    [
        "",
        "junk",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}-01\n",
    ],
)
def test_an_invalid_parent_has_no_child(parent: str) -> None:
    assert child_of(parent, "id-1") is None
