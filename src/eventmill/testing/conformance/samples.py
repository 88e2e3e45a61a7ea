"""Messages and jobs to test with, and how to read a log to its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from eventmill.core.capabilities import Log
from eventmill.core.job import Job, JobError
from eventmill.core.message import Message, Partition, Recorded
from eventmill.core.reading import Types

TOPIC = "order"
OTHER = "payment"


def message(
    number: int,
    key: str | None = None,
    *,
    type: str = "order.placed",
    topic: str = TOPIC,
    size: int = 2,
) -> Message:
    """number: becomes the id. size: bytes of data."""
    return Message(
        id=f"m{number}",
        source="conformance",
        type=type,
        topic=topic,
        time=1_700_000_000_000_000 + number,
        data=b"1" * size,
        key=key,
    )


def job(number: int, lane: str | None = None, *, queue: str = "readers", due: int = 0) -> Job:
    return Job(queue=queue, message=message(number, lane), lane=lane, due=due)


def failure(number: int, at: int) -> JobError:
    return JobError(at=at, attempt=number, error=f"ValueError: no {number}", trace="line 1")


def partitions(count: int, topic: str = TOPIC) -> list[Partition]:
    return [Partition(topic, number) for number in range(count)]


def start(*parts: Partition) -> dict[Partition, int]:
    """Before the earliest message of each."""
    return dict.fromkeys(parts, 0)


async def everything(
    log: Log, after: Mapping[Partition, int] | None = None, *, limit: int = 1000, types: Types | None = None
) -> Sequence[Recorded]:
    """All messages beyond these positions (None: of the whole log), as a reader meets them page by page."""
    if after is None:
        after = start(*(part for topic, count in (await log.topics()).items() for part in partitions(count, topic)))
    at = dict(after)
    found: list[Recorded] = []
    while True:
        page = await log.read(at, limit=limit, types=types)
        assert len(page.messages) <= limit
        found += page.messages
        moved = {part: position for part, position in page.after.items() if position > at[part]}
        assert len(moved) > 0 or not page.messages, "a page with messages must move `after`"
        if not moved:
            return found
        at.update(moved)


def ids(messages: Sequence[Recorded]) -> list[str]:
    return [record.message.id for record in messages]
