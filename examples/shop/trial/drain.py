"""Waiting until nothing is left to do anywhere, or nothing gets done any more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from eventmill import App
from eventmill.backends.connect import as_log
from eventmill.core.errors import BackendUnavailableError
from eventmill.core.message import Partition
from eventmill.core.reading import Types

from .. import customer, order, orders_view, payment
from ..services import APPS
from . import clerk
from .expectation import (
    CHECKOUT,
    CHECKOUT_TYPES,
    RECORDED,
    RECORDER,
    REGISTRATION,
    REGISTRATION_TYPES,
    SUBSCRIPTIONS,
    TASKS,
)  # fmt: skip
from .sagas import count_open

STALLED = 60.0
"""Seconds without any progress after which the trial gives up waiting."""

RELAY = "relay"
KINDS = {RECORDER: RECORDED, CHECKOUT: CHECKOUT_TYPES, REGISTRATION: REGISTRATION_TYPES, **SUBSCRIPTIONS}
MANY = 1_000
VIEWS = ("customer-orders", "product-sales")


async def left() -> dict[str, int]:
    """How many messages each group still has before it or waits to retry; groups that are done are not listed.

    A group that nobody has joined yet counts as having one.
    """
    found = {}
    for app in APPS:
        groups = {group.name: group for group in await app.store.groups()}
        wanted = [name for name in SUBSCRIPTIONS if name.startswith(f"{app.name}.")]
        if app is orders_view.app:
            wanted.append(RECORDER)
        if app is order.app:
            wanted.append(CHECKOUT)
        if app is customer.app:
            wanted.append(REGISTRATION)
        for name in (RELAY, *wanted):
            group = groups.get(name)
            label = f"{app.name}.{RELAY}" if name == RELAY else name
            if group is None:
                found[label] = 1
                continue
            source = app.store if name == RELAY else app.broker
            kinds = KINDS.get(name, ())
            topics = None if name == RELAY else {kind.partition(".")[0] for kind in kinds}
            beginnings = {
                Partition(topic, number): 0
                for topic, count in (await source.topics()).items()
                if topics is None or topic in topics
                for number in range(count)
            }
            pending = await source.backlog(group.name, {**beginnings, **group.cursors}, group.types)
            # Some of the jobs of a checkout are timers; whether it has ended is asked of itself.
            waiting = pending.messages + (await _retried(CHECKOUT_TYPES) if name == CHECKOUT else group.retrying)
            if waiting:
                found[label] = waiting
    for view in map(orders_view.app.view, VIEWS):
        lag = await view.lag()
        if lag.events or not lag.started:
            found[view.name] = max(1, lag.events)
    for queue in TASKS:
        tasks = await _tasks(queue)
        if tasks:
            found[f"{payment.app.name}/{queue}"] = tasks
    if not found and not await _last_change_seen():
        found["capture"] = 1
    if not found and (open_sagas := await count_open()):
        found["open sagas"] = open_sagas
    if not found and as_log(APPS[0].broker) is None:
        # A queue does not count what its readers have in their hands.
        return await _unhandled()
    return found


async def _retried(kinds: Sequence[str]) -> int:
    """How many events a checkout has yet to hear again, up to MANY."""
    found = await order.app.store.jobs(CHECKOUT, limit=MANY)
    return sum(job.state != "dead" and job.message.type in kinds for job in found)


async def _last_change_seen() -> bool:
    """Whether what the clerk has written last is in the view: a capture tells changes in the order of their commits."""
    table = orders_view.copies.name(orders_view.CONTACT)
    async with orders_view.app.transaction() as tx:
        rows = await tx.execute(f"SELECT name FROM {table} WHERE customer = ?", (clerk.HOUSE[0],))  # noqa: S608
    return rows == [(clerk.LAST,)]


async def _tasks(queue: str) -> int:
    """How many tasks of a queue wait or run, up to MANY."""
    found = await payment.app.store.jobs(payment.app.tasks.store_queue(queue), limit=MANY)
    return sum(job.state != "dead" for job in found)


async def _unhandled() -> dict[str, int]:
    """How many messages of each group's types were published and not handled, by the services' own logs and ledgers."""
    found = {}
    for app in APPS:
        for group, kinds in SUBSCRIPTIONS.items():
            if not group.startswith(f"{app.name}."):
                continue
            types = Types(frozenset(kinds))
            # What the read database has recorded are copies.
            published = sum([await _logged(source, types) for source in APPS if source is not orders_view.app])
            async with app.transaction() as tx:
                [(handled,)] = await tx.execute("SELECT count(*) FROM handled WHERE consumer = ?", (group,))
            if published > handled:
                found[group] = published - handled
    kept = Types(prefixes=frozenset(RECORDED))
    published = sum([await _logged(app, kept) for app in APPS if app is not orders_view.app])
    recorded = await _logged(orders_view.app, kept)
    if published > recorded:
        found[RECORDER] = published - recorded
    return found


async def _logged(app: App, types: Types) -> int:
    """How many messages of these types are in a service's own log."""
    beginnings = {
        Partition(topic, number): 0 for topic, count in (await app.store.topics()).items() for number in range(count)
    }
    return (await app.store.pending(beginnings, types)).messages


async def ends() -> dict[str, dict[Partition, int]]:
    """How far every log has grown."""
    found = {app.name: dict(await app.store.end()) for app in APPS}
    log = as_log(APPS[0].broker)
    if log is not None:
        found["broker"] = dict(await log.end())
    return found


async def drained(seen: Callable[[int], None]) -> dict[str, int]:
    """Return {} once all is done; or what is left, when nothing was done for a minute.

    A handler's message may hide between two looks. So all is done when everyone was idle twice
    and no log had grown in between.
    """
    loop = asyncio.get_running_loop()
    progressed = loop.time()
    before: object = None
    idle_at: object = None
    while True:
        began = loop.time()
        try:
            rest = await left()
            now = await ends()
        except BackendUnavailableError:
            # A trial that strikes at the servers meets its own strikes.
            if loop.time() - progressed > STALLED:
                raise
            await asyncio.sleep(0.1)
            continue
        seen(sum(rest.values()))
        if not rest:
            if idle_at == now:
                return {}
            idle_at = now
        else:
            idle_at = None
        if (rest, now) != before:
            before = (rest, now)
            progressed = loop.time()
        elif loop.time() - progressed > STALLED:
            return rest
        # Counting a long backlog takes the workers' time, too: spend a fifth on it at most.
        await asyncio.sleep(min(2.0, max(0.1, 4 * (loop.time() - began))))


async def dead() -> tuple[int, list[str]]:
    """How many messages were given up in all services, and why the first few of them were."""
    count = 0
    causes = []
    for app in APPS:
        count += sum(group.dead for group in await app.store.groups())
        causes += [_cause(app, job.queue, job.errors[-1].error if job.errors else "no reason given")
                   for job in await app.store.jobs(state="dead", limit=3)]  # fmt: skip
    return count, causes


def _cause(app: App, queue: str, error: str) -> str:
    return f"{app.name}: dead letter in {queue}: {error}"
