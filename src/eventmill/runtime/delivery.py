"""A message in a member's hands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from eventmill.core.capabilities import Feed
from eventmill.core.claims import Cursor
from eventmill.core.job import Job
from eventmill.core.message import Message, Partition, Recorded
from eventmill.core.tracker import Tracker


class Holding:
    """A partition this member holds: its claim, how far it was fetched, what is done of it."""

    __slots__ = ("cursor", "draining", "fetched", "lost", "suspects", "tracker")

    def __init__(self, cursor: Cursor, suspects: int) -> None:
        self.cursor = cursor
        self.tracker = Tracker(cursor.position, cursor.ahead)
        self.fetched = cursor.position
        self.draining = False
        self.lost = False
        self.suspects = suspects


class Delivery:
    """One message to handle, and the claim it is handled under: a partition's, or a job's."""

    __slots__ = (
        "behind",
        "dropped",
        "holding",
        "job",
        "lane",
        "message",
        "note",
        "position",
        "readable",
        "recorded_at",
        "size",
        "suspect",
    )

    def __init__(
        self,
        message: Message,
        *,
        holding: Holding | None = None,
        job: Job | None = None,
        position: int | None = None,
        recorded_at: int = 0,
        behind: bool = False,
    ) -> None:
        self.message = message
        self.readable = message  # what the handler is given: the same, but for personal fields
        self.lane = message.lane
        self.holding = holding
        self.job = job
        self.position = position
        self.recorded_at = recorded_at
        self.size = len(message.data) + 500
        self.behind = behind
        self.dropped = False
        self.suspect = False
        self.note: tuple[str, bytes] | None = None  # a document to store with the outcome

    @classmethod
    def claimed(cls, job: Job) -> Self:
        """One that comes as a job."""
        return cls(job.message, job=job, position=job.position, recorded_at=job.recorded_at)

    @classmethod
    def read(cls, recorded: Recorded, holding: Holding) -> Self:
        """One that was read from a partition."""
        return cls(recorded.message, holding=holding, position=recorded.position, recorded_at=recorded.recorded_at)

    @property
    def lost(self) -> bool:
        """Whether its partition was taken over."""
        return self.holding is not None and self.holding.lost

    @property
    def claim(self) -> Cursor | Job | None:
        return self.job if self.holding is None else self.holding.cursor

    @property
    def attempt(self) -> int:
        return 1 if self.job is None else self.job.attempts


def acknowledge(feed: Feed, deliveries: Sequence[Delivery]) -> None:
    """Tell a queue that what it delivered is dealt with, whether it was handled or became a job of the store."""
    done: dict[Partition, list[int]] = {}
    for delivery in deliveries:
        if delivery.holding is not None and delivery.position is not None:
            done.setdefault(delivery.holding.cursor.partition, []).append(delivery.position)
    for partition, positions in done.items():
        feed.acknowledge(partition, positions)
