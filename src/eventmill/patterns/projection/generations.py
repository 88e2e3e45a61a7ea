"""What is known of a projection's generations: which one readers see, which ones are fed, whose side effects count."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import msgspec

from eventmill.core.document import ABSENT, Document
from eventmill.core.message import Partition
from eventmill.patterns.projection.tables import Tables

BUILDING = "building"
FED = "fed"


class Generation(msgspec.Struct, frozen=True, kw_only=True):
    """One set of tables, made by one definition of the projection, and the consumer group that fills it.

    state: `building` while a rebuild fills it, then `fed` by all workers of its definition until it is dropped.
    partial: whether it began with a history of which the oldest part was gone.
    started: when it was made, in milliseconds since 1970 UTC.
    """

    number: int
    version: str
    fingerprint: str
    tables: list[str]
    topics: list[str]
    state: str
    partial: bool
    started: int

    @property
    def placed(self) -> Tables:
        return Tables(self.tables, self.number)


class Emitter(msgspec.Struct, frozen=True):
    """From beyond these positions on, this generation's side effects count, until the next emitter's."""

    generation: int
    after: dict[str, int]


class State(msgspec.Struct, frozen=True, kw_only=True):
    """All generations of a projection. live: the one whose tables readers see; previous: the one before it."""

    live: int
    previous: int | None
    next: int
    generations: dict[int, Generation]
    emitters: list[Emitter]

    @property
    def shown(self) -> Generation:
        return self.generations[self.live]

    @property
    def newest(self) -> Generation | None:
        """The latest generation that is not live, where it is newer than that."""
        number = max(self.generations)
        return self.generations[number] if number > self.live else None

    def emits(self, generation: int, partition: Partition | None, position: int | None) -> bool:
        """Whether what this generation publishes for an event leaves: exactly one of them does for each event."""
        chosen = self.emitters[0]
        for emitter in self.emitters[1:]:
            if (position or 0) > emitter.after.get(str(partition), 0):
                chosen = emitter
        return chosen.generation == generation

    def handed_over(self, generation: int, after: Mapping[Partition, int]) -> list[Emitter]:
        """The emitters when this generation begins to count beyond these positions."""
        return [*self.emitters, Emitter(generation, {str(part): position for part, position in after.items()})]


class _Reading(Protocol):
    async def get(self, key: str) -> Document | None: ...


class _Writing(_Reading, Protocol):
    def put(self, key: str, data: bytes | None, *, expected: int | None) -> None: ...


class Ledger:
    """The document that holds a projection's state, in the store of its App."""

    def __init__(self, app: str, projection: str) -> None:
        self.whole = f"{app}.{projection}"
        self.key = f"projection/{self.whole}"

    def group(self, number: int) -> str:
        """The consumer group that feeds a generation."""
        return f"{self.whole}@{number}"

    async def read(self, unit: _Reading) -> tuple[State | None, int]:
        """The state and the document's version, as a transaction sees them; nobody changes them before it ends."""
        return decoded(await unit.get(self.key))

    def write(self, unit: _Writing, state: State, version: int) -> None:
        unit.put(self.key, msgspec.json.encode(state), expected=version)


def decoded(document: Document | None) -> tuple[State | None, int]:
    if document is None:
        return None, ABSENT
    return msgspec.json.decode(document.data, type=State), document.version


def base_of(group: str) -> str | None:
    """`app.projection` of a group's name `app.projection@3`, or None for the group of something else."""
    base, at, number = group.rpartition("@")
    return base if at and number.isdigit() else None
