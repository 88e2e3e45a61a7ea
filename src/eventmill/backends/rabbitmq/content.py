"""Messages as AMQP carries them: CloudEvents in binary mode, written and read without objects in between."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from functools import lru_cache
from hashlib import sha256
from struct import Struct
from struct import error as StructError
from typing import NamedTuple

from pamqp import decode

from eventmill.backends.rabbitmq.channel import Delivered
from eventmill.core.cloudevents import from_binary, to_binary
from eventmill.core.errors import DecodeError, EncodeError, MessageError, MessageTooLargeError
from eventmill.core.limits import Limits
from eventmill.core.message import Message
from eventmill.core.timestamp import timestamp

PREFIX = "ce-"
FOREIGN = ("cloudEvents:", "cloudEvents_")
"""How AMQP 1.0 clients of the same server write it."""

LIMITS = Limits(max_bytes=134_217_728, max_depth=512)
"""The server has let the message through; the handler's own limits come later."""

SHORT = 255
"""Bytes of a routing key, a content type, a message id."""

_CONTENT_TYPE, _ENCODING, _HEADERS, _MODE, _PRIORITY = 0x8000, 0x4000, 0x2000, 0x1000, 0x0800
_CORRELATION, _REPLY, _EXPIRATION, _ID = 0x0400, 0x0200, 0x0100, 0x0080

_FLAGS, _LENGTH = Struct(">H"), Struct(">I")
_PUBLISH, _CONTENT, _FRAME = Struct(">HHH"), Struct(">HHQ"), Struct(">BHI")


class Parcel(NamedTuple):
    """A message ready to be sent: the payloads of its frames."""

    message: Message
    method: bytes
    header: bytes


@lru_cache(4096)
def _method(exchange: str, routing_key: str, mandatory: bool) -> bytes:
    return _PUBLISH.pack(60, 40, 0) + _short(exchange.encode()) + _short(routing_key.encode()) + bytes([mandatory])


@lru_cache(1024)
def _name(name: str) -> bytes:
    """A header's name, and that its value is text."""
    return _short(name.encode()) + b"S"


def _short(text: bytes) -> bytes:
    return bytes([len(text)]) + text


def parcel(message: Message, exchange: str, partition: int, max_frame: int, *, mandatory: bool) -> Parcel:
    """Raises EncodeError and MessageTooLargeError for what AMQP cannot carry."""
    headers, body = to_binary(message, PREFIX)
    try:
        contenttype = headers.pop("content-type").encode()
        parts: list[bytes] = []
        for name, value in headers.items():
            text = value.encode()
            parts += (_name(name), _LENGTH.pack(len(text)), text)
        id_ = message.id.encode()
    except UnicodeEncodeError as error:
        raise EncodeError(f"{message.type} {message.id!r}: cannot be written as UTF-8: {error}") from error
    table = b"".join(parts)
    for what, text in (("contenttype", contenttype), ("type", message.type.encode())):
        if len(text) > SHORT - 10:
            raise MessageTooLargeError(f"{what} of {message.id} is {len(text)} bytes; AMQP carries up to {SHORT - 10}")
    flags = _CONTENT_TYPE | _HEADERS | _MODE | (_ID if len(id_) <= SHORT else 0)
    header = b"".join(
        (
            _CONTENT.pack(60, 0, len(body)),
            _FLAGS.pack(flags),
            _short(contenttype),
            _LENGTH.pack(len(table)),
            table,
            b"\x02",  # persistent
            _short(id_) if flags & _ID else b"",
        )
    )
    if len(header) > max_frame - 8:
        raise MessageTooLargeError(
            f"the attributes of {message.type} {message.id} take {len(header):,} bytes; "
            f"the server takes {max_frame - 8:,} (frame_max): put large things into the data"
        )
    return Parcel(message, _method(exchange, f"{partition}.{message.type}", mandatory), header)


def frames(each: Parcel, channel: int, max_frame: int) -> list[bytes]:
    """What is to be written, in pieces."""
    body = each.message.data
    found = [
        _FRAME.pack(1, channel, len(each.method)), each.method, b"\xce",
        _FRAME.pack(2, channel, len(each.header)), each.header, b"\xce",
    ]  # fmt: skip
    step = max_frame - 8
    for start in range(0, len(body), step):
        part = body if len(body) <= step else body[start : start + step]
        found += (_FRAME.pack(3, channel, len(part)), part, b"\xce")
    return found


