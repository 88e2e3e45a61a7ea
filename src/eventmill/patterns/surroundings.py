"""What a pattern that works over a long time needs of its service."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from eventmill.core.capabilities import Store
from eventmill.core.clock import Clock
from eventmill.core.envelope import Envelopes
from eventmill.core.registry import Registry
from eventmill.runtime.consumer import Consumer


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The service that a saga or an aggregator belongs to.

    declare: makes a consumer known, in the place of a former one of its group. ids: new identifiers.
    """

    name: str
    store: Store
    clock: Clock
    rng: random.Random
    registry: Registry
    declare: Callable[[Consumer], None]
    ids: Callable[[], str]
    envelopes: Envelopes

    def now(self) -> int:
        """Milliseconds since 1970 UTC."""
        return int(self.clock.now() * 1000)


class LongRunning(Protocol):
    """What lives longer than the handling of one message."""

    async def check(self) -> None:
        """Raise ConfigurationError where what is stored does not fit what is declared. Called when the App opens."""
        ...

    async def tidy(self) -> None:
        """Remove what is over, by its stated retention. Called now and then, by any number of processes at once."""
        ...
