"""Timers: jobs in the saga's own queue, without a lane, so that they hold nobody up."""

from __future__ import annotations

from eventmill.core.job import Job
from eventmill.core.message import Message
from eventmill.patterns.saga.instance import Instance

WAKE = "eventmill.saga.wake"
"""Type of the message that lets an instance look at itself."""


def wake(id_: str, saga: str, key: str, queue: str, topic: str, *, due: int, because: Instance | None = None) -> Job:
    """A job that wakes an instance at a moment (milliseconds). because: the instance whose correlation it goes on with."""
    message = Message(
        id=id_,
        source=saga,
        type=WAKE,
        topic=topic,
        time=due * 1000,
        data=b"{}",
        key=key,
        correlationid=None if because is None else because.correlationid,
        causationid=None if because is None else because.id,
        traceparent=None if because is None else because.traceparent,
    )
    return Job(queue=queue, message=message, due=due, recorded_at=due)
