from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventmill.core.errors import ConfigurationError, EncodeError, MessageTooLargeError
from eventmill.core.limits import Limits, check_text, nesting

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(alphabet='ab"\\[]{}é\n'),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(alphabet='"\\[{', max_size=3), inner, max_size=4)
    ),
    max_leaves=30,
)


def depth_of(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth_of, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(depth_of, value), default=0)
    return 0


@given(values, st.booleans())
def test_nesting_counts_brackets_outside_of_strings_only(value: Any, ascii_only: bool) -> None:
    assert nesting(json.dumps(value, ensure_ascii=ascii_only).encode()) == depth_of(value)


@given(st.binary(max_size=200))
def test_nesting_never_exceeds_the_brackets_of_any_bytes(data: bytes) -> None:
    assert 0 <= nesting(data) <= data.count(b"{") + data.count(b"[")


def test_an_unfinished_string_of_a_megabyte_is_looked_through() -> None:
    assert nesting(b'["' + b'\\"[' * 400_000) == 1


def test_both_figures_are_in_the_refusal() -> None:
    limits = Limits()
    limits.check(b" " * 1_048_576)
    with pytest.raises(MessageTooLargeError, match=r"payload is 1,300,000 bytes; the limit is 1,048,576 \(max_bytes\)"):
        limits.check(b" " * 1_300_000)
    limits.check(b"[" * 64 + b"]" * 64)
    with pytest.raises(MessageTooLargeError, match=r"order.placed is nested 65 deep; the limit is 64 \(max_depth\)"):
        limits.check(b"[" * 65 + b"]" * 65, "order.placed")


def test_many_objects_side_by_side_are_not_deep() -> None:
    Limits(max_depth=2).check(json.dumps([{} for _ in range(1000)]).encode())


def test_brackets_in_other_data_than_json_mean_nothing() -> None:
    Limits(max_depth=2).check(b"[[[[", json=False)


@pytest.mark.parametrize("field", ["max_bytes", "max_depth"])
def test_limits_below_one_are_refused(field: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{field}=0"):
        Limits(**{field: 0})


@pytest.mark.parametrize(
    ("value", "reason"), [("", "empty"), ("a\0b", "NUL"), ("\ud800", "surrogate"), (3, "int, not a string")]
)
def test_text_that_cannot_be_carried_is_refused_with_the_field(value: object, reason: str) -> None:
    with pytest.raises(EncodeError, match=f"subject.*{reason}"):
        check_text(value, "subject")


def test_text_is_measured_in_utf8_bytes() -> None:
    check_text("é" * 250, "key", 500)
    with pytest.raises(MessageTooLargeError, match="key is 502 bytes; the limit is 500"):
        check_text("é" * 251, "key", 500)