def read(delivered: Delivered, topic: str, arrived: int) -> Message:
    """The CloudEvent of a delivery, in binary or structured mode. arrived: microseconds since 1970 UTC.

    Raises MessageError, with the attribute named, for what is none.
    """
    headers, _ = attributes(delivered.properties)
    return from_binary(headers, delivered.body, PREFIX, arrived=arrived, topic=topic, limits=LIMITS)


def unreadable(delivered: Delivered, topic: str, arrived: int) -> Message:
    """What stands for a delivery that is no CloudEvent: its body, under an id that stays the same."""
    headers: Mapping[str, str | bytes] = {}
    id_ = ""
    with suppress(MessageError):  # its properties may be what cannot be read
        headers, id_ = attributes(delivered.properties)
    digest = sha256(delivered.routing_key + b"\0" + delivered.properties + b"\0" + delivered.body).hexdigest()
    contenttype = headers.get("content-type")
    type_ = delivered.routing_key.decode(errors="replace").partition(".")[2]
    return Message(
        id=id_ or digest,
        source=f"amqp:{topic}",
        type=type_ or "unreadable",
        topic=topic,
        time=arrived,
        data=delivered.body,
        contenttype=contenttype if isinstance(contenttype, str) and contenttype else "application/octet-stream",
    )


def attributes(properties: bytes) -> tuple[dict[str, str | bytes], str]:
    """The headers that CloudEvents reads, with the content type, and the message id."""
    try:
        (flags,) = _FLAGS.unpack_from(properties)
        at = 2
        headers: dict[str, str | bytes] = {}
        contenttype = ""
        if flags & _CONTENT_TYPE:
            contenttype, at = _text(properties, at)
        if flags & _ENCODING:
            _, at = _text(properties, at)
        if flags & _HEADERS:
            (size,) = _LENGTH.unpack_from(properties, at)
            headers = _table(properties, at + 4, at + 4 + size)
            at += 4 + size
        at += bool(flags & _MODE) + bool(flags & _PRIORITY)
        for flag in (_CORRELATION, _REPLY, _EXPIRATION):
            if flags & flag:
                _, at = _text(properties, at)
        id_ = _text(properties, at)[0] if flags & _ID else ""
    except (ValueError, IndexError, KeyError, OSError, OverflowError, StructError) as error:
        raise DecodeError(f"properties: not understood: {error}") from error
    if contenttype:
        headers["content-type"] = contenttype
    return headers, id_


def _text(data: bytes, at: int) -> tuple[str, int]:
    stop = at + 1 + data[at]
    return data[at + 1 : stop].decode(), stop


def _table(data: bytes, at: int, stop: int) -> dict[str, str | bytes]:
    found: dict[str, str | bytes] = {}
    begin = at
    while at < stop:
        middle = at + 1 + data[at]
        name = data[at + 1 : middle]
        if data[middle] != 0x53:
            return _other_table(data, begin, stop)
        (size,) = _LENGTH.unpack_from(data, middle + 1)
        at = middle + 5 + size
        if name[:3] in (b"ce-", b"CE-", b"Ce-"):
            found[name.decode()] = data[middle + 5 : at].decode()
        elif name[:11] == b"cloudEvents":
            found[_ours(name.decode())] = data[middle + 5 : at].decode()
    return found


def _other_table(data: bytes, at: int, stop: int) -> dict[str, str | bytes]:
    """The same for tables that hold more than text."""
    _, table = decode.field_table(data[at - 4 : stop])
    found: dict[str, str | bytes] = {}
    for name, value in table.items():
        ours = _ours(name)
        if not ours.lower().startswith(PREFIX):
            continue
        if isinstance(value, bool):
            found[ours] = "true" if value else "false"
        elif isinstance(value, datetime):
            found[ours] = timestamp(int(value.timestamp() * 1_000_000))
        elif isinstance(value, bytes | bytearray):
            found[ours] = bytes(value)
        elif isinstance(value, str | int):
            found[ours] = str(value)
        elif value is not None:
            raise DecodeError(f"{name[:40]}: {type(value).__name__} is no type of attribute; use a string")
    return found


def _ours(name: str) -> str:
    for prefix in FOREIGN:
        if name.startswith(prefix):
            return PREFIX + name[len(prefix) :]
    return name
