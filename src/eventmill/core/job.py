"""Work that is claimed, fenced and settled one by one."""

import msgspec

from eventmill.core.message import Message, Partition

AGEING = 60_000
"""Milliseconds of waiting that one level of priority is worth: nothing starves, however much of higher priority comes."""

MAX_PRIORITY = 9
"""Priorities go from minus this to this."""


class JobError(msgspec.Struct, frozen=True, kw_only=True):
    """One failed attempt. at: milliseconds since 1970 UTC."""

    at: int
    attempt: int
    error: str
    trace: str = ""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One unit of work that is claimed, fenced and settled by itself: a delayed retry, a timer.

    queue: who works on it. lane: jobs of one queue and lane run one after another, in order of
    their ids; None for no order. due: milliseconds since 1970 UTC. attempts: claims so far.
    priority: each level counts as `AGEING` more of waiting. reference: a name to find the job by.
    position and partition: where the message stands in the log it came from, if it did.
    errors: what went wrong so far, newest last. crashed: how many claims in a row vanished with their members.
    """

    queue: str
    message: Message
    due: int = 0
    lane: str | None = None
    attempts: int = 0
    position: int | None = None
    partition: Partition | None = None
    recorded_at: int = 0
    errors: list[JobError] = msgspec.field(default_factory=list)
    id: int = 0
    state: str = "due"
    token: int = 0
    crashed: int = 0
    priority: int = 0
    reference: str | None = None

    @property
    def rank(self) -> tuple[int, int]:
        """Due jobs are claimed in this order: a high priority goes first, and waiting makes up for a low one."""
        return self.due - self.priority * AGEING, self.id
