"""RFC 3339 timestamps, to the microsecond and without rounding."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_FORM = re.compile(r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d+))?(?:[Zz]|([+-])(\d\d):(\d\d))", re.ASCII)

_OURS = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:[0-5]\d\.\d{6}Z", re.ASCII)
"""What `timestamp` writes; any other form takes longer to read."""


def timestamp(microseconds: int) -> str:
    """Microseconds since 1970 UTC as text; raises OverflowError outside of the years 1 to 9999."""
    second, fraction = divmod(microseconds, 1_000_000)
    return f"{_second(second)}.{fraction:06d}Z"


@lru_cache(256)
def _second(seconds: int) -> str:
    """Events of one time stand together: most ask for a second that was just written."""
    return (_EPOCH + timedelta(seconds=seconds)).replace(tzinfo=None).isoformat()


def microseconds(text: str) -> int:
    """Microseconds since 1970 UTC; raises ValueError for what is not a timestamp of RFC 3339.

    Digits beyond the sixth are cut off. A leap second counts as the first second of the next minute.
    """
    if _OURS.fullmatch(text):
        return _seconds(text[:19]) * 1_000_000 + int(text[20:26])
    match = _FORM.fullmatch(text)
    if match is None:
        raise ValueError("not a timestamp such as 2026-01-31T12:00:00.000000Z")
    year, month, day, hour, minute, second = map(int, match.groups()[:6])
    fraction = int((match[7] or "")[:6].ljust(6, "0"))
    leap = second == 60
    moment = datetime(year, month, day, hour, minute, 59 if leap else second, tzinfo=UTC)
    offset = 0
    if match[8]:
        hours, minutes = int(match[9]), int(match[10])
        if hours > 23 or minutes > 59:
            raise ValueError("the offset from UTC is out of range")
        offset = (hours * 60 + minutes) * (1 if match[8] == "+" else -1)
    return (moment - _EPOCH) // _MICROSECOND + (1_000_000 if leap else fraction) - offset * 60_000_000


@lru_cache(256)
def _seconds(text: str) -> int:
    return (datetime.fromisoformat(text).replace(tzinfo=UTC) - _EPOCH) // timedelta(seconds=1)
