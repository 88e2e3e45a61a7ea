"""What is asked of a log, and what it answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from eventmill.core.message import Partition, Recorded


@dataclass(frozen=True, slots=True)
class Types:
    """Which event types of its topics a reader wants: exact names, and prefixes (`order.` for `order.*`)."""

    names: frozenset[str] = frozenset()
    prefixes: frozenset[str] = frozenset()

    def accepts(self, name: str) -> bool:
        return name in self.names or any(name.startswith(prefix) for prefix in self.prefixes)


@dataclass(frozen=True, slots=True)
class Page:
    """What one read found, and how far each partition was looked through.

    `after` moves past messages of other types, too: a reader goes on from there.
    """

    messages: Sequence[Recorded]
    after: Mapping[Partition, int]


@dataclass(frozen=True, slots=True)
class Pending:
    """What a reader has before it. oldest: milliseconds since 1970 UTC of the first one's append, None if none."""

    messages: int
    oldest: int | None


@dataclass(frozen=True, slots=True)
class Trimmed:
    """What a trim removed, and the group it had to stop for, if one was in the way."""

    messages: int
    held_by: str | None = None
    held_at: int | None = None
