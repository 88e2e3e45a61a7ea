"""Appending: what the server's function `eventmill_append` is given."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from eventmill.backends.postgres.values import NULL, Value, blobs, bools, int4s, int8s, number, text, texts
from eventmill.backends.sql.prepared import PreparedMessage
from eventmill.backends.sql.prepared import prepare as encode
from eventmill.core.errors import EncodeError
from eventmill.core.message import Message
from eventmill.core.partition import partition_of
from eventmill.core.stream import Absence, Append, Stream, closing

LONGEST_KEY = 2_000
"""Bytes of a topic and a key together: what fits into an index of PostgreSQL."""


def prepare(messages: Sequence[Message]) -> list[PreparedMessage]:
    """Refuse now, to the caller alone, what the server would refuse in a commit shared with others."""
    prepared = encode(messages)
    for message, _ in prepared:
        key = message.key or ""
        if "\x00" in message.topic or "\x00" in message.type or "\x00" in key or "\x00" in message.id:
            raise EncodeError(f"{message.type}: PostgreSQL's texts hold no NUL character; there is one in the envelope")
        if len(key) > LONGEST_KEY // 4 and len(f"{message.topic}{key}".encode()) > LONGEST_KEY:
            raise EncodeError(f"{message.type}: a topic and key together may have {LONGEST_KEY:,} bytes on PostgreSQL")
    return prepared


Columns = tuple[
    list[str], list[str], list[int], list[str], list[int], list[str], list[str | None], list[int | None],
    list[int | None], list[str], list[str], list[bytes], int,
]  # fmt: skip
"""The parameters of `eventmill_append`, in their order."""


def append_columns(
    messages: Sequence[PreparedMessage],
    partitions: Mapping[str, int],
    now: int,
    unwritten: Sequence[Stream] = (),
) -> Columns:
    """What `eventmill_append` is given. partitions: the count of each topic. now: milliseconds.

    unwritten: streams that are locked as well, though nothing may be written to them.
    """
    counts: dict[tuple[str, str], int] = dict.fromkeys(map(tuple, unwritten), 0)  # type: ignore[arg-type]
    ordinals = []
    for message, _ in messages:
        if message.key is None:
            ordinals.append(0)
        else:
            place = (message.topic, message.key)
            ordinals.append(counts.get(place, 0) + 1)
            counts[place] = ordinals[-1]
    # By their bytes, which is how the server orders them. Code points of UTF-8 have the order of their bytes.
    keys = sorted(counts)
    slots = {place: slot for slot, place in enumerate(keys, 1)}
    keyed = [None if message.key is None else (message.topic, message.key) for message, _ in messages]
    return (
        [topic for topic, _ in keys],
        [key for _, key in keys],
        [counts[place] for place in keys],
        [message.topic for message, _ in messages],
        [partition_of(message.key, message.id, partitions[message.topic]) for message, _ in messages],
        [message.type for message, _ in messages],
        [message.key for message, _ in messages],
        [None if place is None else slots[place] for place in keyed],
        [None if place is None else counts[place] - ordinal for place, ordinal in zip(keyed, ordinals, strict=True)],
        [message.id for message, _ in messages],
        [attributes.decode() for _, attributes in messages],
        [message.data for message, _ in messages],
        now,
    )


def append_values(messages: Sequence[PreparedMessage], partitions: Mapping[str, int], now: int) -> list[Value]:
    """The same as parameters of the statement `append`."""
    columns = append_columns(messages, partitions, now)
    key_topics, key_names, key_counts, topics, numbers, types, names, slots, backs, ids, attributes, data, moment = (
        columns
    )
    return [
        texts(key_topics),
        texts(key_names),
        int8s(key_counts),
        texts(topics),
        int4s(numbers),
        texts(types),
        texts(names),
        int4s(slots),
        int4s(backs),
        texts(ids),
        texts(attributes),
        blobs(data),
        number(moment),
    ]


def append_to_columns(
    messages: Sequence[PreparedMessage],
    partitions: Mapping[str, int],
    now: int,
    appends: Sequence[tuple[Append, int]] = (),
    conditions: Sequence[Absence] = (),
) -> tuple[object, ...]:
    """What `eventmill_append_to` is given. appends: each with the place of its first message, 0 the first."""
    columns = append_columns(messages, partitions, now, [append.stream for append, _ in appends])
    slots = {place: slot for slot, place in enumerate(zip(columns[0], columns[1], strict=True), 1)}
    owners = [0] * len(messages)
    for number_, (append, start) in enumerate(appends, 1):
        owners[start : start + len(append.messages)] = [number_] * len(append.messages)
    befores = []
    before = dict.fromkeys(slots, 0)
    at = 0
    for append, start in appends:
        while at < start:
            message = messages[at][0]
            if message.key is not None:
                before[message.topic, message.key] += 1
            at += 1
        befores.append(before[append.stream])
    tags = [(tag, place) for place, (message, _) in enumerate(messages, 1) for tag in message.tags]
    return (
        *columns,
        owners,
        [slots[append.stream] for append, _ in appends],
        befores,
        [append.expected for append, _ in appends],
        [None if append.reopens else closing(append.stream) for append, _ in appends],
        [append.repeatable and bool(append.messages) for append, _ in appends],
        [tag for tag, _ in tags],
        [place for _, place in tags],
        sorted({min(query.tags) for condition in conditions for query in condition.queries}),
        json.dumps([_asked(condition) for condition in conditions]) if conditions else None,
    )


def append_to_values(columns: tuple[object, ...]) -> list[Value]:
    """The same as parameters of the statement `append_to`."""
    kinds = (
        texts, texts, int8s, texts, int4s, texts, texts, int4s, int4s, texts, texts, blobs, number,
        int4s, int4s, int4s, int8s, texts, bools, texts, int4s, texts,
    )  # fmt: skip
    values = [kind(column) for kind, column in zip(kinds, columns, strict=False)]  # type: ignore[operator]
    conditions = columns[-1]
    return [*values, NULL if conditions is None else text(str(conditions))]


def _asked(condition: Absence) -> dict[str, object]:
    """A condition as the function takes it: of each query's tags, the one it is looked up by, and the others."""
    queries = []
    for query in condition.queries:
        tag, *others = sorted(query.tags)
        queries.append({"tag": tag, "others": others, "types": sorted(query.types)})
    return {"after": condition.after, "queries": queries}
