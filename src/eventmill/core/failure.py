"""What an exception says, in words that can be stored: whatever its author has made of it."""

from __future__ import annotations

import traceback


def told(error: BaseException) -> str:
    """Its class and its text. Never raises, though the exception's own `__str__` may."""
    try:
        text = str(error)
    except Exception as flaw:
        text = f"its text cannot be told: {type(flaw).__name__} in its __str__"
    return storable(f"{type(error).__name__}: {text}")


def trace_of(error: BaseException) -> str:
    """Its traceback, with those of its causes."""
    try:
        return storable("".join(traceback.format_exception(error)))
    except Exception as flaw:
        return f"the traceback cannot be told: {type(flaw).__name__}"


def storable(text: object) -> str:
    """The text without what UTF-8 or a database does not hold: lone surrogates and NUL are written as escapes."""
    return str(text).encode("utf-8", "backslashreplace").decode().replace("\x00", "\\x00")
