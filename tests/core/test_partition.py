from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventmill.core.partition import partition_of


@pytest.mark.parametrize(("key", "partition"), [("123456789", 0xCBF43926 % 16), ("", 0), ("é", 0x0E048D3E % 16)])
def test_partitions_are_stored_and_must_never_change(key: str, partition: int) -> None:
    assert partition_of(key, "id", 16) == partition


@given(st.text(st.characters(exclude_categories=["Cs"])), st.integers(1, 100))
def test_a_key_alone_decides_its_partition(key: str, partitions: int) -> None:
    assert 0 <= partition_of(key, "a", partitions) < partitions
    assert partition_of(key, "a", partitions) == partition_of(key, "b", partitions)
    assert partition_of(None, key, partitions) == partition_of(key, "b", partitions)
