"""Messages that a database will take: what could be wrong with one is found before it joins others."""

from __future__ import annotations

from collections.abc import Sequence

from eventmill.backends.sql.rows import attributes
from eventmill.core.errors import EncodeError
from eventmill.core.message import Message

PreparedMessage = tuple[Message, bytes]
"""A message with its attributes encoded: whatever could be wrong with it has been found."""


def prepare(messages: Sequence[Message]) -> list[PreparedMessage]:
    """Refuse now, to the caller alone, what the database would refuse in a commit shared with others."""
    prepared = []
    for message in messages:
        if not isinstance(message.data, bytes):
            raise EncodeError(f"{message.type}: data must be bytes, not {type(message.data).__name__}")
        try:
            if not (message.id.isascii() and message.topic.isascii() and message.type.isascii()):
                f"{message.id}{message.topic}{message.type}".encode()
            if message.key is not None and not message.key.isascii():
                message.key.encode()
            prepared.append((message, attributes(message)))
        except (UnicodeEncodeError, AttributeError, TypeError, ValueError) as error:
            raise EncodeError(f"{message.type}: the envelope cannot be stored: {error}") from error
    return prepared
