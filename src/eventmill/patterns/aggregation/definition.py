"""`app.aggregator`: how an aggregator is declared."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from eventmill.core.checks import check_number, check_seconds
from eventmill.core.errors import ConfigurationError
from eventmill.core.key import Key
from eventmill.core.message import Message
from eventmill.core.names import check_name
from eventmill.core.outcome import Outcome
from eventmill.core.window import Fixed, Window
from eventmill.patterns.aggregation import groups
from eventmill.patterns.aggregation.aggregator import Aggregator, Incomplete
from eventmill.patterns.aggregation.collect import Late, Rules
from eventmill.patterns.aggregation.collected import Collected
from eventmill.patterns.aggregation.record import Group, Record
from eventmill.patterns.consumers import consumer
from eventmill.patterns.surroundings import Surroundings
from eventmill.runtime.handler import Context
from eventmill.runtime.transaction import Transaction

F = TypeVar("F", bound=Callable[..., Any])

BATCH = 4_096
"""Events in one transaction at most: the larger, the fewer times is a page of the table written."""


@dataclass(frozen=True, slots=True)
class Options:
    """What `app.aggregator` was given. Times in seconds."""

    key: Key
    events: Sequence[type]
    all_of: Sequence[type]
    count: int | None
    until: Callable[[Collected], bool] | None
    window: Window | None
    time: Literal["event", "processing"] | None
    grace: float
    idle: float | None
    timeout: float | None
    incomplete: Incomplete
    late: Late | None
    limit: int
    retention: float


class Aggregations:
    """The groups of one aggregator: to look at, and to close."""

    def __init__(self, name: str, where: Surroundings, options: Options) -> None:
        self.name = f"{where.name}.{check_name(name, 'aggregator')}"
        self._where = where
        self._options = options
        self._rules = self._checked(options)
        self._declared = False

    def __call__(self, function: F) -> F:
        """Take the function that makes the coarse event of what was collected."""
        if not callable(function):
            raise ConfigurationError(f"aggregator {self.name!r}: {function!r} is no function")
        if inspect.iscoroutinefunction(function):
            raise ConfigurationError(
                f"aggregator {self.name!r}: {function.__qualname__} must be a plain `def` that makes an event of what was "
                "collected; what else is to be done, do in a handler of that event"
            )
        if self._declared:
            raise ConfigurationError(f"aggregator {self.name!r} has its function already")
        self._declared = True
        options, registry = self._options, self._where.registry
        kinds = [registry.type_for(each) for each in dict.fromkeys((*options.all_of, *options.events))]
        aggregator = Aggregator(
            self.name, self._where, key=options.key, kinds=kinds, rules=self._rules, build=function,
            incomplete=options.incomplete,
        )  # fmt: skip

        async def collect(messages: list[Message], tx: Transaction, context: Context) -> Outcome | None:
            return await aggregator.handle(messages, tx, context)

        collect.__qualname__ = f"aggregator {self.name}"
        self._where.declare(
            consumer(
                collect, [kind.cls for kind in kinds], registry=registry, group=self.name, concurrency=1, batch=BATCH,
                prefetch=2 * BATCH, on_dead="skip" if self._rules.late == "refuse" else "park",
            )
        )  # fmt: skip
        return function

    def _checked(self, options: Options) -> Rules:
        where = f"aggregator {self.name!r}"
        for which in (options.all_of, options.events):
            if isinstance(which, type):
                raise ConfigurationError(f"{where}: give a list of event types: [{which.__name__}]")
        if not options.all_of and not options.events:
            raise ConfigurationError(f"{where}: say which events it collects: all_of=[…], or events=[…]")
        content = bool(options.all_of) or options.count is not None or options.until is not None
        if not content and options.window is None and options.idle is None:
            raise ConfigurationError(
                f"{where}: say when a group is complete: all_of=, count=, until=, window= or idle="
            )
        if options.window is not None and options.time is None:
            raise ConfigurationError(
                f"{where}: say time='event' (when it happened) or time='processing' (when it is handled) for the window"
            )
        if options.window is None and (options.time is not None or options.grace):
            raise ConfigurationError(f"{where}: time= and grace= are for window=")
        for what, number in (("count", options.count), ("limit", options.limit)):
            if number is not None:
                check_number(number, where, what)
        if options.window is not None and not isinstance(options.window, Window):
            raise ConfigurationError(
                f"{where}: window={options.window!r}; give tumbling(60), sliding(60, every=10) or session(30)"
            )
        if options.time not in (None, "event", "processing"):
            raise ConfigurationError(f"{where}: time={options.time!r}; choose 'event' or 'processing'")
        if options.grace and options.time == "processing":
            raise ConfigurationError(f"{where}: grace= waits for what comes out of order in event time; leave it out")
        for asked in (options.until, options.incomplete):
            if inspect.iscoroutinefunction(asked):
                raise ConfigurationError(f"{where}: {asked.__qualname__} must be a plain `def`")
        if options.until is not None and not callable(options.until):
            raise ConfigurationError(f"{where}: until={options.until!r}; give a function of what was collected")
        if options.count is not None and options.count > options.limit:
            raise ConfigurationError(f"{where}: count={options.count} is above limit={options.limit}: raise the limit")
        for what, seconds in (
            ("idle", options.idle), ("timeout", options.timeout), ("retention", options.retention),
        ):  # fmt: skip
            if seconds is not None:
                check_seconds(seconds, where, what)
        check_seconds(options.grace, where, "grace", zero=True)
        if options.incomplete not in ("partial", "nothing") and not callable(options.incomplete):
            raise ConfigurationError(f"{where}: incomplete={options.incomplete!r}; 'partial', 'nothing' or a function")
        late = options.late or ("side" if options.all_of or options.time == "event" else "new")
        if late not in ("side", "amend", "new", "refuse"):
            raise ConfigurationError(f"{where}: late={late!r}; choose 'side', 'amend', 'new' or 'refuse'")
        if late == "amend" and isinstance(options.window, Fixed) and options.window.every < options.window.size:
            raise ConfigurationError(
                f"{where}: late='amend' with sliding windows would amend several at once; use 'side'"
            )
        registry = self._where.registry
        return Rules(
            all_of=frozenset(registry.type_for(each).name for each in options.all_of),
            count=options.count,
            until=None if options.until is None else self._asks(options.until),
            window=options.window,
            time=options.time or "processing",
            grace=round(options.grace * 1000),
            idle=None if options.idle is None else round(options.idle * 1000),
            timeout=None if options.timeout is None else round(options.timeout * 1000),
            late=late,
            limit=options.limit,
        )

    def _asks(self, until: Callable[[Collected], bool]) -> Callable[[Group], bool]:
        registry = self._where.registry

        def asked(group: Group) -> bool:
            ordered = sorted(group.events, key=lambda event: (event.time, event.source, event.id))
            seen = Group(group.epoch, group.opened, group.last, group.start, group.end, ordered)
            return bool(until(Collected("", seen, registry, complete=False, reason=None)))

        return asked

    # Living on

    async def check(self) -> None:
        """Make it known to the store, for whoever looks there."""
        if not self._declared:
            raise ConfigurationError(f"aggregator {self.name!r} has no function: put @app.aggregator(…) above one")
        await groups.define(self._where.store, self.name, _words(self._rules))

    async def tidy(self) -> None:
        """Forget groups that were closed longer than the retention ago."""
        before = self._where.now() - int(self._options.retention * 1000)
        await groups.prune(self._where.store, self.name, before)

    # For programs

    def records(self) -> AsyncIterator[tuple[str, Record]]:
        """All keys with their open and closed groups."""
        return groups.records(self._where.store, self.name)

    async def show(self, key: str) -> Record | None:
        """The open and closed groups of a key."""
        return await groups.record(self._where.store, self.name, key)

    async def close(self, key: str, *, by: str, why: str) -> int:
        """Close what is open of a key, as if it were complete; a worker of the aggregator does it. Returns how many."""
        return await groups.close(
            self._where.store, self.name, key, now=self._where.now(), id_=self._where.ids(), by=by, why=why
        )


def _words(rules: Rules) -> str:
    parts = []
    if rules.all_of:
        parts.append(f"all of {', '.join(sorted(rules.all_of))}")
    if rules.count is not None:
        parts.append(f"{rules.count} events")
    if rules.until is not None:
        parts.append("until a condition holds")
    if rules.window is not None:
        parts.append(f"{rules.window} in {rules.time} time")
    if rules.idle is not None:
        parts.append(f"idle for {rules.idle / 1000:g} s")
    if rules.timeout is not None:
        parts.append(f"at the latest after {rules.timeout / 1000:g} s")
    return "; ".join([*parts, f"late: {rules.late}"])
