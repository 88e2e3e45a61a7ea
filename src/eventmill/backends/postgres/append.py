"""Appending: what the server's function `eventmill_append` is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from eventmill.backends.postgres.values import Value, blobs, int4s, int8s, number, texts
from eventmill.backends.sql.prepared import PreparedMessage
from eventmill.backends.sql.prepared import prepare as encode
from eventmill.core.errors import EncodeError
from eventmill.core.message import Message
from eventmill.core.partition import partition_of

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


def append_columns(messages: Sequence[PreparedMessage], partitions: Mapping[str, int], now: int) -> Columns:
    """What `eventmill_append` is given. partitions: the count of each topic. now: milliseconds."""
    counts: dict[tuple[str, str], int] = {}
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
