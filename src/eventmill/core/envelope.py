"""Events into messages: the only place where an envelope is filled in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import msgspec

from eventmill.core.clock import Clock
from eventmill.core.codec import write_json
from eventmill.core.context import handling
from eventmill.core.errors import ConfigurationError, DecodeError, EncodeError, MessageError
from eventmill.core.event import Named
from eventmill.core.key import key_text
from eventmill.core.limits import MAX_KEY_BYTES, Limits, check_text
from eventmill.core.message import JSON, Message
from eventmill.core.names import ATTRIBUTES, MAX_EXTENSION_NAME, is_attribute_name, is_json, topic_of
from eventmill.core.personal import Sealer
from eventmill.core.registry import REGISTRY, EventType, Registry
from eventmill.core.stream import Stream
from eventmill.core.tags import check_tags
from eventmill.core.trace import child_of


class Envelopes:
    """Makes the message of an event, with identity, time and correlation.

    source: the service's name, the CloudEvents `source` of all it publishes. clock and ids: where
    times, identities and the span ids that follow from them come from.
    """

    __slots__ = ("_ids", "_limits", "_max_bytes", "_max_depth", "_now", "_registry", "_source", "_types", "sealer")

    def __init__(
        self,
        source: str,
        clock: Clock,
        ids: Callable[[], str],
        registry: Registry = REGISTRY,
        limits: Limits | None = None,
        sealer: Sealer | None = None,
    ) -> None:
        try:
            check_text(source, "source")
        except MessageError as error:
            raise ConfigurationError(str(error)) from error
        self._source = source
        self._now = clock.now
        self._ids = ids
        self._registry = registry
        self._types = registry.types
        self._limits = limits or Limits()
        self._max_bytes = self._limits.max_bytes
        self._max_depth = self._limits.max_depth
        self.sealer = sealer
        """Who seals personal fields. Messages that are made `unsealed` have to be given to it before they are stored."""

    def __call__(self, event: object, *, unsealed: bool = False) -> Message:
        """The message of an event of a registered type, or of `named` data; a Message is checked and returned as it is.

        `correlationid`, `causationid` and `traceparent` follow from the message being handled; outside
        of a handler the message begins a correlation of its own.

        unsealed: the caller will have personal fields sealed. Otherwise a type that has some is refused, so that
        nothing of it can be stored for all to read.

        Raises UnknownEventError, EncodeError, MessageTooLargeError; nothing of them is retried.
        """
        kind = self._types.get(type(event))
        if kind is None:
            if isinstance(event, Message):
                check_message(event, self._limits)
                return event
            if isinstance(event, Named):
                return self._named(event, unsealed)
            kind = self._registry.of(event)  # raises, saying what to write
        if kind.personal is not None:
            self._admit(kind, unsealed)
        tags = () if kind.tags_of is None else kind.tags_of(event)
        return self._message(kind.name, kind.topic, kind.version, kind.key_of(event), kind.encode(event), tags)

    def written(self, name: str, topic: str, data: bytes, extensions: dict[str, str] | None = None) -> Message:
        """The message of data that is JSON already, of a type that is not registered. Raises MessageTooLargeError."""
        message = self._message(name, topic, 1, None, data)
        return message if not extensions else msgspec.structs.replace(message, extensions=extensions)

    def derived(
        self, event: object, *, id_: str, correlationid: str, causationid: str, extensions: dict[str, str]
    ) -> Message:
        """The message of an event that follows from others, and whose identity follows from theirs.

        Raises as the call itself.
        """
        kind = self._types.get(type(event))
        if kind is None:
            return msgspec.structs.replace(
                self(event), id=id_, correlationid=correlationid, causationid=causationid, extensions=extensions
            )
        if kind.personal is not None:
            self._admit(kind, False)
        data = kind.encode(event)
        if len(data) > self._max_bytes or data.count(b"{") + data.count(b"[") > self._max_depth:
            self._limits.check(data, kind.name)
        return Message(
            id=id_,
            source=self._source,
            type=kind.name,
            topic=kind.topic,
            time=round(self._now() * 1_000_000),
            data=data,
            key=kind.key_of(event),
            version=kind.version,
            correlationid=correlationid,
            causationid=causationid,
            extensions=extensions,
            tags=() if kind.tags_of is None else kind.tags_of(event),
        )

    def in_stream(
        self,
        event: object,
        stream: Stream,
        identity: str | None = None,
        extensions: Mapping[str, str] | None = None,
    ) -> Message:
        """The message of an event as one of a stream's: with its key, whatever the event itself would say. It is not sealed.

        identity: the id to give it; a fresh one by default. extensions: attributes to add. Raises as calling does, and
        EncodeError for an event of another topic, and one that could not be read again: no stream that holds it could be.
        """
        kind = self._types.get(type(event))
        if kind is not None and kind.topic == stream.topic and not extensions:
            check_text(stream.key, "key", MAX_KEY_BYTES)
            if kind.personal is not None:
                self._admit(kind, True)
            tags = () if kind.tags_of is None else kind.tags_of(event)
            data = kind.encode(event)
            return self._message(kind.name, kind.topic, kind.version, stream.key, data, tags, identity)
        message = self(event, unsealed=True)
        if message.topic != stream.topic:
            raise EncodeError(
                f"{message.type} is of topic {message.topic!r}, the stream {stream} of {stream.topic!r}: "
                "give the event type a name or topic= that fits"
            )
        if extensions:
            message = msgspec.structs.replace(message, extensions={**(message.extensions or {}), **extensions})
        if message.key == stream.key and identity is None:
            return message
        check_text(stream.key, "key", MAX_KEY_BYTES)
        if identity is None:
            return msgspec.structs.replace(message, key=stream.key)
        check_text(identity, "id")
        # Where a correlation begins with this message, it has the message's own id, and goes with it.
        begins = message.correlationid == message.id
        correlation = identity if begins else message.correlationid
        return msgspec.structs.replace(message, key=stream.key, id=identity, correlationid=correlation)

    def _named(self, event: Named, unsealed: bool) -> Message:
        kind = self._registry.named(event.name)
        if kind is not None and kind.personal is not None:
            self._admit(kind, unsealed)
        key = None if event.key is None else key_text(event.key, f"{event.name}: key")
        if kind is not None and type(event.data) is kind.cls:
            data = kind.encode(event.data)
        else:
            try:
                data = write_json(event.data)
            except MemoryError:
                raise
            except Exception as error:
                raise EncodeError(f"{event.name} cannot be written as JSON: {error}") from error
        if kind is None:
            return self._message(event.name, topic_of(event.name), 1, key, data)
        try:
            fitting = kind.decode(data, kind.version)
        except DecodeError as error:
            raise EncodeError(f"data of named({event.name!r}, ...) does not fit {kind!r}: {error}") from error
        if key is None:
            key = kind.key_of(fitting)
        tags = () if kind.tags_of is None else kind.tags_of(fitting)
        return self._message(kind.name, kind.topic, kind.version, key, data, tags)

    @property
    def seals(self) -> bool:
        """Whether any type here has personal fields."""
        return bool(self._registry.personal)

    def personal(self, messages: Iterable[Message]) -> bool:
        """Whether any of the messages has personal fields, and is to be sealed."""
        names = self._registry.personal
        return bool(names) and any(message.type in names for message in messages)

    def _admit(self, kind: EventType, unsealed: bool) -> None:
        if not unsealed or self.sealer is None:
            raise ConfigurationError(
                f"{kind.name} has personal fields, which are sealed with keys of the store: publish it with app.publish, "
                "tx.publish, app.append or app.execute"
            )

    def _message(
        self,
        name: str,
        topic: str,
        version: int,
        key: str | None,
        data: bytes,
        tags: tuple[str, ...] = (),
        identity: str | None = None,
    ) -> Message:
        # The usual payload is settled by these three looks at it, without a call.
        if len(data) > self._max_bytes or data.count(b"{") + data.count(b"[") > self._max_depth:
            self._limits.check(data, name)
        if identity is None:
            identity = self._ids()
        else:
            check_text(identity, "id")
        correlation, causation, trace = identity, None, None
        parent = handling.get()
        if parent is not None:
            correlation = parent.correlationid or parent.id
            causation = parent.id
            if parent.traceparent is not None:
                trace = child_of(parent.traceparent, identity)
        # By place, in the order of the fields: this is done for every message.
        return Message(
            identity, self._source, name, topic, round(self._now() * 1_000_000), data, key, version, None, None,
            correlation, causation, trace, JSON, None, tags,
        )  # fmt: skip


def check_message(message: Message, limits: Limits) -> None:
    """Refuse a message that was filled in by hand, or elsewhere, and that not every backend could carry.

    Names of types and topics may be foreign, so the rule for our own names is not asked of them.
    Raises EncodeError or MessageTooLargeError, naming the field.
    """
    check_text(message.id, "id")
    check_text(message.source, "source")
    check_text(message.type, "type")
    check_text(message.topic, "topic")
    if "/" in message.topic:
        # Topic and key are joined by a slash to a lane, which must stay unambiguous.
        raise EncodeError(f"topic={message.topic!r} contains a slash: use a dot")
    check_text(message.contenttype, "contenttype")
    if message.key is not None:
        check_text(message.key, "key", MAX_KEY_BYTES)
    for field in ("subject", "correlationid", "causationid", "traceparent"):
        value = getattr(message, field)
        if value is not None:
            check_text(value, field)
    if message.tags:
        check_tags(message.tags)
    if message.version < 1:
        raise EncodeError(f"version={message.version}: versions start at 1")
    for name, value in (message.extensions or {}).items():
        if not is_attribute_name(name) or len(name) > MAX_EXTENSION_NAME:
            raise EncodeError(
                f"extension {name[:40]!r}: CloudEvents names are a-z and 0-9, at most {MAX_EXTENSION_NAME} characters"
            )
        if name in ATTRIBUTES:
            raise EncodeError(f"extension {name!r} is an attribute with a meaning of its own: use the message's field")
        if value != "":
            check_text(value, f"extension {name!r}")
    limits.check(message.data, message.type, json=is_json(message.contenttype))
