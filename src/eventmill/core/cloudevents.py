"""Messages as CloudEvents 1.0: structured JSON, and binary mode (attributes in headers, data as the body).

`topic` is not an attribute: it is the transport's topic or exchange, so readers pass it on. Where
they do not, it follows from the type. Attributes unknown here are kept in `extensions`, as the
text that CloudEvents gives an integer or a boolean, and written back.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import msgspec

from eventmill.core.errors import DecodeError, EncodeError, MessageError
from eventmill.core.limits import MAX_KEY_BYTES, Limits, check_text
from eventmill.core.message import JSON, Message
from eventmill.core.names import ATTRIBUTES, is_attribute_name, is_json, topic_of
from eventmill.core.tags import joined, parted
from eventmill.core.timestamp import microseconds, timestamp

STRUCTURED = "application/cloudevents+json"
"""Media type of one event in structured JSON."""

_read_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_read_value = msgspec.json.Decoder().decode
_read_raw = msgspec.json.Decoder(msgspec.Raw).decode
_write = msgspec.json.Encoder().encode


def attributes_of(message: Message) -> dict[str, str]:
    """Every attribute as text, without the data; the content type is among them as `datacontenttype`."""
    try:
        time = timestamp(message.time)
    except OverflowError as error:
        raise EncodeError(f"time={message.time}: outside of the years 1 to 9999") from error
    attributes = {
        "specversion": "1.0",
        "id": message.id,
        "source": message.source,
        "type": message.type,
        "time": time,
        "datacontenttype": message.contenttype,
        "schemaversion": str(message.version),
    }
    optional = {
        "subject": message.subject,
        "partitionkey": message.key,
        "correlationid": message.correlationid,
        "causationid": message.causationid,
        "traceparent": message.traceparent,
    }
    attributes.update((name, value) for name, value in optional.items() if value is not None)
    if message.sequence is not None:
        # CloudEvents orders sequences as text, so all have the same length.
        attributes["sequence"] = f"{message.sequence:020d}"
    if message.tags:
        attributes["tags"] = joined(message.tags)
    for name, value in (message.extensions or {}).items():
        attributes.setdefault(name, value)
    return attributes


def to_structured(message: Message) -> bytes:
    """The message as one JSON text of media type `application/cloudevents+json`.

    Data of a JSON content type stands in it byte for byte, other data as base64. Raises EncodeError
    where the data is not the JSON it claims to be.
    """
    members: dict[str, Any] = dict(attributes_of(message))
    if message.data:
        if is_json(message.contenttype):
            try:
                _read_raw(message.data)
                message.data.decode()
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise EncodeError(f"data of {message.type} {message.id} is not JSON: {error}") from error
            members["data"] = msgspec.Raw(message.data)
        else:
            members["data_base64"] = b64encode(message.data).decode()
    try:
        return _write(members)
    except UnicodeEncodeError as error:
        raise EncodeError(f"{message.type} {message.id}: an attribute cannot be written as UTF-8: {error}") from error


def to_binary(message: Message, prefix: str) -> tuple[dict[str, str], bytes]:
    """Headers and body. prefix: `ce_` on Kafka, `ce-` on RabbitMQ; `content-type` has none."""
    attributes = attributes_of(message)
    headers = {"content-type": attributes.pop("datacontenttype")}
    headers.update((prefix + name, value) for name, value in attributes.items())
    return headers, message.data


def from_structured(text: bytes, *, arrived: int, topic: str | None = None, limits: Limits | None = None) -> Message:
    """The message of one structured JSON text.

    arrived: microseconds since 1970 UTC, the time of an event that carries none. topic: where it came
    from, by default its type up to the first dot. limits: refuses larger data with MessageTooLargeError
    before it is parsed. Raises DecodeError with the attribute named.
    """
    # The text holds attributes and one level of its own beside the data, and base64 is a third longer.
    bounds = limits or Limits()
    Limits(bounds.max_bytes * 4 // 3 + 65_536, bounds.max_depth + 1).check(text, "CloudEvent")
    try:
        members = _read_members(text)
        text.decode()
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DecodeError(f"not a CloudEvent in JSON: {error}") from error
    attributes: dict[str, str] = {}
    for name, raw in members.items():
        if name not in ("data", "data_base64"):
            value = _text_of(name, _read_value(raw))
            if value is not None:
                attributes[name] = value
    contenttype = attributes.get("datacontenttype", JSON)
    return _message(attributes, _data_of(members, contenttype), arrived, topic, bounds)


def from_binary(
    headers: Mapping[str, str | bytes],
    body: bytes,
    prefix: str,
    *,
    arrived: int,
    topic: str | None = None,
    limits: Limits | None = None,
) -> Message:
    """The message of headers and body; a content type of structured JSON is read as such.

    Headers without the prefix are no attributes, and left alone. The rest is as in `from_structured`.
    """
    attributes: dict[str, str] = {}
    for header, value in headers.items():
        name = _attribute(header, prefix)
        if name is None:
            continue
        if name in attributes:
            raise DecodeError(f"{name}: given twice in the headers")
        if isinstance(value, bytes):
            try:
                value = value.decode()
            except UnicodeDecodeError as error:
                raise DecodeError(f"{name}: not UTF-8: {error}") from error
        attributes[name] = value
    media = attributes.get("datacontenttype", JSON).partition(";")[0].strip().lower()
    if media == STRUCTURED:
        return from_structured(body, arrived=arrived, topic=topic, limits=limits)
    if media.startswith("application/cloudevents"):
        raise DecodeError(f"content-type: {media} cannot be read here; send one event a message, as {STRUCTURED}")
    return _message(attributes, body, arrived, topic, limits or Limits())


@lru_cache(256)
def _attribute(header: str, prefix: str) -> str | None:
    """The attribute that a header holds; None for another header."""
    lower = header.lower()
    name = "datacontenttype" if lower == "content-type" else lower.removeprefix(prefix)
    return None if name == lower else name


def _text_of(name: str, value: object) -> str | None:
    """An attribute's canonical text; None for null, which CloudEvents takes as not set."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int):
        return str(value)
    raise DecodeError(f"{name[:40]}: {type(value).__name__} is no type of attribute; use a string, integer or boolean")


