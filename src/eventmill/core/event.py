"""How users declare events: a base class, a decorator for classes of other kinds, and plain data with a name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, dataclass_transform

import msgspec

from eventmill.core.errors import ConfigurationError
from eventmill.core.key import Key
from eventmill.core.names import check_name
from eventmill.core.personal import PersonalFields
from eventmill.core.registry import REGISTRY
from eventmill.core.tags import Tags
from eventmill.core.upcasting import Upcaster

T = TypeVar("T")


class EventMeta(msgspec.StructMeta):
    """Takes the class keywords of `Event`; all others go to msgspec (`kw_only=True`, `rename="camel"`, …)."""

    def __new__(
        mcls,
        clsname: str,
        bases: tuple[type, ...],
        namespace: dict[str, Any],
        /,
        *,
        name: str | None = None,
        key: Key | None = None,
        version: int = 1,
        topic: str | None = None,
        tags: Tags | None = None,
        personal: PersonalFields | None = None,
        **config: Any,
    ) -> EventMeta:
        cls = super().__new__(mcls, clsname, bases, namespace, **config)
        if name is not None:
            REGISTRY.add(cls, name=name, key=key, version=version, topic=topic, tags=tags, personal=personal)
        elif key is not None or version != 1 or topic is not None or tags is not None or personal is not None:
            raise ConfigurationError(
                f"{cls.__module__}.{cls.__qualname__}: key=, version=, topic=, tags= and personal= need name= beside them, "
                'such as name="order.placed"'
            )
        return cls


@dataclass_transform(frozen_default=True, field_specifiers=(msgspec.field,))
class Event(msgspec.Struct, frozen=True, metaclass=EventMeta):
    """Base of immutable events.

    Class keywords: `name` is the event's name on the wire, for ever. `key` is the field (or a
    function of the event) whose value keeps order: events of one topic and key are handled in the
    order they were published. `version` is the schema's version, 1 at first. `topic` is where
    messages are kept, by default the name up to its first dot. `tags` are fields (or a function of the
    event) that say what else the event is about: `tags=("course_id", "student_id")` gives the tags
    `course_id:c1` and `student_id:s1`, for conditions across streams. `personal={"email": "customer_id"}`
    names fields that are stored encrypted, and the field that says whose they are; see `App.forget`.

        class OrderPlaced(Event, name="order.placed", key="order_id"):
            order_id: str
            total: int

    A subclass without `name` is a base for others, and cannot be published itself.
    """


def event(
    *,
    name: str,
    key: Key | None = None,
    version: int = 1,
    topic: str | None = None,
    tags: Tags | None = None,
    personal: PersonalFields | None = None,
) -> Callable[[type[T]], type[T]]:
    """Register a dataclass, attrs class, pydantic model or TypedDict; the keywords are those of `Event`.

    It goes above `@dataclass` or `@define`, and returns the class as it is. Data of a TypedDict is
    a plain dict, so it is published as `named("order.placed", {...})`.
    """

    def register(cls: type[T]) -> type[T]:
        REGISTRY.add(cls, name=name, key=key, version=version, topic=topic, tags=tags, personal=personal)
        return cls

    return register


class Named:
    """Data with the name of its event type. Made by `named`."""

    __slots__ = ("data", "key", "name")

    def __init__(self, name: str, data: object, key: object = None) -> None:
        self.name = check_name(name, "name")
        self.data = data
        self.key = key

    def __repr__(self) -> str:
        return f"named({self.name!r}, {self.data!r}, key={self.key!r})"


def named(name: str, data: object, *, key: object = None) -> Named:
    """Data to publish under a name.

    Where the name is registered, the data must fit that type, and the key is the type's own unless
    given here. Any other name is free: the data is whatever JSON can hold.
    """
    return Named(name, data, key)


def upcast(name: str, *, from_version: int) -> Callable[[Upcaster], Upcaster]:
    """Declare the step from one version of a type to the next: a function from dict to dict.

        @upcast("order.placed", from_version=1)
        def total_in_cents(data):
            return {**data, "total": data["total"] * 100}

    It runs when a message of the old version is read. The dict holds what JSON holds: times and
    decimals are strings.
    """

    def register(step: Upcaster) -> Upcaster:
        REGISTRY.upcasters.add(name, from_version, step)
        return step

    return register
