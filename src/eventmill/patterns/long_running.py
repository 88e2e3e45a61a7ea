"""The patterns of a service that live longer than the handling of one message: how an App declares and keeps them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from eventmill.core.errors import ConfigurationError
from eventmill.core.key import Key
from eventmill.patterns.saga.definition import Saga
from eventmill.patterns.saga.family import Sagas
from eventmill.patterns.surroundings import LongRunning, Surroundings

MONTH = 30 * 86_400.0


class LongRunningPatterns:
    """What of them is declared. The App offers `saga` and the others under these names."""

    def __init__(self, where: Surroundings) -> None:
        self._where = where
        self._families: dict[str, Sagas] = {}
        self._all: list[LongRunning] = []

    def saga(
        self,
        name: str,
        *,
        key: Key,
        starts_on: type,
        version: int = 1,
        state: type | None = None,
        begin: Callable[[Any], Any] | None = None,
        deadline: float | None = None,
        migrate: Mapping[int, Mapping[str, str]] | None = None,
        retention: float = MONTH,
        concurrency: int = 64,
    ) -> Saga:
        """Declare a saga: an instance begins with each event `starts_on`; `@saga.step(...)` adds its steps.

        key: a field of every event of the saga, or a function of them: which instance an event is of.
        version: another number for each change of the steps; instances go on by the version they were begun with, as
        long as it is declared beside the newer one.
        migrate: versions whose instances this one takes over, each with the steps that have new names: {1: {"old": "new"}}.
        state, begin: a class of the saga's own state, and what makes the first one of the event; without them steps are
        handed the event that started the saga.
        deadline: seconds from the start to the point of no return; past them everything is undone.
        retention: seconds that an ended instance is kept, with its history.
        concurrency: how many instances one worker drives at a time.

        Raises ConfigurationError for what could not be kept.
        """
        family = self._families.get(name)
        if family is None:
            if not retention > 0:
                raise ConfigurationError(f"saga {name!r}: retention={retention}; give seconds above 0")
            family = Sagas(name, self._where, retention=retention, concurrency=concurrency)
            self._families[name] = family
            self._all.append(family)
        if deadline is not None and not deadline > 0:
            raise ConfigurationError(f"saga {name!r}: deadline={deadline}; give seconds above 0")
        return family.version(
            version, key=key, starts_on=starts_on, state=state, begin=begin, deadline=deadline, migrate=migrate or {}
        )

    def sagas(self, name: str) -> Sagas:
        """The instances of a declared saga: to look at, cancel, and help on."""
        try:
            return self._families[name]
        except KeyError:
            there = ", ".join(sorted(self._families)) or "none"
            raise ConfigurationError(f"there is no saga {name!r}; there are: {there}") from None

    async def check(self) -> None:
        """See whether what is stored fits what is declared."""
        for each in self._all:
            await each.check()

    async def tidy(self) -> None:
        """Remove what is over."""
        for each in self._all:
            await each.tidy()
