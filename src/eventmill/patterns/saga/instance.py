"""One run of a saga, as it is stored: a document, whole."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec

LONGEST_TIMELINE = 1_000
"""Entries kept of an instance's history; beyond that the oldest but the first hundred make room."""


class State(StrEnum):
    """Where an instance stands. The last four have nothing going on by itself."""

    EARLY = "EARLY"
    """Events came, the one that starts it has not."""
    RUNNING = "RUNNING"
    COMPENSATING = "COMPENSATING"
    COMPLETED = "COMPLETED"
    COMPENSATED = "COMPENSATED"
    NEEDS_ATTENTION = "NEEDS_ATTENTION"


ENDED = frozenset({State.COMPLETED, State.COMPENSATED})


class StepState(StrEnum):
    """What became of a step."""

    RUNNING = "running"
    """Its function was begun and has not come back: written beforehand for steps that act outside."""
    AGAIN = "again"
    """It failed, and will be tried again."""
    WAITING = "waiting"
    """The command is out, the answer is not in."""
    LOCKED = "locked"
    """Another saga holds what it needs."""
    DONE = "done"
    FAILED = "failed"
    """It did not take place."""
    UNKNOWN = "unknown"
    """Nobody knows whether it took place."""
    UNDONE = "undone"
    SKIPPED = "skipped"
    """An operator let it be."""


class StepRecord(msgspec.Struct, omit_defaults=True):
    """What is known of one step. Times in milliseconds since 1970 UTC.

    attempts, undo_attempts: how often it, and its compensation, were begun. due: when it is tried again, or given up
    waiting. patience: until when it waits for a lock. unsure: an attempt before may have taken place.
    """

    name: str
    state: StepState
    started_at: int
    attempts: int = 0
    undo_attempts: int = 0
    unsure: bool = False
    due: int | None = None
    patience: int | None = None
    ended_at: int | None = None
    error: str = ""


class Entry(msgspec.Struct, omit_defaults=True):
    """One line of the history. what: such as `step.done`. by: whose doing it was, where it was a person's."""

    at: int
    what: str
    step: str = ""
    attempt: int = 0
    detail: str = ""
    by: str = ""
    event: str = ""


class Instance(msgspec.Struct, omit_defaults=True):
    """One run of a saga: everything that is needed to go on with it anywhere.

    id: the message that started it; idempotency keys come from it. queue: where its timers go. version and digest: of
    the definition it was begun with. data: the user's state. answers: the last answer to each step, as it came.
    schema: the version of the event type that the data is of. halted: the step at which it needs attention.
    backward: it is being undone. driver: the message on whose behalf it is being driven just now; others wait for that.
    timer: the earliest time at which something wakes it. wants: locks it waits for. seen: ids of events that were noted.
    """

    saga: str
    key: str
    id: str
    queue: str
    topic: str
    version: int
    digest: str
    state: State
    started_at: int
    data: msgspec.Raw = msgspec.Raw(b"null")
    ended_at: int | None = None
    schema: int = 1
    reason: str = ""
    halted: str | None = None
    backward: bool = False
    driver: str | None = None
    timer: int | None = None
    deadline: int | None = None
    correlationid: str | None = None
    traceparent: str | None = None
    steps: list[StepRecord] = []
    locks: list[str] = []
    wants: list[str] = []
    answers: dict[str, msgspec.Raw] = {}
    seen: list[str] = []
    timeline: list[Entry] = []
    dropped: int = 0

    def step(self, name: str) -> StepRecord | None:
        """The record of a step that was begun."""
        for record in self.steps:
            if record.name == name:
                return record
        return None

    def note(self, entry: Entry) -> None:
        """Add to the history."""
        self.timeline.append(entry)
        if len(self.timeline) > LONGEST_TIMELINE:
            del self.timeline[100]
            self.dropped += 1

    @property
    def ended(self) -> bool:
        """Whether it is over for good."""
        return self.state in ENDED


encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(Instance).decode


def prefix_of(saga: str) -> str:
    """What the keys of a saga's documents begin with. saga: with its service's name, such as `shop.checkout`."""
    return f"saga/{saga}/"


def document_key(saga: str, key: str) -> str:
    """Where an instance is stored."""
    return f"saga/{saga}/{key}"


def as_json(instance: Instance) -> dict[str, Any]:
    """For people and programs: all of it, in plain values."""
    found: dict[str, Any] = msgspec.json.decode(encode(instance))
    return found


def ended_prefix(saga: str) -> str:
    """What the keys of the marks of ended instances begin with; they are in the order of their ends."""
    return f"saga-ended/{saga}/"


def ended_key(instance: Instance) -> str:
    """Where it is marked that an instance has ended, so that it is found when its time is up."""
    return f"{ended_prefix(instance.saga)}{instance.ended_at:015d}/{instance.key}"
