"""What both kinds of units stage in memory, until they end."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from eventmill.backends.postgres.staged import Held, Settlement, Staged
from eventmill.core.claims import Cursor, Fence
from eventmill.core.document import ABSENT, Document
from eventmill.core.errors import ConfigurationError, UnitInterruptedError
from eventmill.core.job import Job
from eventmill.core.message import Message
from eventmill.core.stream import Absence, Append
from eventmill.core.tracker import Tracker


class Staging:
    """What a unit stages in memory until it ends. Made once a message: most of it only when it is needed."""

    __slots__ = (
        "_claim", "_conditions", "_documents", "_ended", "_entries", "_fence", "_held", "_inbox", "_jobs", "_let_go", "_marks",
        "_settlements", "_to_check",
    )  # fmt: skip

    def __init__(self, claim: Cursor | Job | None, fence: Fence | None) -> None:
        self._claim = claim
        self._fence = fence
        self._ended = False
        self._entries: list[Message | Append] | None = None
        self._conditions: list[Absence] | None = None
        self._to_check = False  # whether there are appends or conditions
        self._jobs: list[Job] | None = None
        self._documents: list[tuple[str, bytes | None, int | None]] | None = None
        self._settlements: list[tuple[Job, int | None, bool]] | None = None
        self._inbox: list[tuple[str, Message]] | None = None
        self._held: list[tuple[Job, str]] | None = None
        self._let_go: list[tuple[str, str]] | None = None
        self._marks: list[tuple[Cursor, Tracker, int]] | None = None

    def _refuse_if_ended(self) -> None:
        if self._ended:
            raise ConfigurationError("this transaction has ended; use it inside its `async with` or handler only")

    @property
    def untouched(self) -> bool:
        return not (
            self._touched
            or self._entries
            or self._conditions
            or self._jobs
            or self._documents
            or self._settlements
            or self._inbox
            or self._marks
            or self._held
            or self._let_go
        )

    @property
    def _touched(self) -> bool:
        """Whether it has run, or is about to run, a statement."""
        raise NotImplementedError

    def append(self, messages: Sequence[Message]) -> None:
        self._refuse_if_ended()
        self._entries = [*(self._entries or ()), *messages]

    def append_to(self, append: Append) -> None:
        self._refuse_if_ended()
        self._entries = [*(self._entries or ()), append]
        self._to_check = True

    def require(self, condition: Absence) -> None:
        self._refuse_if_ended()
        self._conditions = [*(self._conditions or ()), condition]
        self._to_check = True

    def send(self, jobs: Sequence[Job]) -> None:
        self._refuse_if_ended()
        self._jobs = [*(self._jobs or ()), *jobs]

    def put(self, key: str, data: bytes | None, *, expected: int | None) -> None:
        self._refuse_if_ended()
        if self._documents is None:
            self._documents = []
        self._documents.append((key, data, expected))

    def settle(self, job: Job, *, retry_at: int | None = None, dead: bool = False) -> None:
        self._refuse_if_ended()
        self._settlements = [*(self._settlements or ()), (job, retry_at, dead)]

    def hold(self, job: Job, lane: str) -> None:
        self._refuse_if_ended()
        self._held = [*(self._held or ()), (job, lane)]

    def let_go(self, queue: str, lane: str) -> None:
        self._refuse_if_ended()
        self._let_go = [*(self._let_go or ()), (queue, lane)]

    def mark(self, cursor: Cursor, tracker: Tracker, position: int) -> None:
        self._refuse_if_ended()
        if self._marks is None:
            self._marks = [(cursor, tracker, position)]
        else:
            self._marks.append((cursor, tracker, position))

    def receive(self, group: str, message: Message) -> None:
        self._refuse_if_ended()
        self._inbox = [*(self._inbox or ()), (group, message)]

    def _as_staged(self, key: str, found: Document | None) -> Document | None:
        """The document as this unit must see it: with what it has staged itself."""
        version, data = (ABSENT, None) if found is None else (found.version, found.data)
        for staged, value, _ in self._documents or ():
            if staged == key:
                version, data = (ABSENT, None) if value is None else (version + 1, value)
        return None if data is None else Document(key, version, data)

    def _many_as_staged(self, keys: Collection[str], rows: Sequence[Sequence[Any]]) -> dict[str, Document]:
        stored = {key: Document(key, version, data) for key, version, data in rows}
        if not self._documents:
            return stored
        seen = {key: self._as_staged(key, stored.get(key)) for key in keys}
        return {key: document for key, document in seen.items() if document is not None}

    def _fill(self, staged: Staged[object], now: int) -> None:
        """Stage settlements, claims and inbox marks with those of others. Raises UnitInterruptedError where this
        cannot share with them."""
        claim, fence, marks = self._claim, self._fence, self._marks
        member = fence.member if fence else None
        for job, lane in self._held or ():
            staged.hold_job(self, Held(job, member, lane))
        for queue, lane in self._let_go or ():
            staged.let_go(queue, lane)
        if not self._settlements and not self._inbox and marks and fence and len(marks) == 1 and marks[0][0] is claim:
            # What nearly every unit is.
            if staged.conflicting(marks[0][0], fence):
                raise UnitInterruptedError("another unit of this commit stands on the same partition otherwise")
            staged.hold(self, marks[0][0], fence)
            return
        settled = {job.id for job, *_ in (*(self._settlements or ()), *(self._held or ()))}
        for job, retry_at, dead in self._settlements or ():
            if retry_at is not None:
                staged.settle(self, Settlement(job, member, "retry", retry_at))
            else:
                staged.settle(self, Settlement(job, member, "bury" if dead else "finish", now))
        if isinstance(self._claim, Job) and self._claim.id not in settled:
            staged.settle(self, Settlement(self._claim, member, "hold", 0))
        if self._fence is not None:
            held = [cursor for cursor, _, _ in self._marks or ()]
            if isinstance(self._claim, Cursor):
                held.append(self._claim)
            for cursor in held:
                if staged.conflicting(cursor, self._fence):
                    raise UnitInterruptedError("another unit of this commit stands on the same partition otherwise")
                staged.hold(self, cursor, self._fence)
        elif self._marks or self._claim:
            raise ConfigurationError("a claim needs the fence of its member")
        for group, message in self._inbox or ():
            if not staged.receive(self, group, message):
                raise UnitInterruptedError("another unit of this commit receives the same message")
