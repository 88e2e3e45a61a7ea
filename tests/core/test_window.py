"""Windows: every moment is in the spans that hold it, and in no others."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventmill.core.errors import ConfigurationError
from eventmill.core.window import Fixed, Span, session, sliding, tumbling

MOMENTS = st.integers(0, 2_000_000_000_000)


@given(at=MOMENTS, every=st.integers(1, 5_000), times=st.integers(1, 20), more=st.integers(0, 4_999))
def test_a_moment_is_in_all_spans_that_hold_it(at: int, every: int, times: int, more: int) -> None:
    size = every * times + more % every
    found = Fixed(size, every).spans(at, [])
    first = (at - size) // every * every
    expected = [
        Span(start, start + size)
        for start in range(first, at + 1, every)
        if start % every == 0 and start <= at < start + size
    ]
    assert list(found) == expected


@given(at=MOMENTS)
def test_tumbling_windows_follow_each_other(at: int) -> None:
    (span,) = tumbling(60).spans(at, [])
    assert span.start % 60_000 == 0
    assert span.end - span.start == 60_000
    assert span.start <= at < span.end


@given(moments=st.lists(st.integers(0, 3_000), min_size=1, max_size=12), seed=st.randoms())
def test_sessions_are_the_same_in_every_order(moments: list[int], seed: object) -> None:
    def sessions(order: list[int]) -> list[Span]:
        spans: list[Span] = []
        for at in order:
            (span,) = session(0.2).spans(at, spans)
            spans = [each for each in spans if each.end < span.start or span.end < each.start]
            spans.append(span)
        return sorted(spans)

    shuffled = list(moments)
    seed.shuffle(shuffled)  # type: ignore[attr-defined]
    found = sessions(moments)
    assert sessions(shuffled) == found
    ordered = sorted(set(moments))
    starts = [at for before, at in zip([None, *ordered], ordered, strict=False) if before is None or at - before > 200]
    assert [span.start for span in found] == starts


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="size=0"):
        tumbling(0)
    with pytest.raises(ConfigurationError, match="in none"):
        sliding(1, every=2)
    with pytest.raises(ConfigurationError, match=r"1,000 times"):
        sliding(3600, every=1)
    with pytest.raises(ConfigurationError, match="gap"):
        session(-1)
