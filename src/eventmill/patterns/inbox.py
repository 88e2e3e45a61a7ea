"""Whether the inbox remembers for as long as the broker may bring a message back."""

from __future__ import annotations

from collections.abc import Sequence

from eventmill.core.capabilities import Subscriber
from eventmill.runtime.consumer import Consumer

DAY = 86_400.0


async def short_inboxes(broker: Subscriber, consumers: Sequence[Consumer], retention: float) -> list[str]:
    """What is wrong, in words, for each topic that can bring back a message the inbox has forgotten.

    retention: seconds that the inbox remembers for. A repeat (a relay that died before it noted what it had sent) may lie in
    the topic for as long as the topic keeps messages, while its group is away; what was handled before must be known then.
    """
    present = await broker.topics()
    read = sorted({topic for each in consumers for topic in each.topics(present)} & present.keys())
    found = []
    for topic, seconds in sorted((await broker.redelivery(read)).items()):
        if seconds > retention:
            kept = "for ever" if seconds == float("inf") else f"for {seconds / DAY:g} days"
            found.append(
                f"topic {topic!r} keeps messages {kept}, but the inbox forgets what was handled after {retention / DAY:g} days: "
                "a repeat that a group meets after a longer absence would be handled twice"
            )
    return found


def remedy() -> str:
    return "set Settings(inbox_retention=…), in seconds, to what the topic keeps (retention.ms), or let it keep less"
