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


def append_values(messages: Sequence[PreparedMessage], partitions: Mapping[str, int], now: int) -> list[Value]:
    """The parameters of the statement `append`. partitions: the count of each topic. now: milliseconds."""
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
    return [
        texts([topic for topic, _ in keys]),
        texts([key for _, key in keys]),
        int8s([counts[place] for place in keys]),
        texts([message.topic for message, _ in messages]),
        int4s([partition_of(message.key, message.id, partitions[message.topic]) for message, _ in messages]),
        texts([message.type for message, _ in messages]),
        texts([message.key for message, _ in messages]),
        int4s([None if place is None else slots[place] for place in keyed]),
        int4s(
            [None if place is None else counts[place] - ordinal for place, ordinal in zip(keyed, ordinals, strict=True)]
        ),
        texts([message.id for message, _ in messages]),
        blobs([attributes for _, attributes in messages], 25),
        blobs([message.data for message, _ in messages]),
        number(now),
    ]
