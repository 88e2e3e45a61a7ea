"""How large and how deeply nested a payload may be, and how long the strings around it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import accumulate

from eventmill.core.errors import ConfigurationError, EncodeError, MessageTooLargeError

MAX_KEY_BYTES = 500
"""UTF-8 bytes of a message's key."""

MAX_TEXT_BYTES = 4_096
"""UTF-8 bytes of any other string of the envelope."""

_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_NOT_BRACKETS = bytes(sorted(set(range(256)) - set(b"{}[]")))
_STEP = {ord("{"): 1, ord("["): 1, ord("}"): -1, ord("]"): -1}


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of a message's data. Refused at publish, and before foreign data is parsed.

    max_bytes: size of the data. max_depth: how many objects and arrays may stand inside one another.
    """

    max_bytes: int = 1_048_576
    max_depth: int = 64

    def __post_init__(self) -> None:
        if self.max_bytes < 1:
            raise ConfigurationError(f"max_bytes={self.max_bytes}: give at least 1")
        if self.max_depth < 1:
            raise ConfigurationError(f"max_depth={self.max_depth}: give at least 1")

    def check(self, data: bytes, what: str = "payload", *, json: bool = True) -> None:
        """Raise MessageTooLargeError, with both figures, where data is over a limit.

        what: how the error calls the data. json: False for data of another kind, whose brackets mean nothing.
        """
        if len(data) > self.max_bytes:
            raise MessageTooLargeError(
                f"{what} is {len(data):,} bytes; the limit is {self.max_bytes:,} (max_bytes): "
                "publish a reference to the data, or raise the limit"
            )
        # No payload is deeper than it has opening brackets: counting those settles nearly all of them.
        if json and data.count(b"{") + data.count(b"[") > self.max_depth:
            depth = nesting(data)
            if depth > self.max_depth:
                raise MessageTooLargeError(
                    f"{what} is nested {depth:,} deep; the limit is {self.max_depth:,} (max_depth): "
                    "flatten the data, or raise the limit"
                )


def nesting(data: bytes) -> int:
    """How deep the brackets of a JSON text stand inside one another; those within strings do not count."""
    brackets = _STRING.sub(b"", data).translate(None, _NOT_BRACKETS)
    return max(accumulate(map(_STEP.__getitem__, brackets), initial=0))


def check_text(value: object, field: str, max_bytes: int = MAX_TEXT_BYTES) -> None:
    """Refuse a string that not every backend and client could carry unharmed, naming the field.

    Raises EncodeError for what is no string, empty, has a NUL or cannot be written as UTF-8, and
    MessageTooLargeError for one over `max_bytes`.
    """
    if not isinstance(value, str):
        raise EncodeError(f"{field} is {type(value).__name__}, not a string")
    if not value:
        raise EncodeError(f"{field} is empty: give it a value, or None where it is optional")
    if "\0" in value:
        raise EncodeError(f"{field}={value[:40]!r} contains a NUL character: remove it")
    try:
        size = len(value) if value.isascii() else len(value.encode())
    except UnicodeEncodeError as error:
        raise EncodeError(
            f"{field}={value[:40]!r} cannot be written as UTF-8: a lone surrogate at character {error.start}"
        ) from error
    if size > max_bytes:
        raise MessageTooLargeError(f"{field} is {size:,} bytes; the limit is {max_bytes:,}")
