"""The App: what a service handles, where it keeps its truth, how it talks to others."""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from itertools import count
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, cast

from eventmill.backends.connect import (
    BrokerBackend,
    StoreBackend,
    as_store,
    connect,
    connect_source,
    connect_store,
    database_of,
)
from eventmill.core.capabilities import Log
from eventmill.core.clock import Clock, Ids, SystemClock
from eventmill.core.envelope import Envelopes
from eventmill.core.errors import ConfigurationError
from eventmill.core.limits import Limits as MessageLimits
from eventmill.core.message import Message
from eventmill.core.registry import REGISTRY, Registry
from eventmill.core.retry import RetryPolicy
from eventmill.patterns.cdc.captures import Captures
from eventmill.patterns.cdc.capturing import Capturing
from eventmill.patterns.consumers import check_needs, consumer, with_parentheses
from eventmill.patterns.inbox import remedy, short_inboxes
from eventmill.patterns.long_running import LongRunningPatterns
from eventmill.patterns.privacy.vault import Vault
from eventmill.patterns.projection.ground import Ground
from eventmill.patterns.projection.projections import Projections
from eventmill.patterns.projection.projector import Projector
from eventmill.patterns.recording import recorder
from eventmill.patterns.relay import relay
from eventmill.patterns.retention import Housekeeping
from eventmill.patterns.sourcing.sourced import EventSourcing
from eventmill.patterns.surroundings import Surroundings
from eventmill.patterns.tasks.tasks import Tasks
from eventmill.patterns.topics import admit, declare
from eventmill.runtime.consumer import Consumer
from eventmill.runtime.heartbeat import Heartbeat
from eventmill.runtime.in_flight import Limits
from eventmill.runtime.resequencing import ResequencePolicy
from eventmill.runtime.scope import Scope
from eventmill.runtime.settlement import Settlement
from eventmill.runtime.subscription import Subscription
from eventmill.runtime.together import run_together
from eventmill.runtime.transaction import Transaction, current
from eventmill.runtime.worker import Worker
from eventmill.settings import Settings

log = logging.getLogger("eventmill")

Function = TypeVar("Function", bound=Callable[..., Any])
Setup = Callable[[Transaction], Awaitable[None]]


