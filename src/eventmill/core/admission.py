"""Whether a transaction's appends may be stored: asked the same way of every backend's streams."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from eventmill.core.errors import StreamClosedError, WrongExpectedVersionError
from eventmill.core.message import Message
from eventmill.core.stream import ANY, Append, Stream


class Stored(NamedTuple):
    """An event that is in a stream already."""

    id: str
    version: int
    position: int


class Admission:
    """What stands in the streams, and what one transaction adds to it, in order.

    version: of a stream, before the transaction. closed: the word for how it is closed, None where it is open.
    stored: those of an append's ids that are in its stream, in the order of their versions.
    """

    __slots__ = ("_closed", "_stored", "_version", "_versions")

    def __init__(
        self,
        version: Callable[[Stream], int],
        closed: Callable[[Stream], str | None],
        stored: Callable[[Append], Sequence[Stored]],
    ) -> None:
        self._version = version
        self._closed = closed
        self._stored = stored
        self._versions: dict[Stream, int] = {}

    def admit(self, entries: Sequence[Message | Append]) -> dict[Stream, int]:
        """The versions as they stand after these, in order; `add` them once nothing else refuses their unit.

        Fills in the versions of the appends, and all that is known of those that are repeats. Raises
        WrongExpectedVersionError and StreamClosedError.
        """
        known = self._versions
        moved: dict[Stream, int] = {}
        for entry in entries:
            if isinstance(entry, Message):
                if entry.key is not None:
                    stream = Stream(entry.topic, entry.key)
                    moved[stream] = 1 + (moved.get(stream) or known.get(stream) or self._version(stream))
                continue
            stream = entry.stream
            if not entry.reopens:
                word = self._closed(stream)
                if word is not None:
                    raise StreamClosedError(str(stream), word)
            actual = moved.get(stream) or known.get(stream) or self._version(stream)
            if entry.repeatable and entry.messages and self._repeats(entry, actual):
                continue
            if entry.expected not in (ANY, actual):
                raise WrongExpectedVersionError(str(stream), expected=entry.expected, actual=actual)
            moved[stream] = entry.appended.version = actual + len(entry.messages)
        return moved

    def add(self, moved: dict[Stream, int]) -> None:
        """What was admitted is going to be stored: what comes after it finds it."""
        self._versions.update(moved)

    def _repeats(self, entry: Append, actual: int) -> bool:
        """Whether all of it is stored. Raises WrongExpectedVersionError where a part is, or in another order."""
        found = self._stored(entry)
        if not found:
            return False
        ids = [message.id for message in entry.messages]
        if [each.id for each in found] != ids or found[-1].version - found[0].version != len(ids) - 1:
            text = (
                f"stream {entry.stream}: stored already are {', '.join(each.id for each in found)}, but this call has "
                f"{', '.join(ids)}; repeat an append with the same ids in the same order, or give new ones"
            )
            raise WrongExpectedVersionError(str(entry.stream), expected=entry.expected, actual=actual, text=text)
        appended = entry.appended
        appended.repeated = True
        appended.positions = tuple(each.position for each in found)
        appended.version = found[-1].version
        return True


def to_store(entries: Sequence[Message | Append]) -> list[Message]:
    """The messages of admitted entries, without those that are stored already."""
    messages: list[Message] = []
    for entry in entries:
        if isinstance(entry, Message):
            messages.append(entry)
        elif not entry.appended.repeated:
            messages += entry.messages
    return messages
