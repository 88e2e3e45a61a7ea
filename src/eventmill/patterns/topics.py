"""Topics and groups made known where an App's messages are kept, before the first of them is published."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from eventmill.core.capabilities import Subscriber
from eventmill.core.errors import ConfigurationError
from eventmill.core.message import Partition
from eventmill.core.partition import DEFAULT_PARTITIONS
from eventmill.runtime.consumer import Consumer


async def declare(place: Subscriber, counts: Mapping[str, int], consumers: Sequence[Consumer]) -> None:
    """Topics that consumers wait on must exist, so that their partitions can be shared out. counts: those that were said.

    Raises ConfigurationError where a topic has another count than was said. Of the others, any is right.
    """
    while True:
        present = await place.topics()
        awaited = {topic for each in consumers for topic in each.topics(present)}
        assumed = awaited - counts.keys() - present.keys()
        known = {topic: present[topic] for topic in awaited & present.keys()}
        try:
            await place.declare({**dict.fromkeys(sorted(assumed), DEFAULT_PARTITIONS), **known, **counts})
        except ConfigurationError:
            if not assumed & (await place.topics()).keys():
                raise
            # Somebody who knows its count has declared one in this moment.
        else:
            return


async def admit(place: Subscriber, consumers: Iterable[Consumer]) -> None:
    """Before anything is published: what a queue does not know of, it keeps for nobody."""
    there = await place.topics()
    for each in consumers:
        parts = [Partition(topic, number) for topic in each.topics(there) for number in range(there.get(topic, 0))]
        await place.admit(each.group, each.types, parts)
