"""Tags: what an event is about beside its key, as text such as `course:c1`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from operator import attrgetter, itemgetter
from typing import Any
from uuid import UUID

from eventmill.core.errors import ConfigurationError, EncodeError, MessageError
from eventmill.core.limits import check_text

MAX_TAGS = 32
"""Tags of one event."""

MAX_TAG_BYTES = 200
"""UTF-8 bytes of a tag."""

Tags = str | Callable[[Any], Iterable[str]] | Sequence[str]
"""How a type names its tags: fields, each giving `field:value`, or a function of the event that returns the tags."""


def check_tags(tags: Sequence[object], what: str = "tags") -> tuple[str, ...]:
    """The tags, each once, in their order. what: how an error calls them.

    Raises EncodeError for one that is no printable text or has a comma, for more than 32 of them, and
    MessageTooLargeError for one over 200 bytes.
    """
    found = tuple(dict.fromkeys(tags))
    if len(found) > MAX_TAGS:
        raise EncodeError(f"{what}: {len(found)} tags; an event may have {MAX_TAGS}")
    for tag in found:
        check_text(tag, f"{what}: a tag", MAX_TAG_BYTES)
        assert isinstance(tag, str)  # check_text has seen to it
        if "," in tag or not tag.isprintable() or tag != tag.strip():
            # They travel in one header, separated by commas.
            raise EncodeError(
                f"{what}: tag {tag!r} has a comma, a space at its end, or a character that cannot be printed"
            )
    return found  # type: ignore[return-value]


def joined(tags: Sequence[str]) -> str:
    """How tags travel: one text, separated by commas."""
    return ",".join(tags)


def parted(text: str) -> tuple[str, ...] | None:
    """The tags of such a text, None where it is none."""
    try:
        return check_tags(text.split(","))
    except MessageError:
        return None


class TagsOf:
    """Reads the tags out of an event of one type."""

    __slots__ = ("_fields", "_function", "_name")

    def __init__(self, tags: Tags, *, name: str, fields: Sequence[str], item: bool) -> None:
        self._name = f"{name}: tags"
        self._function: Callable[[Any], Iterable[str]] | None = None
        self._fields: list[tuple[str, Callable[[Any], object]]] = []
        if callable(tags):
            self._function = tags
            return
        named = [tags] if isinstance(tags, str) else list(tags)
        unknown = [field for field in named if not isinstance(field, str) or field not in fields]
        if unknown or not named:
            raise ConfigurationError(
                f"{name}: tags={tags!r}: give fields, of {', '.join(fields) or 'which it has none'}, "
                "or a function of the event that returns its tags"
            )
        self._fields = [(field, itemgetter(field) if item else attrgetter(field)) for field in named]

    def __call__(self, event: Any) -> tuple[str, ...]:
        """Its tags. A field that is None gives none, one that holds several values gives one for each.

        Raises as `check_tags` does; what the user's own function raises becomes EncodeError.
        """
        try:
            if self._function is not None:
                given = self._function(event)
                return check_tags([given] if isinstance(given, str) else list(given), self._name)
            found: list[str] = []
            for field, get in self._fields:
                value = get(event)
                if isinstance(value, list | tuple | set | frozenset):
                    found += sorted(f"{field}:{self._text(each, field)}" for each in value)
                elif value is not None:
                    found.append(f"{field}:{self._text(value, field)}")
        except MessageError:
            raise
        except Exception as error:
            raise EncodeError(f"{self._name} cannot be read: {type(error).__name__}: {error}") from error
        return check_tags(found, self._name)

    def _text(self, value: object, field: str) -> str:
        if isinstance(value, Enum):
            value = value.value
        if isinstance(value, int | UUID) and not isinstance(value, bool):
            return str(value)
        if isinstance(value, str) and value:
            return str.__str__(value)
        raise EncodeError(
            f"{self._name}: {field} is {value!r}: a tag is made of a str, int, UUID or Enum; give a function"
        )
