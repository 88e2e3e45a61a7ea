"""What is refused wherever seconds and numbers are given."""

from __future__ import annotations

from datetime import timedelta

from eventmill.core.errors import ConfigurationError

FOREVER = 10.0**10
"""Seconds that nothing reaches: some three hundred years."""


def check_seconds(given: object, where: str, what: str, *, zero: bool = False) -> float:
    """Refuse what is no finite number of seconds above 0, or from 0 on with `zero`. where, what: named in the error."""
    if isinstance(given, timedelta):
        raise ConfigurationError(f"{where}: {what}={given}; give seconds as a number, here {given.total_seconds():g}")
    if isinstance(given, bool) or not isinstance(given, int | float):
        raise ConfigurationError(f"{where}: {what}={given!r}; give seconds as a number")
    if not (0 <= given < FOREVER) or (not zero and given == 0):
        raise ConfigurationError(f"{where}: {what}={given}; give seconds {'from 0 on' if zero else 'above 0'}")
    return float(given)


def check_number(given: object, where: str, what: str, *, least: int = 1, most: int | None = None) -> int:
    """Refuse what is no whole number within bounds."""
    if isinstance(given, bool) or not isinstance(given, int) or given < least or (most is not None and given > most):
        bounds = f"{least} or more" if most is None else f"from {least} to {most:,}"
        raise ConfigurationError(f"{where}: {what}={given!r}; give a whole number, {bounds}")
    return given
