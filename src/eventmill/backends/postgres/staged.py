"""What is written at the end of a transaction: a few statements, however many units share it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from eventmill.backends.postgres.appends import Appends, Call
from eventmill.backends.postgres.values import Value, blobs, bools, int4s, int8s, number, texts
from eventmill.backends.sql.rows import errors, job_row
from eventmill.core.claims import Cursor, Fence
from eventmill.core.errors import DuplicateError, LeaseLostError
from eventmill.core.job import Job
from eventmill.core.message import Message

Owner = TypeVar("Owner")


class Settlement(NamedTuple):
    """The end of a claimed job. action: finish, retry, bury, or hold (only see that it is held)."""

    job: Job
    member: str | None
    action: str
    due: int


class Held(NamedTuple):
    """A claimed job that is to wait in a lane."""

    job: Job
    member: str | None
    lane: str


class Staged(Generic[Owner]):
    """The staged parts of one transaction, each with the unit it is of.

    A refusal of the server names the place of what it refuses in its list; `blame` says whose it is.
    """

    __slots__ = ("_claims", "_cursors", "_held", "_inbox", "_let_go", "_settlements", "appends", "jobs")

    def __init__(self) -> None:
        self.appends: Appends[Owner] = Appends()
        self.jobs: list[Job] = []
        self._cursors: dict[tuple[str, str, int], tuple[Cursor, Fence, tuple[int, list[int]] | None]] = {}
        self._claims: dict[tuple[str, str, int], list[tuple[Owner, Cursor]]] = {}
        self._settlements: list[tuple[Owner, Settlement]] = []
        self._held: list[tuple[Owner, Held]] = []
        self._let_go: list[tuple[str, str]] = []
        self._inbox: dict[tuple[str, str, str], Owner] = {}

    @property
    def empty(self) -> bool:
        lists = (self.appends, self.jobs, self._cursors, self._settlements, self._inbox, self._held, self._let_go)
        return not any(lists)

    def hold(self, owner: Owner, cursor: Cursor, fence: Fence) -> None:
        """The transaction may commit only while this claim is held."""
        place = (fence.group, *cursor.partition)
        self._claims.setdefault(place, []).append((owner, cursor))
        if place not in self._cursors:
            self._cursors[place] = (cursor, fence, None)

    def move(self, cursor: Cursor, fence: Fence, to: tuple[int, list[int]]) -> None:
        """Write a held cursor."""
        self._cursors[fence.group, *cursor.partition] = (cursor, fence, to)

    def settle(self, owner: Owner, settlement: Settlement) -> None:
        self._settlements.append((owner, settlement))

    def hold_job(self, owner: Owner, held: Held) -> None:
        self._held.append((owner, held))

    def let_go(self, queue: str, lane: str) -> None:
        self._let_go.append((queue, lane))

    def receive(self, owner: Owner, group: str, message: Message) -> bool:
        """False where the same message is staged already."""
        place = (group, message.id, message.source)
        if place in self._inbox:
            return False
        self._inbox[place] = owner
        return True

    def conflicting(self, cursor: Cursor, fence: Fence) -> bool:
        """Whether another unit stands on the same partition under another token or name: they cannot share."""
        known = self._cursors.get((fence.group, *cursor.partition))
        return known is not None and (known[0].token != cursor.token or known[1].member != fence.member)

    def calls(self, partitions: Mapping[str, int], now: int) -> Iterator[Call]:
        """The statements; the append last, so that its lock is held no longer than it must be."""
        if self._cursors:
            places = sorted(self._cursors)
            rows = [self._cursors[place] for place in places]
            yield Call(
                "advance",
                [
                    texts([group for group, _, _ in places]),
                    texts([topic for _, topic, _ in places]),
                    int4s([partition for _, _, partition in places]),
                    texts([fence.member for _, fence, _ in rows]),
                    int8s([cursor.token for cursor, _, _ in rows]),
                    int8s([to[0] if to else None for _, _, to in rows]),
                    texts([json.dumps(to[1]) if to else None for _, _, to in rows]),
                ],
            )
        settlements = [settlement for _, settlement in self._settlements]
        if settlements and self.jobs:
            lanes = [(job.queue, job.lane) for job in [*self.jobs, *(each.job for each in settlements)]]
            yield Call("lock_lanes", [texts([queue for queue, _ in lanes]), texts([lane for _, lane in lanes])])
        if settlements:
            yield Call(
                "settle",
                [
                    int8s([each.job.id for each in settlements]),
                    int8s([each.job.token for each in settlements]),
                    texts([each.member for each in settlements]),
                    texts([each.action for each in settlements]),
                    int8s([each.due for each in settlements]),
                    blobs([errors(each.job) for each in settlements]),
                    bools([each.action == "retry" or each.job.lane is not None for each in settlements]),
                    int4s([each.job.attempts for each in settlements]),
                    number(now),
                ],
            )
        if self._held:
            held = [each for _, each in self._held]
            yield Call(
                "hold",
                [
                    int8s([each.job.id for each in held]),
                    int8s([each.job.token for each in held]),
                    texts([each.member for each in held]),
                    texts([each.lane for each in held]),
                    int4s([each.job.attempts for each in held]),
                ],
            )
        if self._let_go:
            lanes = sorted(self._let_go)
            yield Call("let_go", [texts([queue for queue, _ in lanes]), texts([lane for _, lane in lanes])])
        if self._inbox:
            yield Call(
                "receive",
                [
                    texts([group for group, _, _ in self._inbox]),
                    texts([id_ for _, id_, _ in self._inbox]),
                    texts([source for _, _, source in self._inbox]),
                    number(now),
                ],
            )
        if self.jobs:
            yield Call("send", list(_job_values(self.jobs)))
        yield from self.appends.calls(partitions, now)

    def blame(self, name: str, places: Any) -> dict[Owner, Exception]:
        """Whom a refusal of a statement is about, and what to tell them. places: what the server says of it."""
        if name == "append_to":
            return self.appends.blame(places)
        found: dict[Owner, Exception] = {}
        if name == "advance":
            known = sorted(self._cursors)
            for place in places:
                group, topic, partition = known[place]
                member = self._cursors[known[place]][1].member
                for owner, _ in self._claims.get(known[place], ()):
                    found[owner] = LeaseLostError(f"{group}: {topic}/{partition} was taken over from {member}")
        elif name == "settle":
            for place in places:
                owner, settlement = self._settlements[place]
                found[owner] = LeaseLostError(f"{settlement.job.queue}: job {settlement.job.id} was taken over")
        elif name == "hold":
            for place in places:
                owner, held = self._held[place]
                found[owner] = LeaseLostError(f"{held.job.queue}: job {held.job.id} was taken over")
        elif name == "receive":
            marks = list(self._inbox)
            for place in places:
                group, id_, source = marks[place]
                found[self._inbox[marks[place]]] = DuplicateError(f"{group}: {id_} from {source} was handled before")
        return found


def _job_values(jobs: Sequence[Job]) -> Iterator[Value]:
    rows = [job_row(job, job.state) for job in jobs]
    kinds = (texts, texts, texts, int8s, int4s, int8s, texts, int4s, int8s, blobs, blobs, int4s, texts)
    for kind, column in zip(kinds, zip(*rows, strict=True), strict=True):
        yield kind(column)  # type: ignore[operator]
