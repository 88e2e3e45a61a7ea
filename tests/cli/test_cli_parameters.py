"""Spans, sizes and process counts as people write them."""

from __future__ import annotations

import click
import pytest

from eventmill.cli.parameters import processes, seconds, size


@pytest.mark.parametrize(("text", "value"), [("7d", 604_800.0), ("1.5h", 5_400.0), ("90 s", 90.0), ("5min", 300.0)])
def test_spans(text: str, value: float) -> None:
    assert seconds(text) == value


@pytest.mark.parametrize(
    ("text", "value"), [("1GB", 10**9), ("1 GiB", 2**30), ("500", 500), ("1.5k", 1_500), ("9B", 9)]
)
def test_sizes(text: str, value: int) -> None:
    assert size(text) == value


@pytest.mark.parametrize(("text", "value"), [("1", (1, 1)), ("4", (4, 4)), ("1..4", (1, 4))])
def test_processes(text: str, value: tuple[int, int]) -> None:
    assert processes(text) == value


@pytest.mark.parametrize(
    ("convert", "text"),
    [(seconds, each) for each in ("7", "-1d", "d", "1y", "٧d", "")]
    + [(size, each) for each in ("-1", "GB", "1iB", "1PB", "1e9", "")]
    + [(processes, each) for each in ("0", "4..1", "1..", "-2", "1...4", "0..3", "two")],
)
def test_nonsense_is_refused_with_what_was_written(convert: object, text: str) -> None:
    assert callable(convert)
    with pytest.raises(click.BadParameter) as refusal:
        convert(text)
    assert repr(text) in str(refusal.value)
