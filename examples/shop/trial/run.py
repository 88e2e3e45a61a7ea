"""One trial from the first order to the verdict."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from sqlalchemy import Engine

from eventmill.backends.connect import as_log
from eventmill.runtime.supervisor import Restarts, Supervisor

from .. import customer, legacy
from ..services import APPS
from ..wiring import FOLDER, SETTINGS, forget, forget_broker
from . import fold, joined, money, sagas, schedules, verdict
from .chaos import Chaos
from .clerk import Clerk
from .desk import Desk
from .drain import dead, drained
from .feed import Fed, feed
from .generator import Arrival, Generator
from .orders_file import OrdersFile
from .server_chaos import ServerChaos

T = TypeVar("T")

AFTERMATH = (5.0, 20.0)
"""Chaos goes on after the last order for as long as feeding took, within these bounds, while there is work."""


@dataclass(frozen=True, slots=True)
class Options:
    """orders: a file of invoice lines, or None to make up `rate` orders a second for `seconds`."""

    orders: Path | None
    seconds: float
    rate: float
    processes: int
    chaos: bool
    restart: str | None
    """A shell command that restarts a server, which chaos runs now and then."""
    keep: bool
    """Whether the databases are left for somebody to look at."""
    own_broker: bool
    """Whether what is in the broker has names of this run alone, so that all of it can be removed."""
    seed: int
    saga: str
    """How checkouts are held together, which `wiring` has been told: for the verdict."""
    fail: float
    """The share of payments that fail for good."""
    worker: Sequence[str]
    """The command of one worker process."""


class Screen(Protocol):
    """Where the trial tells what it is doing."""

    def say(self, text: str) -> None: ...

    def bar(self, label: str, length: int) -> AbstractContextManager[Callable[[int], None]]:
        """A progress bar; what it yields is called with how far it has come, out of `length`."""
        ...


class TrialError(Exception):
    """The trial could not be held."""


async def trial(options: Options, screen: Screen) -> dict[str, object]:
    """Feed the shop, let the workers work and die, wait until all is done, stop them, and judge.

    The result has the keys of `eventmill demo --json`; `violations` includes `not-drained` when
    work was left that nobody did.
    """
    loop = asyncio.get_running_loop()
    async with AsyncExitStack() as stack:
        for app in APPS:
            await stack.enter_async_context(app)
        administration, clerk = await stack.enter_async_context(_administration(options.seed, options.keep))
        source = None if options.orders is None else stack.enter_context(OrdersFile(options.orders))
        began = loop.time()
        async with _workers(options, screen) as (workers, ended):
            chaos = Chaos(options.seed, lambda: workers.pids, SETTINGS.lease)
            servers = ServerChaos(options.seed, options.restart, screen.say)
            striking = asyncio.gather(chaos.run(), servers.run()) if options.chaos else None
            try:
                fed = await _unless(ended, _feed(options, source, clerk, screen))
                if striking is not None:
                    await _unless(ended, _aftermath(chaos, loop.time() - began, screen))
            finally:
                if striking is not None:
                    striking.cancel()
                    with suppress(asyncio.CancelledError):
                        await striking
            with screen.bar("handling", 1000) as show:
                rest = await _unless(ended, drained(_falling(show)))
            seconds = loop.time() - began
        for group, count in rest.items():
            screen.say(f"{group}: {count:,} messages left undone")
        result = await _judge(options, screen, chaos, fed, rest, seconds, joined.customers(administration))
        result |= {"restarts": servers.restarts, "terminated": servers.terminated}
    if not options.keep:
        for app in APPS:
            async with app:
                await forget(app)
    if options.own_broker and not options.keep:
        await forget_broker(APPS)
    return result


@asynccontextmanager
async def _administration(seed: int, keep: bool) -> AsyncIterator[tuple[Engine, Clerk]]:
    """The old customer administration, its clerk at work, and captured from here on; its database keeps nothing for us in
    the end, however the trial ends."""
    database = legacy.engine()
    try:
        clerk = Clerk(seed, database)
        await asyncio.to_thread(clerk.open)
        try:
            await customer.app.captures.initialise()
            yield database, clerk
        finally:
            await customer.app.captures.drop()
        if not keep:
            await asyncio.to_thread(legacy.remove, database)
    finally:
        database.dispose()


@asynccontextmanager
async def _workers(options: Options, screen: Screen) -> AsyncIterator[tuple[Supervisor, asyncio.Task[int]]]:
    """The worker processes, and the task that ends when they cannot be kept running; stopped at the end."""

    async def bury(incarnation: str) -> None:
        for app in APPS:
            await app.store.bury(incarnation)

    def report(text: str) -> None:
        # Under chaos, deaths are the plan.
        if not options.chaos:
            screen.say(text)

    supervisor = Supervisor(
        options.worker,
        low=options.processes,
        high=options.processes,
        report=report,
        on_death=bury,
        restarts=Restarts(cap=0.5),
    )
    stop = asyncio.Event()
    ended = asyncio.create_task(supervisor.run(stop))
    try:
        yield supervisor, ended
    finally:
        stop.set()
        code = await ended
    if code:
        raise TrialError(f"the workers did not stop in good order (exit code {code})")


async def _unless(ended: asyncio.Task[int], work: Coroutine[Any, Any, T]) -> T:
    """The work's result; TrialError as soon as the workers are gone for good."""
    task = asyncio.create_task(work)
    try:
        await asyncio.wait((task, ended), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise TrialError(f"the workers cannot be kept running (exit code {ended.result()})")
        return task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _feed(options: Options, source: OrdersFile | None, clerk: Clerk, screen: Screen) -> Fed:
    writing = asyncio.create_task(clerk.work())
    try:
        if source is None:
            generator = Generator(options.seed, options.rate, options.seconds)
            with screen.bar("orders", max(1, int(options.seconds * 10))) as show:
                return await feed(_met(generator, clerk), lambda arrival: show(int(arrival.at * 10)))
        with screen.bar("orders", max(1, source.size)) as show:
            return await feed(_met(_at_once(source), clerk), lambda _: show(source.read))
    finally:
        clerk.leave()
        await writing


def _met(arrivals: Iterable[Arrival], clerk: Clerk) -> Iterator[Arrival]:
    """The arrivals, each after the clerk has heard of it."""
    for arrival in arrivals:
        clerk.meet(arrival.events)
        yield arrival


def _at_once(source: OrdersFile) -> Iterator[Arrival]:
    return (Arrival(0.0, events) for events in source)


async def _aftermath(chaos: Chaos, feeding: float, screen: Screen) -> None:
    """Let chaos go on after the last order, until all is done or for a while, and until it has killed a few."""
    with suppress(TimeoutError), screen.bar("handling under chaos", 1000) as show:
        least, most = AFTERMATH
        async with asyncio.timeout(min(most, max(least, feeding))):
            await drained(_falling(show))
    await chaos.enough.wait()


def _falling(show: Callable[[int], None]) -> Callable[[int], None]:
    """Turn the count of what is left into thousandths of what was left at most."""
    most = 1

    def seen(left: int) -> None:
        nonlocal most
        most = max(most, left)
        show(1000 - 1000 * left // most)

    return seen


async def _judge(
    options: Options,
    screen: Screen,
    chaos: Chaos,
    fed: Fed,
    rest: dict[str, int],
    seconds: float,
    known: joined.Customers,
) -> dict[str, object]:
    with closing(Desk(FOLDER / "desk.db")) as desk:
        await desk.collect()
        far = verdict.figures(desk)
        delivery = verdict.delivery(desk, broker=as_log(APPS[0].broker) is not None)
        words = verdict.violations(desk, fed, far)
        malformed = verdict.malformed(desk)
        conserved = money.figures(desk)
        fires = schedules.figures(desk)
        words += await schedules.violations(desk)
        coarse_events = desk.one("SELECT count(*) FROM orders_view_accounts")
    checkouts = await sagas.figures()
    refolded = await fold.fresh()
    fold_mismatches = await fold.mismatches(refolded)
    view_mismatches = await joined.mismatches(refolded, known)
    if coarse_events != len(known):
        words.append("customers-not-registered")
    given_up, causes = await dead()
    for cause in causes:
        screen.say(cause)
    if rest:
        words.append("not-drained")
    if checkouts["sagas_open"] or checkouts["sagas_attention"]:
        words.append("checkout-without-end")
    return {
        **far,
        **delivery,
        "dead": given_up,
        **conserved,
        **checkouts,
        **fires,
        "coarse_events": coarse_events,
        "coarse_expected": len(known),
        "fold_mismatches": fold_mismatches,
        "view_mismatches": view_mismatches,
        "violations": words,
        "kills": chaos.kills,
        "pauses": chaos.pauses,
        "seconds": round(seconds, 3),
        "events_per_second": round(delivery["handled"] / seconds, 1),
        **malformed,
        "saga": options.saga,
        "fail": options.fail,
        "processes": options.processes,
        "seed": options.seed,
        "chaos": options.chaos,
    }