def _data_of(members: Mapping[str, msgspec.Raw], contenttype: str) -> bytes:
    data, base64 = members.get("data"), members.get("data_base64")
    if base64 is not None:
        if data is not None:
            raise DecodeError("data_base64: given together with data; only one of them is allowed")
        encoded = _read_value(base64)
        if encoded is None:
            return b""
        try:
            return b64decode(encoded, validate=True)
        except (TypeError, ValueError) as error:
            raise DecodeError(f"data_base64: not base64: {error}") from error
    if data is None:
        return b""
    if is_json(contenttype):
        return bytes(data)
    text = _read_value(data)
    if not isinstance(text, str):
        raise DecodeError(f"data: {contenttype} data must be a JSON string, or data_base64")
    return text.encode()


def _message(attributes: dict[str, str], data: bytes, arrived: int, topic: str | None, limits: Limits) -> Message:
    plain = min(MAX_KEY_BYTES, limits.max_bytes)
    for name, value in attributes.items():
        if name in ATTRIBUTES and 0 < len(value) <= plain and value.isascii() and "\0" not in value:
            continue  # as nearly all are
        if not is_attribute_name(name):
            raise DecodeError(f"{name[:40]!r}: names of attributes are a-z and 0-9")
        try:
            if value or name in _NEVER_EMPTY:
                check_text(value, name, MAX_KEY_BYTES if name == "partitionkey" else limits.max_bytes)
        except MessageError as error:
            raise DecodeError(str(error)) from error
    version = attributes.pop("specversion", None)
    if version != "1.0":
        raise DecodeError(f"specversion: {'missing' if version is None else repr(version)}; only 1.0 is read")
    for name in ("id", "source", "type"):
        if name not in attributes:
            raise DecodeError(f"{name}: missing; every CloudEvent has one")
    time = attributes.pop("time", None)
    try:
        moment = arrived if time is None else microseconds(time)
    except ValueError as error:
        raise DecodeError(f"time: {time!r}: {error}") from error
    schema = attributes.pop("schemaversion", "1")
    if not _is_count(schema):
        raise DecodeError(f"schemaversion: {schema[:40]!r} is not a whole number from 1 on")
    # Other producers may order by any text; that stays an extension, as it is no count.
    counted = _is_count(attributes.get("sequence", ""))
    # The same for tags, which others may write as they like.
    tags = parted(attributes["tags"]) if "tags" in attributes else None
    if tags is not None:
        del attributes["tags"]
    contenttype = attributes.pop("datacontenttype", JSON)
    limits.check(data, attributes["type"], json=is_json(contenttype))
    return Message(
        id=attributes.pop("id"),
        source=attributes.pop("source"),
        topic=topic or topic_of(attributes["type"]),
        type=attributes.pop("type"),
        time=moment,
        data=data,
        key=attributes.pop("partitionkey", None),
        version=int(schema),
        sequence=int(attributes.pop("sequence")) if counted else None,
        subject=attributes.pop("subject", None),
        correlationid=attributes.pop("correlationid", None),
        causationid=attributes.pop("causationid", None),
        traceparent=attributes.pop("traceparent", None),
        contenttype=contenttype,
        extensions=attributes or None,
        tags=tags or (),
    )


_NEVER_EMPTY = frozenset({"id", "source", "type", "subject", "partitionkey", "datacontenttype"})


def _is_count(text: str) -> bool:
    """A whole number from 1 on that fits 63 bits, in plain digits."""
    return text.isascii() and text.isdigit() and len(text) <= 20 and 1 <= int(text) < 1 << 63
