"""One at a time of what is the same: a document holds the place of a unique call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Literal

from eventmill.core.capabilities import Transaction
from eventmill.core.codec import write_json
from eventmill.core.document import ABSENT
from eventmill.core.errors import ConfigurationError, DuplicateTaskError

LONGEST = 120
"""Characters of a key as it is; a longer one is hashed."""


@dataclass(frozen=True, slots=True)
class Unique:
    """Which calls of a task count as the same, and until when.

    by: names of arguments, or of one; None for all of them. until: the place is free again when the call is `done` (or dead, or
    cancelled), or as soon as it has `begun`, so that one more may wait while it runs.
    repeat: what becomes of a second call: the `existing` one stands for it, or it is refused with DuplicateTaskError.
    """

    by: str | Sequence[str] | None = None
    until: Literal["done", "begun"] = "done"
    repeat: Literal["existing", "refuse"] = "existing"

    def check(self, name: str, arguments: Sequence[str]) -> None:
        """Refuse what this task cannot keep."""
        if self.until not in ("done", "begun"):
            raise ConfigurationError(f"task {name}: until={self.until!r}; choose 'done' or 'begun'")
        if self.repeat not in ("existing", "refuse"):
            raise ConfigurationError(f"task {name}: repeat={self.repeat!r}; choose 'existing' or 'refuse'")
        for argument in self.names or ():
            if argument not in arguments:
                there = ", ".join(arguments) or "none"
                raise ConfigurationError(
                    f"task {name}: unique by {argument!r}, which is no argument; there are: {there}"
                )

    @property
    def names(self) -> Sequence[str] | None:
        """The arguments it goes by; None for all."""
        return (self.by,) if isinstance(self.by, str) else self.by

    def key(self, name: str, arguments: Sequence[str], given: object) -> str:
        """The place of a call. given: an object with its arguments as attributes."""
        values = [getattr(given, argument) for argument in self.names or arguments]
        text = write_json(values).decode()
        if len(text) > LONGEST or "/" in text:
            text = sha256(text.encode()).hexdigest()
        return f"{name}/{text}"


def place_key(prefix: str, key: str) -> str:
    return f"{prefix}unique/{key}"


async def reserve(unit: Transaction, prefix: str, key: str, identity: str, unique: Unique) -> str | None:
    """Take the place for a call in this unit; returns the id of the one that has it, if one does.

    Raises DuplicateTaskError where the task is declared so.
    """
    place = place_key(prefix, key)
    found = await unit.get(place)
    if found is None:
        unit.put(place, identity.encode(), expected=ABSENT)
        return None
    existing = found.data.decode()
    if unique.repeat == "refuse":
        raise DuplicateTaskError(f"task {key} is there already, with the id {existing}", existing)
    return existing


async def vacate(unit: Transaction, prefix: str, key: str, identity: str) -> None:
    """Free the place, unless it is another's by now."""
    place = place_key(prefix, key)
    found = await unit.get(place)
    if found is not None and found.data.decode() == identity:
        unit.put(place, None, expected=found.version)


def unique_of(given: Unique | bool | str | Sequence[str] | None) -> Unique | None:
    """What `unique=` of a task means."""
    if given is None or given is False:
        return None
    if given is True:
        return Unique()
    if isinstance(given, Unique):
        return given
    if not isinstance(given, str | list | tuple):
        raise ConfigurationError(f"unique={given!r}; give True, names of arguments, or Unique(…)")
    return Unique(given)
