"""All versions of one saga: the group that handles its messages, and what becomes of its instances."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from eventmill.core.checks import check_number
from eventmill.core.errors import ConfigurationError
from eventmill.core.key import Key
from eventmill.core.message import Message
from eventmill.core.names import check_name
from eventmill.core.outcome import Outcome
from eventmill.core.retry import RetryPolicy, exponential
from eventmill.patterns.consumers import consumer
from eventmill.patterns.saga import records
from eventmill.patterns.saga.definition import Saga
from eventmill.patterns.saga.driver import Driver, UnusableEventError
from eventmill.patterns.saga.instance import Instance
from eventmill.patterns.saga.operate import Action
from eventmill.patterns.saga.versions import reconcile
from eventmill.patterns.surroundings import Surroundings
from eventmill.runtime.handler import Context
from eventmill.runtime.stages import Stages

PATIENCE = RetryPolicy(
    attempts=100_000,
    delays=(0.05, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0),
    by_error={UnusableEventError: exponential(0.5, attempts=8)},
)
"""For what is no failure of a step: an instance that others change, a definition that is not here. Not for an event that
no instance can be found or begun by: that is a dead letter soon."""


class Sagas:
    """One saga of a service, in all the versions that are declared."""

    def __init__(self, name: str, where: Surroundings, *, retention: float, concurrency: int) -> None:
        self.name = f"{where.name}.{check_name(name, 'saga')}"
        self.retention = retention
        self._concurrency = concurrency
        self._where = where
        self._versions: dict[int, Saga] = {}

    def version(
        self,
        version: int,
        *,
        key: Key,
        starts_on: type,
        state: type | None,
        begin: Callable[[Any], Any] | None,
        deadline: float | None,
        migrate: Mapping[int, Mapping[str, str]],
    ) -> Saga:
        """Declare a version."""
        check_number(version, f"saga {self.name!r}", "version")
        for old, renamed in migrate.items():
            check_number(old, f"saga {self.name!r}", "migrate: version")
            if not isinstance(renamed, Mapping):
                raise ConfigurationError(
                    f"saga {self.name!r}: migrate={{{old}: {renamed!r}}}; give {{old_name: new_name}}"
                )
        if version in self._versions:
            raise ConfigurationError(f"saga {self.name!r}: version={version}: give each version a number of its own")
        made = Saga(
            self.name, key=key, starts_on=starts_on, registry=self._where.registry, version=version, state=state,
            begin=begin, deadline=deadline, migrate=migrate, changed=self._declare,
        )  # fmt: skip
        self._versions[version] = made
        return made

    @property
    def newest(self) -> Saga:
        """The version that new instances are of."""
        return self._versions[max(self._versions)]

    def _declare(self) -> None:
        versions = {saga.shape.digest: saga for saga in self._versions.values()}
        driver = Driver(versions, self.newest, self.name, self._where)

        async def handle(message: Message, stages: Stages, context: Context) -> Outcome | None:
            return await driver.handle(message, stages, context)

        handle.__qualname__ = f"saga {self.name}"
        wanted = {saga.starts_on.cls for saga in versions.values()}
        wanted |= {kind.cls for saga in versions.values() for kind in saga.answers.values()}
        self._where.declare(
            consumer(
                handle, tuple(wanted), registry=self._where.registry, group=self.name, retry=PATIENCE,
                concurrency=self._concurrency,
            )
        )  # fmt: skip

    # Living on

    async def check(self) -> None:
        """Refuse to start over instances in flight of a definition that is not declared, naming them."""
        if any(not saga.steps for saga in self._versions.values()):
            raise ConfigurationError(f"saga {self.name!r} has no steps: declare some with @saga.step()")
        await reconcile(self._where.store, self.name, list(self._versions.values()), self._where.now())

    async def tidy(self) -> None:
        """Remove instances that ended longer than the retention ago."""
        before = self._where.now() - int(self.retention * 1000)
        await records.prune(self._where.store, self.name, before)

    # For programs

    async def show(self, key: str) -> Instance | None:
        """The instance of a key, with its history."""
        found = await records.load(self._where.store, self.name, key)
        return None if found is None else found[0]

    def instances(self, *, state: str | None = None) -> AsyncIterator[Instance]:
        """All instances that are kept, by their keys."""
        return records.instances(self._where.store, self.name, state=state)

    async def operate(self, action: Action, key: str, *, by: str, why: str = "", outcome: str = "done") -> Instance:
        """`retry`, `skip`, `resolve`, `resume` or `cancel` an instance; see `operate`. Its history says who and why.

        Raises ConfigurationError where there is no such instance, or where it cannot be.
        """
        return await records.operate(
            self._where.store, self.name, key, action, now=self._where.now(), id_=self._where.ids(),
            by=by, why=why, outcome=outcome,
        )  # fmt: skip

    async def cancel(self, key: str, *, by: str, why: str) -> Instance:
        """Undo everything the instance has done. Refused past its point of no return."""
        return await self.operate("cancel", key, by=by, why=why)
