"""`eventmill cdc`: change data capture from other databases."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
from typing import Any

import click

from eventmill.app import App
from eventmill.cli.output import counted, document, note, safe, span, table
from eventmill.cli.place import opened
from eventmill.cli.run import log_to_terminal
from eventmill.cli.standard import confirm
from eventmill.cli.target import load_app
from eventmill.core.errors import ConfigurationError
from eventmill.patterns.cdc.capture import Capture
from eventmill.patterns.cdc.capturing import IDENTITIES
from eventmill.patterns.cdc.progress import Copied, Progress
from eventmill.patterns.cdc.report import Report, remaining, report, share
from eventmill.patterns.cdc.setup import drop as drop_capture
from eventmill.patterns.cdc.setup import initialise
from eventmill.runtime.parent import end_with_parent
from eventmill.runtime.service import Service

WIDTH = 30
"""Characters of a progress bar."""


@click.group()
def cdc() -> None:
    """Capture changes of other databases as events: begin, run, look at, and end what an App declares."""


_name = click.option("--name", metavar="CAPTURE", help="Only this capture; default: all that the App declares.")


def _captures(app: App, name: str | None) -> list[Capture]:
    found = [capture for capture in app.captures if name in (None, capture.name)]
    if not found:
        known = ", ".join(capture.name for capture in app.captures) or "none: use app.capture(…)"
        raise ConfigurationError(
            f"{app.name} declares no capture{'' if name is None else f' {name!r}'}; there are {known}"
        )
    return found


@cdc.command()
@click.argument("target", metavar="APP")
@_name
@click.option("--anew", is_flag=True, help="Forget what was captured, and begin again with a new snapshot.")
@click.option("--snapshot/--no-snapshot", default=True, help="Whether to tell the rows that are there already.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def init(target: str, name: str | None, anew: bool, snapshot: bool, yes: bool) -> None:
    """Have the source keep changes from now on, and note which tables are to be copied.

    On PostgreSQL this creates a publication and a replication slot, both called eventmill_NAME; on SQLite, triggers.
    Run it again after tables were added to or left out of the declaration.
    """
    app = load_app(target)
    captures = _captures(app, name)
    if anew:
        names = ", ".join(capture.name for capture in captures)
        confirm(f"beginning anew tells every row of {names} again, and what changed meanwhile is not told", yes=yes)
    asyncio.run(_init(app, captures, anew=anew, snapshot=snapshot))


async def _init(app: App, captures: Sequence[Capture], *, anew: bool, snapshot: bool) -> None:
    async with app:
        for capture in captures:
            shapes = await initialise(app.store, capture, app.clock, app.ids, anew=anew, snapshot=snapshot)
            await capture.source.close()
            click.echo(f"{capture.name}: {counted(len(shapes), 'table')} of {capture.source!r}")
            for shape in shapes:
                click.echo(safe(f"  {shape.name}, key {', '.join(shape.key)}: {IDENTITIES[shape.identity]}"))


@cdc.command()
@click.argument("target", metavar="APP")
def run(target: str) -> None:
    """Capture, without handling events, until SIGTERM or Ctrl-C; `eventmill run` does both.

    While a snapshot is under way its progress is shown.
    """
    app = load_app(target)
    _captures(app, None)
    log_to_terminal()
    end_with_parent(app.settings.grace)
    asyncio.run(_run(app))


class _Capturing:
    """The App without its handlers, as a service."""

    def __init__(self, app: App) -> None:
        self.name = app.name
        self._app = app
        self.stop = app.stop
        self.close = app.close

    async def run(self) -> None:
        shown = asyncio.create_task(_show(self._app))
        try:
            await self._app.run(handle=False)
        finally:
            shown.cancel()


async def _run(app: App) -> None:
    await Service([_Capturing(app)], grace=app.settings.grace).run()


async def _show(app: App) -> None:
    """Snapshots under way: one line that moves on a terminal, a line now and then elsewhere; and a line at each's end."""
    terminal = sys.stderr.isatty()
    copying: set[tuple[str, str]] = set()
    told_at = time.monotonic()
    while True:
        await asyncio.sleep(0.5)
        now = time.monotonic() >= told_at + (0 if terminal else 10)
        for capturing in app.captures.running:
            tables = {} if capturing.session is None else capturing.session.progress.tables
            for name, copied in tables.items():
                place = capturing.capture.name, name
                if copied.state != "done":
                    copying.add(place)
                    if now and copied.state == "copying":
                        told_at = time.monotonic()
                        line = _bar(*place, copied)
                        click.echo(f"\r\x1b[K{line}" if terminal else line, err=True, nl=not terminal)
                elif place in copying:
                    copying.remove(place)
                    line = safe(f"{place[0]} {name}: copied, {copied.rows:,} rows")
                    click.echo(f"\r\x1b[K{line}" if terminal else line, err=True)


