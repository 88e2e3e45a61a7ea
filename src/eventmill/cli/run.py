"""`eventmill run`: handle events, in this process or in several."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from itertools import count

import click

from eventmill import __version__
from eventmill.app import App
from eventmill.backends.memory import MemoryBackend
from eventmill.cli.groups import patterns
from eventmill.cli.output import counted, note, safe
from eventmill.cli.parameters import processes as bounds
from eventmill.cli.target import load_apps
from eventmill.core.errors import ConfigurationError
from eventmill.core.reading import Pending
from eventmill.patterns.relay import RELAY
from eventmill.runtime.parent import end_with_parent
from eventmill.runtime.scaling import Backlog
from eventmill.runtime.service import Service
from eventmill.runtime.supervisor import Supervisor

LAST_WORDS = 5.0
"""Seconds beyond the grace in which a worker without its parent may close its files."""


@click.command()
@click.argument("targets", metavar="APP...", nargs=-1, required=True)
@click.option(
    "--processes",
    type=bounds,
    metavar="N|LOW..HIGH",
    default="1",
    show_default=True,
    help="Worker processes: a number, or bounds (1..4) between which their number follows the backlog.",
)
@click.option(
    "--grace", type=click.FloatRange(min=0), help="Seconds to finish in when stopped; default: the App's setting."
)
@click.option("--worker", is_flag=True, hidden=True)
def run(targets: tuple[str, ...], processes: tuple[int, int], grace: float | None, worker: bool) -> None:
    """Handle events with one or more APPs until SIGTERM or Ctrl-C.

    Then what has begun is finished and committed, and the exit code is 0. A second signal stops at once.
    """
    apps = load_apps(targets)
    _refuse_namesakes(apps)
    seconds = max(app.settings.grace for app in apps) if grace is None else grace
    log_to_terminal()
    end_with_parent(seconds + LAST_WORDS)
    if not worker:
        _introduce(apps, targets, processes)
    if worker or processes == (1, 1):
        asyncio.run(Service(apps, grace=seconds).run())
        return
    code = asyncio.run(_supervise(apps, targets, processes, seconds))
    if code:
        raise SystemExit(code)


def _refuse_namesakes(apps: Sequence[App]) -> None:
    """Two services of one name on one broker would be one group there, and take each other's messages."""
    for number, one in enumerate(apps):
        for other in apps[:number]:
            if (one.name, one.broker_url) == (other.name, other.broker_url) and one.url != other.url and one.broker_url:
                raise ConfigurationError(
                    f"two Apps with the same broker are called {one.name!r}: give each a name of its own, App(..., name=)"
                )


class _Plain(logging.Formatter):
    """Log lines quote errors, and errors quote what strangers published: nothing of it may steer the terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return safe(super().format(record), lines=True)


def log_to_terminal() -> None:
    """Show what happens, unless the App's own module has set up logging already."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Plain("%(asctime)s %(process)d %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])


def _introduce(apps: Sequence[App], targets: Sequence[str], processes: tuple[int, int]) -> None:
    """The first screen: what is handled, where it is kept, where to look."""
    low, high = processes
    workers = f"{low} to {high} processes" if low < high else counted(low, "process", "processes")
    note(f"eventmill {__version__}, {workers}, pid {os.getpid()}")
    for app in apps:
        note(f"\n{safe(app.name)}")
        note(f"  store   {app.store!r}")
        note("  broker  the store's own log" if app.broker is app.store else f"  broker  {app.broker!r}")
        width = max((len(consumer.group) for consumer in app.consumers), default=0)
        for consumer in app.consumers:
            note(f"  group   {consumer.group.ljust(width)}  {patterns(consumer.types)}")
        for capture in app.captures:
            note(safe(f"  capture {capture.name}: {', '.join(capture.tables)} of {capture.source!r}"))
        for view in app.projections:
            note(f"  view    {view.name}: {', '.join(view.tables)}  {patterns(view.types)}")
        for queue in app.tasks.queues.values():
            note(f"  queue   {queue.name}, {counted(queue.concurrency, 'task')} at a time in each process")
        if not app.consumers and not len(app.projections):
            note("  group   none: this App has no handlers (@app.on) and no projections")
    target = targets[0]
    note(f"\nlook   eventmill groups {target} | eventmill dead {target} | eventmill tail {target} --follow")
    note("stop   Ctrl-C finishes what has begun; a second one stops at once\n")


async def _supervise(apps: Sequence[App], targets: Sequence[str], processes: tuple[int, int], grace: float) -> int:
    low, high = processes
    for app in apps:
        if isinstance(app.store, MemoryBackend) or isinstance(app.broker, MemoryBackend):
            raise ConfigurationError(f"{app.name} is kept in memory, which processes cannot share: use --processes 1")
    async with AsyncExitStack() as stack:
        # Opened here first: a wrong configuration is told once, not by every worker, and no two of them race to migrate.
        for app in apps:
            await stack.enter_async_context(app)

        async def bury(incarnation: str) -> None:
            for app in apps:
                await app.store.bury(incarnation)

        supervisor = Supervisor(
            [sys.executable, "-m", "eventmill", "run", *targets, "--worker", "--grace", f"{grace:g}"],
            low=low,
            high=high,
            backlog=(lambda: backlog(apps)) if low < high else None,
            report=logging.getLogger("eventmill").info,
            grace=grace + LAST_WORDS,
            on_death=bury,
        )
        stop = asyncio.Event()
        signals = count(1)

        def stopping() -> None:
            number = next(signals)
            stop.set()
            if number == 2:
                supervisor.hurry()
            elif number > 2:
                supervisor.kill()

        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, stopping)
        return await supervisor.run(stop)


async def backlog(apps: Sequence[App]) -> Backlog:
    """What waits for the groups of these apps, for the workers of their tasks, and for their relays."""
    found: list[Pending] = []
    for app in apps:
        names = {consumer.group for consumer in app.consumers}
        found.append(await app.tasks.backlog())
        for group in await app.store.groups():
            if group.name in names or app.projections.owns(group.name):
                found.append(await app.broker.backlog(group.name, group.cursors, group.types))
            elif group.name == RELAY and app.broker is not app.store:
                found.append(await app.store.pending(group.cursors, group.types))
    oldest = min((each.oldest for each in found if each.oldest is not None), default=None)
    waited = 0.0 if oldest is None else max(0.0, time.time() - oldest / 1000)
    return Backlog(sum(each.messages for each in found), waited)
