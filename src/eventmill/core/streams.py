"""The part of a store's contract that reads its log by stream; see `eventmill.core.capabilities`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from eventmill.core.message import Recorded
from eventmill.core.reading import Types
from eventmill.core.stream import Query, StoredEvent, Stream


class Streams(Protocol):
    """The same log, read by stream, by tag, and across all topics in the order of the positions."""

    async def read_stream(
        self, stream: Stream, *, after: int = 0, upto: int | None = None, limit: int, backward: bool = False
    ) -> Sequence[Recorded]:
        """Events of one stream whose versions lie beyond `after` and not beyond `upto`, at most `limit`.

        In order of their versions, or from the last one back. An event's version is `message.sequence` here,
        also where another log had given it another number.
        """
        ...

    async def events(
        self, stream: Stream, *, after: int = 0, upto: int | None = None, limit: int
    ) -> Sequence[StoredEvent]:
        """The same events, forward, with only what a fold needs of each: it is read many times for each that is written."""
        ...

    async def version(self, stream: Stream) -> int:
        """The version of the last event ever appended, 0 where there is none; trimming does not change it."""
        ...

    async def read_all(
        self,
        *,
        after: int = 0,
        limit: int,
        max_bytes: int = 16 << 20,
        types: Types | None = None,
        topics: Collection[str] | None = None,
        queries: Sequence[Query] | None = None,
    ) -> tuple[Sequence[Recorded], int]:
        """Events of the whole store beyond a position, in the order of their positions, and how far it was looked through.

        Only where each of `types`, `topics` and `queries` (one of them matches) that is given lets it through.
        Never passes a position below which another may still appear.
        """
        ...

    async def streams(self, topic: str, *, after: str = "", limit: int) -> Sequence[tuple[Stream, int]]:
        """The streams of a topic with their versions, in order of their keys, those beyond the key `after`."""
        ...
