"""The projections of one App: declared, made ready when it opens, fed while it runs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence

from eventmill.core.errors import ConfigurationError
from eventmill.core.registry import Registry
from eventmill.core.retry import RetryPolicy
from eventmill.patterns.projection.beginning import begin, outdated, sweep
from eventmill.patterns.projection.definition import BATCH, Class, Projection, projection
from eventmill.patterns.projection.generations import Ledger, base_of, decoded
from eventmill.patterns.projection.ground import Ground
from eventmill.patterns.projection.projector import Projector, consumer_of
from eventmill.patterns.projection.view import View
from eventmill.runtime.consumer import Consumer
from eventmill.runtime.heartbeat import Heartbeat

log = logging.getLogger("eventmill")


class Projections:
    """Those of one App, by name."""

    def __init__(self, ground: Ground, registry: Registry) -> None:
        self.ground = ground
        self._registry = registry
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

    def declare(
        self,
        name: str,
        *,
        tables: Sequence[str],
        version: int | str = 1,
        batch: int = BATCH,
        retry: RetryPolicy | None = None,
        partial: bool = False,
    ) -> Callable[[Class], Class]:
        """Fold events into tables of their own: the decorated class has methods marked `@on(...)`, and `create(tx)`.

        tables: their plain names, which are what readers use; in the class's SQL they are written `{name}`.
        version: of the class's code: another one says that the rows would be others, and that a rebuild is needed.
        batch: events in one commit, at most. retry: as for `on`; a dead letter's key waits, others go on.
        partial: build it of what is left, where the oldest messages were trimmed, rather than refuse to.
        """

        def register(cls: Class) -> Class:
            self.add(
                projection(
                    cls, name, tables=tables, registry=self._registry, version=version, batch=batch, retry=retry,
                    partial=partial,
                )
            )  # fmt: skip
            return cls

        return register

    def add(self, added: Projection) -> None:
        """Raises ConfigurationError where the name, or a table, belongs to another projection."""
        if added.name in self._declared:
            raise ConfigurationError(f"projection {added.name!r} is there already: give this one another name")
        for other in self:
            shared = set(added.tables) & set(other.tables)
            if shared:
                raise ConfigurationError(
                    f"projections {other.name!r} and {added.name!r} both have a table {min(shared)!r}: "
                    "a table is written by one projection; give one of them another"
                )
        self._declared[added.name] = added

    def ledger(self, projection: Projection) -> Ledger:
        return Ledger(self.ground.app, projection.name)

    def owns(self, group: str) -> bool:
        """Whether a group feeds a generation of one of these."""
        return base_of(group) in {self.ledger(each).whole for each in self}

    @property
    def consumers(self) -> Sequence[Consumer]:
        """What they want of the broker. Their groups are those of no generation."""
        return [consumer_of(each, self.ledger(each), None, 0, own=not self.ground.relayed) for each in self]

    def projectors(self, heartbeat: Heartbeat) -> Sequence[Projector]:
        """This process's part in feeding each."""
        return [Projector(each, self.ledger(each), self.ground, heartbeat) for each in self]

    def view(self, name: str) -> View:
        """What a projection has made: how far it is, waiting for it, building it anew.

        Raises ConfigurationError for a name that is not declared.
        """
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
        for each in self:
            ledger = self.ledger(each)
            state, _ = decoded(await self.ground.store.document(ledger.key))
            if state is None:
                state = await begin(each, ledger, self.ground)
            else:
                await sweep(ledger, self.ground, state)
            if state.shown.fingerprint != each.fingerprint:
                log.warning("%s", outdated(each, state))
