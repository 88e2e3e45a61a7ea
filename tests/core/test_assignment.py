from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from eventmill.core.assignment import share
from eventmill.core.message import Partition

PARTITIONS = [Partition("order", number) for number in range(12)]


@st.composite
def situations(draw: st.DrawFn) -> tuple[list[str], dict[Partition, str | None]]:
    members = sorted(draw(st.sets(st.sampled_from("abcdefgh"), min_size=1)))
    count = draw(st.integers(0, 12))
    holder = st.sampled_from([None, "gone", *members])
    return members, {partition: draw(holder) for partition in PARTITIONS[:count]}


def settle(members: list[str], holders: dict[Partition, str | None]) -> int:
    """Let every member act in turn until none has anything to do; returns how often a held partition was given up."""
    moved = 0
    for _ in range(20):
        before = dict(holders)
        for me in members:
            take, give = share(me, members, holders)
            assert all(holders[partition] not in members for partition in take)
            assert all(holders[partition] == me for partition in give)
            assert not (take and give)
            for partition in take:
                holders[partition] = me
            for partition in give:
                holders[partition] = None
                moved += 1
        if holders == before:
            return moved
    raise AssertionError(f"never came to rest: {holders}")


@given(situations())
def test_members_come_to_rest_with_fair_shares_of_everything(
    situation: tuple[list[str], dict[Partition, str | None]],
) -> None:
    members, holders = situation
    held = {me: sum(holder == me for holder in holders.values()) for me in members}
    quota, extra = divmod(len(holders), len(members))
    moved = settle(members, holders)
    shares = [sum(holder == me for holder in holders.values()) for me in members]
    assert sum(shares) == len(holders)
    assert max(shares) - min(shares) <= 1
    # No more is moved than any fair spread would have to move.
    larger = sorted(held.values(), reverse=True)
    assert moved == sum(max(0, count - quota - (index < extra)) for index, count in enumerate(larger))


def test_a_member_that_is_not_listed_yet_counts_itself() -> None:
    take, give = share("new", [], dict.fromkeys(PARTITIONS))
    assert take == PARTITIONS
    assert give == []
