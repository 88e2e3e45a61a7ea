"""When schedules fire: summer time, and what was missed."""

from __future__ import annotations

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventmill.patterns.tasks.timing import Missed, Timing

BERLIN = "Europe/Berlin"


def moment(text: str, tz: str = BERLIN) -> int:
    """Milliseconds since 1970 of a local time; one with an offset is taken as it is."""
    local = datetime.fromisoformat(text)
    return round((local if local.tzinfo else local.replace(tzinfo=ZoneInfo(tz))).timestamp() * 1000)


def following(timing: Timing, after: str, number: int) -> list[str]:
    found = []
    at = moment(after, timing.tz)
    for _ in range(number):
        at = timing.following(at)
        found.append(datetime.fromtimestamp(at / 1000, ZoneInfo(timing.tz)).strftime("%d %H:%M%z"))
    return found


@pytest.mark.parametrize(
    ("cron", "tz", "after", "expected"),
    [
        # A time that does not exist comes right after the change; one that comes twice fires the first time only.
        ("30 2 * * *", BERLIN, "2026-03-28T12:00", ["29 03:00+0200", "30 02:30+0200"]),
        ("30 2 * * *", BERLIN, "2026-10-24T12:00", ["25 02:30+0200", "26 02:30+0100"]),
        ("30 1 * * *", "America/New_York", "2026-10-31T12:00", ["01 01:30-0400", "02 01:30-0500"]),
        # Asked in the second of these hours, nothing comes again that came in the first.
        ("30 2 * * *", BERLIN, "2026-10-25T02:10+01:00", ["26 02:30+0100"]),
        ("30 1-3 * * *", BERLIN, "2026-10-25T02:10+01:00", ["25 03:30+0100"]),
        ("15 2 * * *", "America/New_York", "2026-03-07T12:00", ["08 03:00-0400", "09 02:15-0400"]),
        # What names every hour goes on through both changes.
        ("0 * * * *", BERLIN, "2026-10-25T01:00", ["25 02:00+0200", "25 02:00+0100", "25 03:00+0100"]),
        ("0 * * * *", BERLIN, "2026-03-29T01:00", ["29 03:00+0200", "29 04:00+0200"]),
        ("*/30 * * * *", BERLIN, "2026-03-29T01:00", ["29 01:30+0100", "29 03:00+0200", "29 03:30+0200"]),
        ("0 9 * * 1-5", BERLIN, "2026-03-27T12:00", ["30 09:00+0200", "31 09:00+0200"]),
        ("0 0 29 2 *", "UTC", "2026-01-01T00:00", ["29 00:00+0000"]),
        ("0 12 * * *", "Asia/Kathmandu", "2026-05-01T12:00", ["02 12:00+0545"]),
    ],
)
def test_cron_in_its_time_zone(cron: str, tz: str, after: str, expected: list[str]) -> None:
    assert following(Timing(cron=cron, tz=tz), after, len(expected)) == expected


@given(st.floats(0.1, 10**6), st.integers(0, 10**13))
def test_intervals_do_not_depend_on_who_counts_them(every: float, at: int) -> None:
    timing = Timing(every=every)
    after = timing.following(at)
    step = round(every * 1000)
    assert at < after <= at + step
    assert after % step == 0


@given(
    st.sampled_from(["30 2 * * *", "0 * * * *", "*/20 2,3 * * *", "5 4 * * 0"]),
    st.sampled_from([BERLIN, "America/New_York", "Australia/Lord_Howe", "UTC"]),
    st.datetimes(datetime(2026, 1, 1), datetime(2027, 12, 31)),
)
def test_moments_only_go_forward(cron: str, tz: str, start: datetime) -> None:
    timing = Timing(cron=cron, tz=tz)
    at = moment(start.isoformat(), tz)
    for _ in range(5):
        after = timing.following(at)
        assert after > at
        at = after


@given(
    st.sampled_from(["once", "skip", "all"]),
    st.one_of(st.just("17 * * * *"), st.integers(120, 7200)),
    st.integers(0, 20 * 3600),
    st.integers(0, 3600),
)
def test_what_was_missed(missed: Missed, when: str | int, gone: int, tolerance: int) -> None:
    """Seen against the plain list of the moments that have passed."""
    cron, every = (when, None) if isinstance(when, str) else (None, float(when))
    timing = Timing(cron, every, "UTC", missed, float(tolerance))
    planned = timing.following(moment("2026-05-01T00:00", "UTC"))
    now = planned + gone * 1000
    passed = [planned]
    while passed[-1] <= now:
        passed.append(timing.following(passed[-1]))
    passed.pop()
    fires, after = timing.fires(planned, now)
    assert after > now
    assert after == timing.following(passed[-1])
    if missed == "all":
        assert list(fires) == passed
    elif missed == "skip" and now - passed[-1] > tolerance * 1000:
        assert list(fires) == []
    else:
        assert list(fires) == passed[-1:]
    assert timing.fires(after, now) == ((), after), "what was planned does not fire twice"


def test_a_clock_that_goes_back_fires_nothing_again() -> None:
    timing = Timing(every=60.0)
    now = moment("2026-05-01T12:00:30", "UTC")
    fires, planned = timing.fires(timing.following(now - 60_000), now)
    assert len(fires) == 1
    for back in (timedelta(seconds=20), timedelta(hours=5)):
        assert timing.fires(planned, now - round(back.total_seconds() * 1000)) == ((), planned)


def test_making_up_for_very_many_goes_on_in_the_next_commit() -> None:
    timing = Timing(every=1.0, missed="all")
    fires, planned = timing.fires(0, 10_000_000)
    assert len(fires) == 1_000
    assert planned == fires[-1] + 1_000
