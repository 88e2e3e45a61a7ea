"""A stored event with everything that is known of it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec

from eventmill.core.errors import DecodeError
from eventmill.core.event import Named
from eventmill.core.message import Message, Recorded
from eventmill.core.names import is_json
from eventmill.core.registry import Registry

_read_value = msgspec.json.Decoder().decode


class Fact(NamedTuple):
    """An event as it was stored.

    event: an instance of its type, or `Named` data where no type of its name is registered. message: its envelope:
    identity, correlation and cause, tags. version: its number in its stream. position: its place in the store's log.
    recorded_at: the moment of its commit, in milliseconds since 1970 UTC.
    """

    event: Any
    message: Message
    version: int
    position: int
    recorded_at: int

    @property
    def type(self) -> str:
        """The name of the event's type."""
        return self.message.type

    @property
    def at(self) -> datetime:
        """The moment of its commit, with its time zone (UTC)."""
        return datetime.fromtimestamp(self.recorded_at / 1000, UTC)


def fact(record: Recorded, registry: Registry) -> Fact:
    """The fact of a recorded message. Raises DecodeError."""
    message = record.message
    kind = registry.by_name.get(message.type)
    event = _plain(message) if kind is None else kind.decode(message.data, message.version)
    return Fact(event, message, message.sequence or 0, record.position, record.recorded_at)


def _plain(message: Message) -> Named:
    """What was published as `named`, read back as that; data that is no JSON stays bytes."""
    if not is_json(message.contenttype):
        return Named(message.type, message.data, message.key)
    try:
        return Named(message.type, _read_value(message.data), message.key)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise DecodeError(f"{message.type} version {message.version} cannot be read: {error}") from error
