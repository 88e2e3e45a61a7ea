"""The projections of one App: declared, made ready when it opens, fed while it runs."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

from eventmill.core.errors import ConfigurationError
from eventmill.patterns.beginning import begin, outdated, sweep
from eventmill.patterns.generations import Ledger, base_of, decoded
from eventmill.patterns.ground import Ground
from eventmill.patterns.projection import Projection
from eventmill.patterns.projector import Projector, consumer_of
from eventmill.patterns.view import View
from eventmill.runtime.consumer import Consumer
from eventmill.runtime.heartbeat import Heartbeat

log = logging.getLogger("eventmill")


class Projections:
    """Those of one App, by name."""

    def __init__(self, ground: Ground) -> None:
        self.ground = ground
        self._declared: dict[str, Projection] = {}
        self._views: dict[str, View] = {}

    def __iter__(self) -> Iterator[Projection]:
        return iter(self._declared.values())

    def __len__(self) -> int:
        return len(self._declared)

    def __getitem__(self, name: str) -> Projection:
        found = self._declared.get(name)
        if found is None:
            there = ", ".join(sorted(self._declared)) or "none"
            raise ConfigurationError(f"{self.ground.app} has no projection {name!r}; there are: {there}")
        return found

    def add(self, projection: Projection) -> None:
        """Raises ConfigurationError where the name, or a table, belongs to another projection."""
        if projection.name in self._declared:
            raise ConfigurationError(f"projection {projection.name!r} is there already: give this one another name")
        for other in self:
            shared = set(projection.tables) & set(other.tables)
            if shared:
                raise ConfigurationError(
                    f"projections {other.name!r} and {projection.name!r} both have a table {min(shared)!r}: "
                    "a table is written by one projection; give one of them another"
                )
        self._declared[projection.name] = projection

    def ledger(self, projection: Projection) -> Ledger:
        return Ledger(self.ground.app, projection.name)

    def owns(self, group: str) -> bool:
        """Whether a group feeds a generation of one of these."""
        return base_of(group) in {self.ledger(each).whole for each in self}

    @property
    def consumers(self) -> Sequence[Consumer]:
        """What they want of the broker. Their groups are those of no generation."""
        return [consumer_of(each, self.ledger(each), None, 0) for each in self]

    def projectors(self, heartbeat: Heartbeat) -> Sequence[Projector]:
        """This process's part in feeding each."""
        return [Projector(each, self.ledger(each), self.ground, heartbeat) for each in self]

    def view(self, name: str) -> View:
        """Raises ConfigurationError for a name that is not declared."""
        declared = self[name]
        view = self._views.get(name)
        if view is None:
            view = self._views[name] = View(declared, self.ledger(declared), self.ground)
        return view

    async def close(self) -> None:
        """Before the store closes."""
        for view in self._views.values():
            await view.close()

    async def prepare(self) -> None:
        """Make the first generation of those that have none; say which were made by another definition."""
        for projection in self:
            ledger = self.ledger(projection)
            state, _ = decoded(await self.ground.store.document(ledger.key))
            if state is None:
                state = await begin(projection, ledger, self.ground)
            else:
                await sweep(ledger, self.ground, state)
            if state.shown.fingerprint != projection.fingerprint:
                log.warning("%s", outdated(projection, state))