def _bar(capture: str, name: str, copied: Copied) -> str:
    done = share(copied)
    full = round(done * WIDTH)
    left = remaining(copied, int(time.time() * 1000))
    rest = "" if left is None else f", {span(left)} left"
    return safe(
        f"{capture} {name} [{'#' * full}{'.' * (WIDTH - full)}] {done:4.0%}, {copied.rows:,} of about {copied.estimate:,}{rest}"
    )


@cdc.command()
@click.argument("target", metavar="APP")
@_name
@click.option(
    "--enforce", is_flag=True, help="Where the source keeps too much and the policy is to drop it, do so now."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def status(target: str, name: str | None, enforce: bool, as_json: bool) -> None:
    """How far each capture is, what its source keeps for it, and whether all is well; exit code 1 where it is not."""
    reports = asyncio.run(_status(target, name, enforce))
    if as_json:
        document([_fields(each) for each in reports])
    else:
        for each in reports:
            _tell(each)
    if any(each.trouble for each in reports):
        raise SystemExit(1)


async def _status(target: str, name: str | None, enforce: bool) -> list[Report]:
    captures = _captures(load_app(target), name)
    found = []
    async with opened(target, write=True) as place:
        for capture in captures:
            each = await report(place.store, capture)
            policy = capture.retention
            if enforce and policy.act == "drop" and each.health is not None and policy.exceeded(each.health):
                await capture.source.remove(capture.name, capture.tables)
                note(f"{capture.name}: what its source kept, {each.health.retained:,} bytes, was given up")
                each = await report(place.store, capture)
            found.append(each)
            await capture.source.close()
    return found


def _tell(each: Report) -> None:
    health = each.health
    click.echo(f"{each.capture.name}: {each.capture.source!r}")
    click.echo(safe(f"  {each.trouble or 'all is well'}"))
    if health is not None and health.present:
        active = "active" if health.active else "inactive"
        behind = f"behind {each.behind or 0:,} {health.unit}"
        click.echo(f"  {active}, {health.status}; kept for it {health.retained:,} bytes, {behind}")
    if each.progress is not None:
        click.echo()
        now = int(time.time() * 1000)
        rows = [
            [table_, copied.state, copied.rows, copied.estimate, f"{share(copied):.0%}", span(remaining(copied, now))]
            for table_, copied in each.progress.tables.items()
        ]
        table(["TABLE", "SNAPSHOT", "ROWS", "ABOUT", "TOLD", "LEFT"], rows)


def _fields(each: Report) -> dict[str, Any]:
    health, progress = each.health, each.progress
    return {
        "capture": each.capture.name,
        "source": repr(each.capture.source),
        "trouble": each.trouble,
        "behind": each.behind,
        "slot": None
        if health is None
        else {
            "present": health.present,
            "active": health.active,
            "status": health.status,
            "retained": health.retained,
            "limit": each.capture.retention.limit,
            "policy": each.capture.retention.act,
            "lost": health.lost,
        },
        "tables": {} if progress is None else _tables(progress),
    }


def _tables(progress: Progress) -> dict[str, Any]:
    now = int(time.time() * 1000)
    return {
        name: {
            "snapshot": copied.state,
            "rows": copied.rows,
            "estimate": copied.estimate,
            "seconds_left": remaining(copied, now),
        }
        for name, copied in progress.tables.items()
    }


@cdc.command()
@click.argument("target", metavar="APP")
@_name
@click.option("--yes", is_flag=True, help="Do not ask.")
def drop(target: str, name: str | None, yes: bool) -> None:
    """Remove what a capture has in its source (slot and publication, or triggers), and its progress. Events stay."""
    captures = _captures(load_app(target), name)
    confirm(f"dropping {', '.join(each.name for each in captures)}: what changes from now on is not captured", yes=yes)
    asyncio.run(_drop(target, captures))


async def _drop(target: str, captures: Sequence[Capture]) -> None:
    async with opened(target, write=True) as place:
        for capture in captures:
            await drop_capture(place.store, capture)
            await capture.source.close()
            click.echo(f"dropped {capture.name}")
