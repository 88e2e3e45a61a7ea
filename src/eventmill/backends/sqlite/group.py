"""Who takes part in one commit."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from eventmill.backends.sqlite.append import PreparedMessage
from eventmill.core.claims import Cursor, Fence
from eventmill.core.job import Job
from eventmill.core.tracker import Tracker


class Staged:
    """Messages and jobs of one caller that wait for the next commit."""

    __slots__ = ("durable", "jobs", "messages")

    def __init__(
        self, messages: Sequence[PreparedMessage], jobs: Sequence[Job], durable: asyncio.Future[list[int]]
    ) -> None:
        self.messages = messages
        self.jobs = jobs
        self.durable = durable


class Group:
    """The units of one commit."""

    __slots__ = ("durable", "fences", "held", "jobs", "marks", "messages", "opened", "units", "verified")

    def __init__(self, durable: asyncio.Future[None], opened: float) -> None:
        self.durable = durable
        self.opened = opened
        self.units = 0
        self.messages: list[PreparedMessage] = []
        self.jobs: list[Job] = []
        self.marks: dict[Tracker, tuple[str, str, int]] = {}
        self.fences: set[Fence] = set()
        self.verified: dict[int, Cursor] = {}  # by identity, which is all that needs to be compared
        self.held: dict[Fence, dict[tuple[str, int], int]] = {}
