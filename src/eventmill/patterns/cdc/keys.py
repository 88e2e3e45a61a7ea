"""A row's key as the key of its messages."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

from eventmill.core.changes import Key
from eventmill.core.codec import write_json
from eventmill.core.limits import MAX_KEY_BYTES


def message_key(key: Key) -> str:
    """The value's own text where the key is one column, else a JSON array. Too long a one is told by its digest."""
    text = _single(key[0]) if len(key) == 1 else write_json(key).decode()
    if len(text) * 4 > MAX_KEY_BYTES and len(text.encode()) > MAX_KEY_BYTES:
        return f"sha256:{sha256(text.encode()).hexdigest()}"
    return text


def _single(value: Any) -> str:
    if isinstance(value, str) and value and "\0" not in value:
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return write_json(value).decode()
