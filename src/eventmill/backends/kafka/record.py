"""A message as a Kafka record, and back: CloudEvents in binary mode, the key as the record's key."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import quote_from_bytes

import confluent_kafka
import msgspec

from eventmill.core.cloudevents import STRUCTURED, from_binary, to_binary
from eventmill.core.errors import DecodeError, MessageError
from eventmill.core.limits import MAX_KEY_BYTES, check_text
from eventmill.core.message import Message, Partition, Recorded
from eventmill.core.reading import Types

PREFIX = "ce_"

KafkaMessage = confluent_kafka.Message

UNREADABLE = "unreadable"
"""The type of what is no CloudEvent."""

OVERHEAD = 128
"""Bytes at most that a record and the batch around it need beside its own, in a batch of one."""


class Record(NamedTuple):
    """What is sent of a message. size: bytes that count against the broker's limit, never less than it takes."""

    key: bytes | None
    value: bytes
    headers: list[tuple[str, str | bytes | None]]
    size: int


def to_record(message: Message) -> Record:
    """Raises EncodeError."""
    headers, value = to_binary(message, PREFIX)
    key = None if message.key is None else message.key.encode()
    size = OVERHEAD + len(value) + (0 if key is None else len(key))
    encoded: list[tuple[str, str | bytes | None]] = []
    for name, text in headers.items():
        data = text.encode()
        size += len(name) + len(data) + 6
        encoded.append((name, data))
    return Record(key, value, encoded, size)


def from_record(record: KafkaMessage, partition: Partition, types: Types | None) -> Recorded | None:
    """None where it is of none of these types.

    Where it cannot be read, what there is of it, and why, in `unreadable`: for the groups that read its
    type, or for all that read the topic where it has none.
    """
    headers = record.headers()
    named: dict[str, str | bytes | None] = {} if headers is None else dict(headers)
    kind = named.get(PREFIX + "type")
    if types is not None and kind is not None:
        text = kind if isinstance(kind, str) else kind.decode(errors="replace")
        if not types.accepts(text):
            return None
    offset, (_, created) = record.offset(), record.timestamp()
    assert offset is not None
    value = record.value() or b""
    try:
        if headers is not None and len(named) != len(headers):
            _refuse_repeats([header[0] for header in headers])
        if kind is None and not _structured(named):
            raise DecodeError(f"no CloudEvent: it has neither ce_ headers nor the content-type {STRUCTURED}")
        present = {name: text for name, text in named.items() if text is not None}
        message = from_binary(present, value, PREFIX, arrived=created * 1000, topic=partition.topic)
        key = record.key()
        if message.key is None and key:
            message = _keyed(message, key)
    except MessageError as error:
        return _unreadable(record, partition, f"{partition} offset {offset}: {error}")
    if types is not None and kind is None and not types.accepts(message.type):
        return None
    return Recorded(offset + 1, partition, created, message)


def _structured(named: dict[str, str | bytes | None]) -> bool:
    media = next((value for name, value in named.items() if name.lower() == "content-type"), None)
    text = media.decode(errors="replace") if isinstance(media, bytes) else media or ""
    return text.partition(";")[0].strip().lower().startswith("application/cloudevents")


def _refuse_repeats(names: list[str]) -> None:
    """Other headers may come twice, and are not looked at."""
    for name in names:
        if name.lower().startswith(PREFIX) and names.count(name) > 1:
            raise DecodeError(f"{name}: given twice in the headers")


def _keyed(message: Message, key: bytes) -> Message:
    """Foreign producers may give the key to Kafka alone. One that is no text is written as in a URL."""
    try:
        text = key.decode()
    except UnicodeDecodeError:
        text = quote_from_bytes(key)
    check_text(text, "the record's key", MAX_KEY_BYTES)
    return msgspec.structs.replace(message, key=text)


def _unreadable(record: KafkaMessage, partition: Partition, reason: str) -> Recorded:
    offset, (_, created) = record.offset(), record.timestamp()
    assert offset is not None
    message = Message(
        id=f"{partition}@{offset}",
        source="kafka",
        type=UNREADABLE,
        topic=partition.topic,
        time=created * 1000,
        data=record.value() or b"",
        contenttype="application/octet-stream",
    )
    return Recorded(offset + 1, partition, created, message, reason)
