"""The key of an event: the text that decides which messages keep their order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from operator import attrgetter, itemgetter
from typing import Any
from uuid import UUID

from eventmill.core.errors import ConfigurationError, EncodeError
from eventmill.core.limits import MAX_KEY_BYTES, check_text

Key = str | Callable[[Any], object]
"""How a type names its key: a field, or a function of the event."""


def key_text(value: object, field: str) -> str:
    """The key as text; an int, UUID or Enum member is turned into its text.

    Raises EncodeError for None, an empty string, one that cannot be carried, and any other type;
    MessageTooLargeError over 500 bytes. `field` is how the error calls it.
    """
    if isinstance(value, Enum):
        value = value.value
    if value is None:
        raise EncodeError(f"{field} is None: a message of this type needs a key, because its order is kept by key")
    if isinstance(value, int | UUID) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise EncodeError(
            f"{field} is of type {type(value).__name__}: a key is a str, int, UUID or Enum; "
            "give key= a function that returns one"
        )
    check_text(value, field, MAX_KEY_BYTES)
    # A subclass of str may print as something else than its characters.
    return str.__str__(value)


class KeyOf:
    """Reads the key out of an event of one type."""

    __slots__ = ("_field", "_get")

    def __init__(self, key: Key, *, name: str, fields: Sequence[str], item: bool) -> None:
        if callable(key):
            label = getattr(key, "__name__", type(key).__name__)
            self._get: Callable[[Any], object] = key
        elif not isinstance(key, str) or key not in fields:
            raise ConfigurationError(
                f"{name}: key={key!r} is not a field; its fields are {', '.join(fields) or 'none at all'}"
            )
        else:
            label = key
            self._get = itemgetter(key) if item else attrgetter(key)
        self._field = f"{name}: key {label!r}"

    def __call__(self, event: Any) -> str:
        """The key's text. Raises as `key_text` does; what the user's own function raises becomes EncodeError."""
        try:
            value = self._get(event)
        except Exception as error:
            raise EncodeError(f"{self._field} cannot be read: {type(error).__name__}: {error}") from error
        # The usual key needs none of the slower checks.
        if type(value) is str and 0 < len(value) <= MAX_KEY_BYTES and value.isascii() and "\0" not in value:
            return value
        return key_text(value, self._field)
