"""The tags of an event: what else it is about, beside the stream it stands in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter, itemgetter
from typing import Any

from eventmill.core.errors import ConfigurationError, EncodeError
from eventmill.core.key import key_text

Tags = Sequence[str] | Callable[[Any], Iterable[str]]
"""How a type names its tags: fields, or a function of the event that returns the tags themselves."""


class TagsOf:
    """Reads the tags out of an event of one type: `field:value` of each field, or what the function returns."""

    __slots__ = ("_get", "_name")

    def __init__(self, tags: Tags, *, name: str, fields: Sequence[str], item: bool) -> None:
        self._name = name
        if callable(tags):
            self._get: Callable[[Any], Iterable[str]] = tags
            return
        if isinstance(tags, str):
            raise ConfigurationError(f"{name}: tags={tags!r} is one string; give a tuple of fields: tags=({tags!r},)")
        for field in tags:
            if field not in fields:
                raise ConfigurationError(
                    f"{name}: tags: {field!r} is not a field; its fields are {', '.join(fields) or 'none at all'}"
                )
        getters = [(field, itemgetter(field) if item else attrgetter(field)) for field in tags]

        def get(event: Any) -> Iterable[str]:
            return [f"{field}:{key_text(read(event), f'{name}: tag {field!r}')}" for field, read in getters]

        self._get = get

    def __call__(self, event: Any) -> tuple[str, ...]:
        """The tags, each once. Raises EncodeError, naming the field, for what is no text, int, UUID or Enum."""
        try:
            tags = tuple(dict.fromkeys(self._get(event)))
        except EncodeError:
            raise
        except Exception as error:
            raise EncodeError(f"{self._name}: its tags cannot be read: {type(error).__name__}: {error}") from error
        for tag in tags:
            key_text(tag, f"{self._name}: tag")
        return tags
