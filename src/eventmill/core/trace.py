"""W3C trace context: a message published by a handler is a child of the one being handled."""

from __future__ import annotations

import random
import re

_TRACEPARENT = re.compile(r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-([0-9a-f]{2})(-.*)?")
_KNOWN_FLAGS = 0x03  # sampled, and random trace id: the others must be sent as zero


def child_of(traceparent: str, rng: random.Random) -> str | None:
    """The same trace with a fresh span id, or None where the parent's text is not a traceparent.

    The specification tells receivers to ignore an invalid one rather than to fail.
    """
    match = _TRACEPARENT.fullmatch(traceparent)
    if match is None or (match[1] == "00" and match[4] is not None):
        return None
    span = rng.getrandbits(64) or 1
    return f"00-{match[2]}-{span:016x}-{int(match[3], 16) & _KNOWN_FLAGS:02x}"
