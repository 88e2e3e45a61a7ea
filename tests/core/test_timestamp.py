from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventmill.core.timestamp import microseconds, timestamp

FIRST = -62_135_596_800_000_000
LAST = 253_402_300_799_999_999


@given(st.integers(FIRST, LAST))
def test_every_moment_comes_back(moment: int) -> None:
    assert microseconds(timestamp(moment)) == moment


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01t00:00:00.5z", 500_000),
        ("1970-01-01T01:30:00+01:30", 0),
        ("1969-12-31T19:00:00.000001-05:00", 1),
        ("1970-01-01T00:00:00.1234569Z", 123_456),
        ("1970-01-01T00:00:60.9Z", 60_000_000),
        ("0001-01-01T00:00:00Z", FIRST),
    ],
)
def test_forms_of_rfc_3339(text: str, moment: int) -> None:
    assert microseconds(text) == moment


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026-01-31",
        "2026-01-31T12:00:00",
        "2026-01-31T12:00Z",
        "20260131T120000Z",
        "2026-02-30T12:00:00Z",
        "2026-01-31T24:00:00Z",
        "2026-01-31T12:00:61Z",
        "2026-01-31T12:00:00.Z",
        "2026-01-31T12:00:00+24:00",
        "2026-01-31T12:00:00Z\n",
        "٢٠٢٦-01-31T12:00:00Z",
    ],
)
def test_other_forms_are_refused(text: str) -> None:
    with pytest.raises(ValueError):
        microseconds(text)


@pytest.mark.parametrize("moment", [FIRST - 1, LAST + 1, 10**30])
def test_years_that_have_no_text_are_refused(moment: int) -> None:
    with pytest.raises(OverflowError):
        timestamp(moment)
