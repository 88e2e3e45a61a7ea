"""Which class has which name on the wire. A class is registered once, and its codec compiled then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from eventmill.core.codec import codec_of, described
from eventmill.core.errors import ConfigurationError, DecodeError, EncodeError, UnknownEventError
from eventmill.core.key import Key, KeyOf
from eventmill.core.names import check_name, check_topic, topic_of
from eventmill.core.personal import PersonalData, PersonalFields
from eventmill.core.tags import Tags, TagsOf
from eventmill.core.upcasting import Upcasters, check_version


class EventType:
    """One type of event: its name, schema version and topic, and how it is written and read."""

    __slots__ = ("_codec", "_key", "_upcasters", "cls", "keyed_by", "name", "personal", "tags_of", "topic", "version")

    def __init__(
        self,
        cls: type,
        *,
        name: str,
        key: Key | None,
        version: int,
        topic: str | None,
        upcasters: Upcasters,
        tags: Tags | None = None,
        personal: PersonalFields | None = None,
    ) -> None:
        self.cls = cls
        self.name = check_name(name, "name")
        check_version(version, f"{name}: version")
        self.version = version
        self.topic = topic_of(name) if topic is None else check_topic(topic)
        self._codec = codec_of(cls)
        self.keyed_by = key
        """The field, or the function, that was given as `key=`."""
        self._key = None if key is None else KeyOf(key, name=name, fields=self._codec.fields, item=self._codec.item)
        fields, item = self._codec.fields, self._codec.item
        self.tags_of = None if tags is None else TagsOf(tags, name=name, fields=fields, item=item)
        self.personal = None if not personal else PersonalData(personal, cls, name=name, fields=fields)
        """Its personal fields, for a type that has some: its messages are sealed before they are stored."""
        self._upcasters = upcasters

    def __repr__(self) -> str:
        return f"<EventType {self.name} version {self.version}: {described(self.cls)}>"

    @property
    def fields(self) -> Sequence[str]:
        """The names of its fields."""
        return self._codec.fields

    def refuse_personal(self, what: str) -> None:
        """Refuse a type with personal fields where what was read of it would be kept elsewhere."""
        if self.personal is not None:
            raise ConfigurationError(
                f"{what}: {self.name} has personal fields, and what is kept of it there would outlive their subject's key: "
                "leave it out, or give it an event that holds only ids"
            )

    def key_of(self, event: Any) -> str | None:
        """The event's key, or None for a type without one.

        Raises EncodeError, naming the field, for a key that is None, empty or no text, and
        MessageTooLargeError for one over 500 bytes.
        """
        return None if self._key is None else self._key(event)

    def encode(self, event: Any) -> bytes:
        """The event as JSON, which its class can be read from: whoever handles it could do nothing with any other.

        Raises EncodeError with the name of the type, and of the field.
        """
        try:
            data = self._codec.encode(event)
        except MemoryError:
            raise
        except Exception as error:
            raise EncodeError(f"{self.name} cannot be written as JSON: {error}") from error
        try:
            self._codec.decode(data)
        except (MemoryError, ConfigurationError):
            raise
        except Exception as error:
            raise EncodeError(f"{self.name}: what was written could not be read again: {error}") from error
        return data

    def decode(self, data: bytes, version: int) -> Any:
        """The event, from JSON of this version or an older one that upcasters lead up from.

        Raises DecodeError with name, version and the place in the data.
        """
        if version != self.version:
            data = self._upcasters.raised(self.name, data, version, self.version)
        try:
            return self._codec.decode(data)
        except (MemoryError, ConfigurationError):
            raise
        except Exception as error:
            raise DecodeError(f"{self.name} version {version} cannot be read: {error}") from error


class Registry:
    """The event types of a process, by class and by name."""

    def __init__(self) -> None:
        self.upcasters = Upcasters()
        self._by_name: dict[str, EventType] = {}
        self._by_class: dict[type, EventType] = {}
        self.types: Mapping[type, EventType] = MappingProxyType(self._by_class)
        self.personal: dict[str, PersonalData] = {}
        """The personal fields of the types that have some, by name; empty in most services."""
        self.by_name: Mapping[str, EventType] = MappingProxyType(self._by_name)

    def add(
        self,
        cls: type,
        *,
        name: str,
        key: Key | None = None,
        version: int = 1,
        topic: str | None = None,
        tags: Tags | None = None,
        personal: PersonalFields | None = None,
    ) -> EventType:
        """Register a class under a name and compile its codec.

        key: a field, or a function of the event. topic: where its messages are kept, by default the
        name up to its first dot. tags: what else its events are about.
        personal: fields to store encrypted. Refused with ConfigurationError:
        a name or topic against the rule, a name that another class has, a class that has another name, a key
        or tag that is no field.

        The same class, or one of the same module and name after a reload, takes the place of the
        former; events of the former class can still be published.
        """
        kind = EventType(
            cls,
            name=name,
            key=key,
            version=version,
            topic=topic,
            upcasters=self.upcasters,
            tags=tags,
            personal=personal,
        )
        former = self._by_name.get(name)
        if former is not None and described(former.cls) != described(cls):
            raise ConfigurationError(
                f"name={name!r} is used by both {described(former.cls)} and {described(cls)}: give one another name"
            )
        other = self._by_class.get(cls)
        if other is not None and other.name != name:
            raise ConfigurationError(
                f"{described(cls)} is registered as {other.name!r} already, and cannot be {name!r} as well"
            )
        self._by_name[name] = self._by_class[cls] = kind
        if kind.personal is not None:
            self.personal[name] = kind.personal
        else:
            self.personal.pop(name, None)
        return kind

    def of(self, event: object) -> EventType:
        """The type of an event. Raises UnknownEventError where its class was not registered."""
        if isinstance(event, type):
            raise UnknownEventError(f"{described(event)} is a class: publish an instance of it, {event.__name__}(...)")
        if isinstance(event, str | bytes):
            raise UnknownEventError(
                'a text does not say which event it is: publish an instance of a class, or named("order.placed", {...})'
            )
        return self.type_for(type(event))

    def type_for(self, cls: type) -> EventType:
        """The type of a class. Raises UnknownEventError where it was not registered."""
        kind = self._by_class.get(cls)
        if kind is not None:
            return kind
        if not isinstance(cls, type):
            raise UnknownEventError(f"{cls!r} is no event type: give the class")
        if issubclass(cls, dict):
            raise UnknownEventError('a dict does not say which event it is: publish named("order.placed", {...})')
        parent = next((self._by_class[base] for base in cls.__mro__[1:] if base in self._by_class), None)
        inherited = "" if parent is None else f" (its base is {parent.name!r}, but names are not inherited)"
        raise UnknownEventError(
            f"{described(cls)} has no name on the wire{inherited}: "
            'write class ...(Event, name="order.placed"), or put @event(name="order.placed") above it'
        )

    def named(self, name: str) -> EventType | None:
        """The type of this name, or None."""
        return self._by_name.get(name)

    def names(self) -> Sequence[str]:
        """Every registered name, sorted."""
        return sorted(self._by_name)


REGISTRY = Registry()
"""The process-wide registry, which `Event`, `@event` and `@upcast` use."""
