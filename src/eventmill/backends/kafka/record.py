"""A message as a Kafka record, and back: CloudEvents in binary mode, the key as the record's key."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import quote_from_bytes

import confluent_kafka
import msgspec

from eventmill.core.cloudevents import STRUCTURED, from_binary
from eventmill.core.errors import DecodeError, EncodeError, MessageError
from eventmill.core.limits import MAX_KEY_BYTES, check_text
from eventmill.core.message import Message, Partition, Recorded
from eventmill.core.reading import Types
from eventmill.core.tags import joined
from eventmill.core.timestamp import timestamp

PREFIX = "ce_"

KafkaMessage = confluent_kafka.Message

UNREADABLE = "unreadable"
"""The type of what is no CloudEvent."""

OVERHEAD = 128
"""Bytes at most that a record and the batch around it need beside its own, in a batch of one."""


Header = tuple[str, str | bytes | None]

SPECVERSION: Header = ("ce_specversion", "1.0")


class Record(NamedTuple):
    """What is sent of a message. size: bytes that count against the broker's limit, never less than it takes."""

    key: str | None
    value: bytes
    headers: list[Header]
    size: int


def to_record(message: Message) -> Record:
    """The headers of `to_binary`, in one go: there are a dozen to each message. Raises EncodeError."""
    try:
        time = timestamp(message.time)
    except OverflowError as error:
        raise EncodeError(f"time={message.time}: outside of the years 1 to 9999") from error
    headers: list[Header] = [
        ("content-type", message.contenttype),
        SPECVERSION,
        ("ce_id", message.id),
        ("ce_source", message.source),
        ("ce_type", message.type),
        ("ce_time", time),
        ("ce_schemaversion", str(message.version)),
    ]
    texts = [message.contenttype, message.id, message.source, message.type]
    key = message.key
    if message.subject is not None:
        headers.append(("ce_subject", message.subject))
        texts.append(message.subject)
    if key is not None:
        headers.append(("ce_partitionkey", key))
        texts += (key, key)
    if message.correlationid is not None:
        headers.append(("ce_correlationid", message.correlationid))
        texts.append(message.correlationid)
    if message.causationid is not None:
        headers.append(("ce_causationid", message.causationid))
        texts.append(message.causationid)
    if message.traceparent is not None:
        headers.append(("ce_traceparent", message.traceparent))
        texts.append(message.traceparent)
    if message.sequence is not None:
        headers.append(("ce_sequence", f"{message.sequence:020d}"))
    if message.tags:
        tags = joined(message.tags)
        headers.append(("ce_tags", tags))
        texts.append(tags)
    if message.extensions:
        known = {name for name, _ in headers}
        for name, text in message.extensions.items():
            if PREFIX + name not in known:
                headers.append((PREFIX + name, text))
                texts += (name, text)
    together = "".join(texts)
    try:
        size = len(together) if together.isascii() else len(together.encode())
    except UnicodeEncodeError as error:
        raise EncodeError(f"{message.type} {message.id!r}: an attribute cannot be written as UTF-8: {error}") from error
    # 28: a header's name and the lengths around it; its value may be one of those that are not in `texts`.
    return Record(key, message.data, headers, OVERHEAD + len(message.data) + size + 28 * len(headers))


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
