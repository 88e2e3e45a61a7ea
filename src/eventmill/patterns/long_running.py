"""The patterns of a service that live longer than the handling of one message: how an App declares and keeps them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from eventmill.core.checks import check_seconds
from eventmill.core.errors import ConfigurationError
from eventmill.core.key import Key
from eventmill.core.window import Window
from eventmill.patterns.aggregation.aggregator import Incomplete
from eventmill.patterns.aggregation.collect import Late
from eventmill.patterns.aggregation.collected import Collected
from eventmill.patterns.aggregation.definition import Aggregations, Options
from eventmill.patterns.saga.choreography import Choreography
from eventmill.patterns.saga.definition import Saga
from eventmill.patterns.saga.family import Sagas
from eventmill.patterns.surroundings import LongRunning, Surroundings

MONTH = 30 * 86_400.0


class LongRunningPatterns:
    """What of them is declared. The App offers `saga` and the others under these names."""

    def __init__(self, where: Surroundings) -> None:
        self._where = where
        self._families: dict[str, Sagas] = {}
        self._choreographies: dict[str, Choreography] = {}
        self._aggregations: dict[str, Aggregations] = {}
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
        if name in self._choreographies:
            raise ConfigurationError(f"saga {name!r}: a choreography of this name is there already")
        if family is None:
            check_seconds(retention, f"saga {name!r}", "retention")
            family = Sagas(name, self._where, retention=retention, concurrency=concurrency)
            self._families[name] = family
            self._all.append(family)
        if deadline is not None:
            check_seconds(deadline, f"saga {name!r}", "deadline")
        if migrate is not None and not isinstance(migrate, Mapping):
            raise ConfigurationError(
                f"saga {name!r}: migrate={migrate!r}; give {{old_version: {{old_name: new_name}}}}"
            )
        return family.version(
            version, key=key, starts_on=starts_on, state=state, begin=begin, deadline=deadline, migrate=migrate or {}
        )

    def choreography(
        self,
        name: str,
        *,
        key: Key,
        starts: type | Sequence[type],
        completes: type | Sequence[type],
        fails: type | Sequence[type] = (),
        turns: type | Sequence[type] = (),
        events: type | Sequence[type] = (),
        deadline: float,
        early: float | None = None,
        retention: float = MONTH,
    ) -> Choreography:
        """Declare a saga that nobody directs: services react to each other's events. It is listened to, so that it has
        a history like any other, and that one which is stuck is noticed.

        key: a field of every event, or a function of them. starts: any of these begins it. completes: when all of these
        have come, it is COMPLETED. fails: any of these says that all was undone: COMPENSATED. turns: any of these says
        that it will be: COMPENSATING. events: what else is noted.
        deadline: seconds from its start after which one that has not ended NEEDS_ATTENTION. early: seconds that events
        which come before their saga's start wait for that; the deadline by default.
        retention: seconds that an ended instance is kept, with its history.
        """
        if name in self._families or name in self._choreographies:
            raise ConfigurationError(f"choreography {name!r}: a saga of this name is there already")
        made = Choreography(
            name, self._where, key=key, starts=starts, completes=completes, fails=fails, turns=turns, events=events,
            deadline=deadline, early=early, retention=retention,
        )  # fmt: skip
        self._choreographies[name] = made
        self._all.append(made)
        return made

    def sagas(self, name: str) -> Sagas:
        """The instances of a declared saga: to look at, cancel, and help on."""
        try:
            return self._families[name]
        except KeyError:
            there = ", ".join(sorted(self._families)) or "none"
            raise ConfigurationError(f"there is no saga {name!r}; there are: {there}") from None

    def choreographies(self, name: str) -> Choreography:
        """The instances of a declared choreography."""
        try:
            return self._choreographies[name]
        except KeyError:
            there = ", ".join(sorted(self._choreographies)) or "none"
            raise ConfigurationError(f"there is no choreography {name!r}; there are: {there}") from None

    def aggregator(
        self,
        name: str,
        *,
        key: Key,
        events: Sequence[type] = (),
        all_of: Sequence[type] = (),
        count: int | None = None,
        until: Callable[[Collected], bool] | None = None,
        window: Window | None = None,
        time: Literal["event", "processing"] | None = None,
        grace: float = 0.0,
        idle: float | None = None,
        timeout: float | None = None,
        incomplete: Incomplete = "partial",
        late: Late | None = None,
        limit: int = 10_000,
        retention: float = MONTH,
    ) -> Aggregations:
        """Make one coarse event of many fine ones: decorate the function that makes it, `def build(group: Collected)`.

        key: a field of every event, or a function of them: what belongs together. events: the types that are collected;
        those of all_of are anyway.
        A group is complete when all_of these types have come, at a count, when until(group) is true; at the end of its
        window (`tumbling`, `sliding`, `session`); or when nothing has come for `idle` seconds.
        time: whether windows go by the `event`'s own time, or by that of its `processing`. grace: seconds that a window in
        event time waits for what comes out of order.
        timeout: seconds after its first event at which a group is closed, whatever it lacks. incomplete: what is then
        published (and at the end of a window, or at `limit`, where something is lacking): `partial`, the same function's
        event; `nothing`; or what another function makes of the group.
        late: what becomes of an event whose group is closed: on a `side` stream, type `NAME.late`; `amend`: another coarse
        event, of all together; a `new` group; `refuse`: a dead letter. `side` by default where all_of or event time is
        given, else `new`.
        limit: events in one group at most; then it is closed. retention: seconds that it is remembered which events a
        coarse one was made of; for so long repeats and late events are known.

        The coarse event is published in the commit that closes its group; its id is made of name, key and epoch.
        """
        if name in self._aggregations:
            raise ConfigurationError(f"aggregator {name!r} is there already: give each a name of its own")
        made = Aggregations(
            name, self._where,
            Options(key, events, all_of, count, until, window, time, grace, idle, timeout, incomplete, late, limit, retention),
        )  # fmt: skip
        self._aggregations[name] = made
        self._all.append(made)
        return made

    def aggregations(self, name: str) -> Aggregations:
        """The groups of a declared aggregator: to look at, and to close."""
        try:
            return self._aggregations[name]
        except KeyError:
            there = ", ".join(sorted(self._aggregations)) or "none"
            raise ConfigurationError(f"there is no aggregator {name!r}; there are: {there}") from None

    async def check(self) -> None:
        """See whether what is stored fits what is declared."""
        for each in self._all:
            await each.check()

    async def tidy(self) -> None:
        """Remove what is over."""
        for each in self._all:
            await each.tidy()
