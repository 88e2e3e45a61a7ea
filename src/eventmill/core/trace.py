"""W3C trace context: a message published by a handler is a child of the one being handled."""

from __future__ import annotations

import re
from functools import lru_cache
from hashlib import blake2b

_TRACEPARENT = re.compile(r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-([0-9a-f]{2})(-.*)?")
_KNOWN_FLAGS = 0x03  # sampled, and random trace id: the others must be sent as zero


def child_of(traceparent: str, identity: str) -> str | None:
    """The same trace with a fresh span id, or None where the parent's text is not a traceparent.

    The span id follows from the child's identity, so it is as unique as that. The specification
    tells receivers to ignore an invalid parent rather than to fail.
    """
    kept = _kept(traceparent)
    return None if kept is None else f"{kept[0]}{blake2b(identity.encode(), digest_size=8).hexdigest()}{kept[1]}"


@lru_cache(maxsize=1024)
def _kept(traceparent: str) -> tuple[str, str] | None:
    """What a child has in common with its parent: all before the span id, and all after it."""
    match = _TRACEPARENT.fullmatch(traceparent)
    if match is None or (match[1] == "00" and match[4] is not None):
        return None
    return f"00-{match[2]}-", f"-{int(match[3], 16) & _KNOWN_FLAGS:02x}"
