"""What one transaction appends, and which of its units an append or a condition of theirs may refuse."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from eventmill.backends.postgres.append import append_to_columns, append_to_values, append_values
from eventmill.backends.postgres.values import Value
from eventmill.backends.sql.prepared import PreparedMessage
from eventmill.core.admission import Admission, Stored
from eventmill.core.errors import EventmillError, TagConflictError
from eventmill.core.message import Message
from eventmill.core.stream import Absence, Append, Stream, closing

Owner = TypeVar("Owner")


class Call(NamedTuple):
    """One statement by its name, and what it is given."""

    name: str
    values: Sequence[Value]


class Appends(Generic[Owner]):
    """The messages of a transaction in their order, and whose appends are among them."""

    __slots__ = (
        "_appends",
        "_bases",
        "_checked",
        "_conditions",
        "_lasts",
        "_positions",
        "_sequences",
        "closed",
        "messages",
    )

    def __init__(self) -> None:
        self.messages: list[PreparedMessage] = []
        self.closed: set[str] = set()
        """Keys of documents by which units close streams, or open them again."""
        self._appends: list[tuple[Append, int]] = []
        self._checked: list[tuple[Owner, int, Sequence[Message | Append], int]] = []
        self._conditions: list[tuple[Owner, Absence]] = []
        self._bases: list[Stream] = []
        self._positions: Sequence[int] = ()
        self._sequences: Sequence[int] = ()
        self._lasts: Sequence[int] = ()

    def __bool__(self) -> bool:
        return bool(self.messages or self._appends or self._conditions)

    def add(
        self,
        owner: Owner,
        entries: Sequence[Message | Append],
        prepared: Sequence[PreparedMessage],
        conditions: Sequence[Absence],
    ) -> None:
        """A unit's messages, appends among them, and its conditions. prepared: all the messages, in order."""
        start = place = len(self.messages)
        self._checked.append((owner, start, entries, start + len(prepared)))
        for entry in entries:
            if isinstance(entry, Append):
                self._appends.append((entry, place))
                place += len(entry.messages)
            else:
                place += 1
        self.messages += prepared
        self._conditions += [(owner, condition) for condition in conditions]

    def clashes(self, entries: Sequence[Message | Append], conditions: Sequence[Absence]) -> bool:
        """Whether what stands here already must be committed before these can be judged: the server sees no difference."""
        if self.closed and any(isinstance(entry, Append) and closing(entry.stream) in self.closed for entry in entries):
            return True
        queries = [query for condition in conditions for query in condition.queries]
        if queries and any(
            message.tags and any(query.matches(message) for query in queries) for message, _ in self.messages
        ):
            return True
        repeatable = [entry for entry in entries if isinstance(entry, Append) and entry.repeatable]
        if not repeatable:
            return False
        known = {
            (append.stream, message.id)
            for append, _ in self._appends
            if append.repeatable
            for message in append.messages
        }
        return any((entry.stream, message.id) in known for entry in repeatable for message in entry.messages)

    def calls(self, partitions: Mapping[str, int], now: int) -> Iterator[Call]:
        """The statement that appends, if there is anything to append or to see to."""
        if self._appends or self._conditions or any(message.tags for message, _ in self.messages):
            conditions = [condition for _, condition in self._conditions]
            columns = append_to_columns(self.messages, partitions, now, self._appends, conditions)
            self._bases = [Stream(*place) for place in zip(columns[0], columns[1], strict=True)]  # type: ignore[call-overload]
            yield Call("append_to", append_to_values(columns))
        elif self.messages:
            yield Call("append", append_values(self.messages, partitions, now))

    def answered(self, name: str, row: Sequence[Any]) -> Sequence[int]:
        """Take in what the statement has answered; returns the positions of the messages."""
        if name == "append":
            self._positions = row[0]
            return self._positions
        positions, sequences, lasts, repeats = row
        self._positions, self._sequences, self._lasts = positions or (), sequences or (), lasts or ()
        for number in repeats:
            self._appends[number - 1][0].appended.repeated = True
        return self._positions

    def committed(self) -> None:
        """It is durable: the appends are told."""
        for append, start in self._appends:
            end = start + len(append.messages)
            append.appended.positions = tuple(self._positions[start:end])
            append.appended.version = self._sequences[end - 1] if append.messages else self._stands(append, start)

    def _stands(self, condition: Append, place: int) -> int:
        """The version that a condition without messages has found."""
        if condition.expected >= 0:
            return condition.expected
        mine = [
            (number, sequence)
            for number, ((message, _), sequence) in enumerate(zip(self.messages, self._sequences, strict=True))
            if (message.topic, message.key) == condition.stream
        ]
        before = [sequence for number, sequence in mine if number < place]
        if before:
            return max(before)
        after = [sequence for _, sequence in mine]
        return min(after) - 1 if after else self._lasts[self._bases.index(condition.stream)]

    def blame(self, detail: Any) -> dict[Owner, Exception]:
        """Whom the server's refusal is about, and what to tell them. detail: places of conditions, or how streams stand."""
        if isinstance(detail, list):
            return {
                self._conditions[place][0]: TagConflictError(
                    "an event with these tags", after=self._conditions[place][1].after, found=position
                )
                for place, position in sorted(detail, key=lambda each: int(each[1]))
            }
        bases = dict(zip(self._bases, detail["bases"], strict=True))
        stored: dict[int, list[Stored]] = {}
        for number, id_, version, position in detail["stored"]:
            stored.setdefault(number, []).append(Stored(id_, version, position))
        numbers = {id(append): number for number, (append, _) in enumerate(self._appends)}
        admission = Admission(
            bases.__getitem__,
            lambda stream: detail["closed"].get(closing(stream)),
            lambda append: stored.get(numbers[id(append)], ()),
        )
        found: dict[Owner, Exception] = {}
        at = 0
        for owner, start, entries, end in self._checked:
            admission.add(admission.admit([message for message, _ in self.messages[at:start]]))
            at = end
            try:
                admission.add(admission.admit(entries))
            except EventmillError as error:
                found[owner] = error
        return found