class App(EventSourcing):
    """A service: its store, its broker, its handlers.

    url: the store, the service's own database: `sqlite:///orders.db`, `postgresql://…`, or `memory://`.
    broker: where messages to and from other services go; without one, the store's own log is the broker.
    name: the service's name: the `source` of its messages, and the first part of its groups' names.
    topics: partition counts of topics that shall not have the default of 16.
    retention: seconds to keep a topic's messages for; topics not named are kept for ever.

    The App opens with `async with app`, or by itself at the first use; `close` it then.
    """

    def __init__(
        self,
        url: str,
        *,
        broker: str | None = None,
        name: str = "app",
        settings: Settings | None = None,
        topics: dict[str, int] | None = None,
        retention: dict[str, float] | None = None,
        clock: Clock | None = None,
        rng: random.Random | None = None,
        registry: Registry = REGISTRY,
    ) -> None:
        if not name or not name.isprintable() or " " in name:
            raise ConfigurationError(f"name={name!r}: give the service a short name without spaces")
        super().__init__()
        self.name = name
        self.settings = settings or Settings()
        self.clock: Clock = clock or SystemClock()
        self.registry = registry
        self.url = url
        self.broker_url = None if broker == url else broker
        self.store: StoreBackend = connect_store(url, self.clock)
        self.broker: BrokerBackend = self.store if self.broker_url is None else connect(self.broker_url, self.clock)
        self.consumers: list[Consumer] = []
        self.ids = Ids(self.clock, rng)
        self._rng = rng or random.Random()  # noqa: S311 - jitter, not secrecy
        self._topics = dict(topics or {})
        self._retention = dict(retention or {})
        self._setups: list[Setup] = []
        self._limits = MessageLimits(max_bytes=self.settings.max_bytes, max_depth=self.settings.max_depth)
        self._vault = Vault(self.store, self.clock, registry)
        self._envelopes = Envelopes(name, self.clock, self.ids, registry, self._limits, self._vault)
        self.projections = Projections(
            Ground(name, self.store, self.store, self._projected_log, self._envelopes, self.clock,
                   self.settings, self._subscription, self.open),
            registry,
        )  # fmt: skip
        self.tasks = Tasks(
            name, self.store, envelopes=self._envelopes, clock=self.clock, ids=self.ids, rng=self._rng,
            lease=self.settings.lease, dead_retention=self.settings.dead_retention, opened=self.open, consumers=self.consumers,
        )  # fmt: skip
        self.task = self.tasks.task
        self.schedule, self.send = self.tasks.schedule, self.tasks.send
        self.projection, self.view = self.projections.declare, self.projections.view
        self._opened = False
        self._opening: asyncio.Lock | None = None
        self._subscriptions: list[Subscription | Projector | Worker | Capturing] = []
        self._incarnation: str | None = None
        self._recording = False
        self._members = count(1)
        surroundings = Surroundings(
            name, self.store, self.clock, self._rng, registry, self._replace, self.ids, self._envelopes
        )
        self.captures = Captures(
            surroundings, connect=lambda url: connect_source(url, self.clock), database_of=database_of, register=self.on,
            topics=self._topics, lease=self.settings.lease,
        )  # fmt: skip
        self.capture = self.captures.declare
        self.debezium = self.captures.debezium
        self.captured = self.captures.captured
        self._long_running = LongRunningPatterns(surroundings)
        self.saga, self.sagas = self._long_running.saga, self._long_running.sagas
        self.choreography = self._long_running.choreography
        self.choreographies = self._long_running.choreographies
        self.aggregator, self.aggregations = self._long_running.aggregator, self._long_running.aggregations
        self._stopped = asyncio.Event()

    def __repr__(self) -> str:
        where = repr(self.store) if self.broker is self.store else f"{self.store!r}, broker={self.broker!r}"
        return f"App({self.name!r}, {where})"

    # Declaring

    def on(
        self,
        *wanted: type | str,
        group: str | None = None,
        where: Callable[[Message], bool] | None = None,
        retry: RetryPolicy | None = None,
        concurrency: int = 8,
        batch: int | None = None,
        on_dead: Literal["park", "skip"] = "park",
        timeout: float | None = None,
        resequence: ResequencePolicy | None = None,
        replay: bool = False,
    ) -> Callable[[Function], Function]:
        """Handle messages: the decorated function becomes a consumer group.

        wanted: event types, names, or patterns (`order.*`, `*`); without any, the function's annotation says it.
        group: members of one group share the work, in any number of tasks and processes; each group
        gets every message. The default is the App's name and the function's.
        where: a predicate on the envelope; what it declines is not handed out.
        retry: when a failing message is tried again, and when it is given up; see `eventmill.retry`.
        concurrency: how many keys one member handles at a time; a key's messages always come in order.
        batch: hand over lists of up to so many messages, in one transaction.
        on_dead: after a dead letter its key's later messages `park` behind it, in order, until it is
        replayed or skipped; or `skip`: they go on without it.
        timeout: seconds after which a handler is interrupted, which counts as a failure.
        resequence: for foreign sources that deliver out of order; see `ResequencePolicy`.
        replay: the group must begin with the earliest message there is, however late it is added; the App does
        not start on a broker that keeps no log. Without it, a new group on a queue gets what comes after it.
        """

        with_parentheses("on", *wanted)

        def register(function: Function) -> Function:
            name = group or f"{self.name}.{function.__name__}"
            if any(existing.group == name for existing in self.consumers):
                raise ConfigurationError(f"group {name!r} is there already: give this handler another name, or group=")
            made = consumer(
                function, wanted, registry=self.registry, group=name, where=where, retry=retry,
                concurrency=concurrency, batch=batch, on_dead=on_dead, timeout=timeout,
                resequence=resequence, replay=replay,
            )  # fmt: skip
            self.consumers.append(made)
            return function

        return register

    def _replace(self, made: Consumer) -> None:
        """Take a consumer, in the place of a former one of its group."""
        self.consumers = [*(each for each in self.consumers if each.group != made.group), made]

    def record(self, *wanted: type | str) -> None:
        """Keep what other services publish of these types in this service's own log; projections then read that log.

        wanted: event types, names, or patterns (`order.*`, `*`). Whatever the broker is and however long it keeps
        anything, a projection can then be built anew. Without a broker there is nothing to do: the log is one's own.
        """
        if self.broker is not self.store:
            self._replace(recorder(self.name, wanted, self.registry))
            self._recording = True

    def _projected_log(self) -> Log:
        return self.store if self._recording else cast(Log, self.broker)

    def setup(self, function: Setup) -> Setup:
        """Run `async def function(tx)` in one transaction whenever the App opens: CREATE TABLE IF NOT EXISTS …"""
        if not asyncio.iscoroutinefunction(function):
            raise ConfigurationError(f"{function.__qualname__}: write `async def {function.__name__}(tx)`")
        self._setups.append(function)
        return function

    # Opening

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def open(self) -> None:
        """Open store and broker, create what is missing, run the setups. Opening twice does nothing."""
        if self._opened:
            return
        if self._opening is None:
            self._opening = asyncio.Lock()
        async with self._opening:
            if self._opened:
                return
            check_needs([*self.consumers, *self.projections.consumers], self.broker.offers, repr(self.broker))
            await self.store.__aenter__()
            try:
                if self.broker is not self.store:
                    await self.broker.__aenter__()
                try:
                    await self._declare()
                    for setup in self._setups:
                        async with Scope(self.store.unit, self._envelopes) as tx:
                            await setup(tx)
                    await self.projections.prepare()
                    await self._long_running.check()
                except BaseException:
                    if self.broker is not self.store:
                        await self.broker.__aexit__(None, None, None)
                    raise
            except BaseException:
                await self.store.__aexit__(None, None, None)
                raise
            self._opened = True

    async def _declare(self) -> None:
        for place in {id(self.store): self.store, id(self.broker): self.broker}.values():
            await declare(place, self._topics, [*self.consumers, *self.projections.consumers])
        await admit(self.broker, self.consumers)
        if self.broker is not self.store:
            for problem in await short_inboxes(self.broker, self.consumers, self.settings.inbox_retention):
                log.warning("%r: %s; %s", self.broker, problem, remedy())

    async def close(self) -> None:
        """Close store and broker; staged messages are committed first."""
        if self._opened:
            self._opened = False
            await self.projections.close()
            if self.broker is not self.store:
                await self.broker.__aexit__(None, None, None)
            await self.store.__aexit__(None, None, None)

    # Producing

    async def publish(self, *events: object) -> Sequence[int]:
        """Publish events; returns their positions in the service's log when they are durable.

        All or none of one call is stored. Inside a handler, or inside `async with app.transaction()`,
        they join that transaction instead, leave only if it commits, and no positions are known yet.
        Raises MessageTooLargeError, EncodeError and UnknownEventError before anything is stored.
        """
        transaction = current.get()
        if transaction is not None and transaction.open and transaction.belongs_to(self._envelopes):
            transaction.publish(*events)
            return ()
        if not self._opened:
            await self.open()
        envelopes = self._envelopes
        messages = [envelopes(event, unsealed=True) for event in events]
        if envelopes.personal(messages):
            messages = await self._vault.seal(messages, None)
        return await self.store.publish(messages)

    def transaction(self) -> AbstractAsyncContextManager[Transaction]:
        """One transaction of your own SQL and the messages that leave only if it commits.

        Inside a handler it is the handler's own transaction.
        """
        return Scope(self.store.unit, self._envelopes, None if self._opened else self.open)

    # Consuming

    async def run(self, *, handle: bool = True) -> None:
        """Handle messages until `stop` is called; then finish what was begun and give the leases back.

        handle: False only captures, and relays to the broker.
        """
        await self.open()
        self._incarnation = os.environ.get("EVENTMILL_INCARNATION") or self.ids()
        settings = self.settings
        heartbeat = Heartbeat(self.store, settings.lease)
        trimmed = [self.store] if self.broker is self.store else [self.store, *filter(None, [as_store(self.broker)])]
        housekeeping = Housekeeping(self.store, trimmed, self.clock, settings, self._retention, self._long_running.tidy)
        consumers = list(self.consumers) if handle else []
        if self.broker is not self.store:
            consumers.append(relay(self.broker, self.registry, self.clock))
        self._subscriptions = [self._subscription(each, heartbeat) for each in consumers]
        staff = self.tasks.staff(self._incarnation, heartbeat, self._members)
        if handle:
            self._subscriptions += self.projections.projectors(heartbeat)
            self._subscriptions += staff.workers
            staff.begin()
        self._subscriptions += self.captures.capturings(self._incarnation, heartbeat, self._members)
        try:
            await run_together(self._subscriptions, self._stopped, housekeeping.run())
        finally:
            await staff.end()
            heartbeat.close()
            self._subscriptions = []

    def _subscription(self, each: Consumer, heartbeat: Heartbeat) -> Subscription:
        source = self.store if each.own else self.broker
        if source is not self.store:
            each = replace(each, inbox=True)
        settings = self.settings
        settlement = Settlement(each, self.store, self._envelopes, self.clock, self._rng)
        return Subscription(
            each,
            source=source,
            store=self.store,
            settlement=settlement,
            heartbeat=heartbeat,
            clock=self.clock,
            # A batch is handled while the next one is fetched.
            limits=Limits(
                settings.lease,
                max(settings.prefetch, each.prefetch, 2 * (each.batch or 1)),
                settings.prefetch_bytes,
            ),
            member=f"{self._incarnation or self.ids()}/{self.name}.{next(self._members)}",
        )

    def stop(self) -> None:
        """Let `run` return as soon as what is being handled is finished."""
        self._stopped.set()
        for each in self._subscriptions:
            each.stop()

    @property
    def handled(self) -> int:
        """Messages handled by this process since `run` began."""
        return sum(each.handled for each in self._subscriptions if not isinstance(each, Capturing))
