"""Who holds which partition: one pure step towards a fair spread."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from eventmill.core.message import Partition


def share(
    me: str,
    members: Collection[str],
    holders: Mapping[Partition, str | None],
) -> tuple[list[Partition], list[Partition]]:
    """What `me` should take and what it should give up.

    members: everyone alive in the group. holders: each partition with the live member that holds
    it, or None. Each member keeps what it has up to its quota, so a join or a leave moves as few
    partitions as possible; quotas differ by at most one and follow from the sorted member names,
    so all members agree on them without talking.
    """
    names = sorted({*members, me})
    quota, extra = divmod(len(holders), len(names))
    counts = dict.fromkeys(names, 0)
    for holder in holders.values():
        if holder in counts:
            counts[holder] += 1
    # The members that already hold most keep the larger quotas: ties by name.
    ranked = sorted(names, key=lambda name: (-counts[name], name))
    mine = quota + (1 if ranked.index(me) < extra else 0)
    held = sorted(partition for partition, holder in holders.items() if holder == me)
    free = sorted(partition for partition, holder in holders.items() if holder not in counts)
    return free[: max(0, mine - len(held))], held[mine:]
