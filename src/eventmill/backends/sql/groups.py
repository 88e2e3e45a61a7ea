"""Groups out of the rows that describe them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from eventmill.core.claims import Group
from eventmill.core.message import Partition
from eventmill.core.reading import Types

Rows = Iterable[Sequence[Any]]


def listed(*, groups: Rows, cursors: Rows, live_members: Rows, job_counts: Rows) -> list[Group]:
    """What the statements of these names have found, put together."""
    counts: dict[str, dict[str, int]] = {}
    for queue, state, number in job_counts:
        counts.setdefault(queue, {})[state] = number
    members: dict[str, dict[str, int]] = {}
    for group, member in live_members:
        members.setdefault(group, {})[member] = 0
    positions: dict[str, dict[Partition, int]] = {}
    for group, topic, number, position, member in cursors:
        positions.setdefault(group, {})[Partition(topic, number)] = position
        if member in members.get(group, {}):
            members[group][member] += 1
    return [
        Group(
            name,
            None if types is None else msgspec.json.decode(types, type=Types),
            positions.get(name, {}),
            members.get(name, {}),
            retrying=counts.get(name, {}).get("due", 0) + counts.get(name, {}).get("running", 0),
            parked=counts.get(name, {}).get("parked", 0),
            dead=counts.get(name, {}).get("dead", 0),
        )
        for name, types in groups
    ]
