"""Topics and groups made known where an App's messages are kept, before the first of them is published."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from eventmill.core.capabilities import Subscriber
from eventmill.core.message import Partition
from eventmill.core.partition import DEFAULT_PARTITIONS
from eventmill.runtime.consumer import Consumer


async def declare(place: Subscriber, counts: Mapping[str, int], consumers: Iterable[Consumer]) -> None:
    """Topics that consumers wait on must exist, so that their partitions can be shared out. counts: those that were said."""
    present = await place.topics()
    wanted = dict(counts)
    for each in consumers:
        for topic in each.topics(present):
            wanted.setdefault(topic, present.get(topic, DEFAULT_PARTITIONS))
    await place.declare(wanted)


async def admit(place: Subscriber, consumers: Iterable[Consumer]) -> None:
    """Before anything is published: what a queue does not know of, it keeps for nobody."""
    there = await place.topics()
    for each in consumers:
        parts = [Partition(topic, number) for topic in each.topics(there) for number in range(there.get(topic, 0))]
        await place.admit(each.group, each.types, parts)
