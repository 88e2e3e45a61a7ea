"""`eventmill projections`: what readers see, how far behind it is, and building it anew."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from typing import cast

import click

from eventmill.app import App
from eventmill.cli.output import counted, document, note, safe, span, table
from eventmill.cli.place import existing, opened
from eventmill.cli.progress import told
from eventmill.cli.standard import StandardGroup, confirm
from eventmill.cli.target import load_app
from eventmill.core.capabilities import Log
from eventmill.core.rows import Row
from eventmill.patterns.projection.difference import LIMIT, Difference
from eventmill.patterns.projection.generations import decoded
from eventmill.patterns.projection.lag import Lag
from eventmill.patterns.projection.view import View

SAME, DIFFERENT = 0, 1


@click.group(cls=StandardGroup)
def projections() -> None:
    """List an App's projections (`projections APP`), or rebuild, swap, drop or diff one.

    A rebuild makes the next generation of the tables beside the one that readers see, and swaps when it has caught up.
    """


@asynccontextmanager
async def looked_at(target: str) -> AsyncIterator[Sequence[View]]:
    """The views of an App's projections, to look at: nothing is created or written."""
    async with opened(target) as place:
        app = cast(App, place.app)
        projections = app.projections
        log = cast(Log, place.broker if projections.ground.relayed else place.store)
        ground = replace(
            projections.ground, store=place.store, published=place.store, read_from=lambda: log, open=_is_open
        )
        views = [View(each, projections.ledger(each), ground) for each in projections]
        try:
            yield views
        finally:
            for view in views:
                await view.close()


async def _is_open() -> None:
    """It is."""


@asynccontextmanager
async def worked_on(target: str, name: str) -> AsyncIterator[View]:
    """The view of one projection, its App open; a store that is not there is not made."""
    app = load_app(target)
    view = app.view(name)
    existing(app.store)
    async with app:
        yield view


@projections.command("list")
@click.argument("target", metavar="APP")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def list_(target: str, as_json: bool) -> None:
    """Each generation of each projection: what it lacks of the log, since when, and what blocks it.

    LIVE: what readers see. LAG: events it has yet to take in, a projection that never ran included.
    """
    load_app(target)
    found = asyncio.run(_list(target))
    if as_json:
        document([_fields(lag, outdated) for lag, outdated in found])
        return
    table(
        ["PROJECTION", "GENERATION", "STATE", "MEMBERS", "LAG", "OLDEST", "RETRYING", "PARKED", "DEAD", "VERSION"],
        [
            [
                lag.projection,
                lag.generation,
                _state(lag),
                lag.members,
                lag.events,
                span(lag.seconds) if lag.events else None,
                lag.retrying,
                lag.parked,
                lag.dead,
                f"{lag.version} (not this code's)" if outdated else lag.version,
            ]
            for lag, outdated in found
        ],
    )
    for lag, _ in found:
        for reason in lag.blocked:
            note(f"{lag.projection} (generation {lag.generation}) is blocked by {safe(reason)}")
    for name in sorted({lag.projection for lag, outdated in found if outdated and lag.live}):
        note(f"{name} was changed: eventmill projections rebuild {target} {name}")


def _state(lag: Lag) -> str:
    state = "live" if lag.live else lag.state
    return f"{state}, partial" if lag.partial else state


def _fields(lag: Lag, outdated: bool) -> dict[str, object]:
    return {**asdict(lag), "blocked": list(lag.blocked), "outdated": outdated}


async def _list(target: str) -> list[tuple[Lag, bool]]:
    found = []
    async with looked_at(target) as views:
        for view in views:
            state, _ = decoded(await view.ground.store.document(view.ledger.key))
            if state is None:
                note(f"{view.name} is not in the store yet: it is made when its App opens (eventmill run {target})")
                continue
            for lag in await view.lags():
                other = state.generations[lag.generation].fingerprint != view.projection.fingerprint
                found.append((lag, other))
    return found


@projections.command()
@click.argument("target", metavar="APP")
@click.argument("name")
@click.option("--no-swap", is_flag=True, help="Leave it beside the live one: look at it with diff, then swap.")
@click.option("--partial", is_flag=True, help="Build of what is left, where the oldest messages were trimmed.")
@click.option("--force", is_flag=True, help="Leave out what has become a dead letter.")
def rebuild(target: str, name: str, no_swap: bool, partial: bool, force: bool) -> None:
    """Build a projection anew beside the live one, and let readers see it when it has caught up.

    Readers and writers go on. Killed or interrupted, it goes on where it was when it is called again.
    """
    number = asyncio.run(_rebuild(target, name, no_swap, partial, force))
    if no_swap:
        click.echo(
            f"{name}: generation {number} is built; readers see it after: eventmill projections swap {target} {name}"
        )
    else:
        click.echo(f"{name}: readers see generation {number}; the one before it is kept (swap --back, drop)")


async def _rebuild(target: str, name: str, no_swap: bool, partial: bool, force: bool) -> int:
    async with worked_on(target, name) as view:
        with told(name) as report:
            return await view.rebuild(show=not no_swap, partial=partial, force=force, report=report)


@projections.command()
@click.argument("target", metavar="APP")
@click.argument("name")
@click.option("--back", is_flag=True, help="To the generation that was shown before.")
@click.option("--force", is_flag=True, help="Even to one that lacks events which readers have seen.")
def swap(target: str, name: str, back: bool, force: bool) -> None:
    """Let readers see the generation that was built, or the one before."""

    async def run() -> int:
        async with worked_on(target, name) as view:
            return await view.swap(back=back, force=force)

    click.echo(f"{name}: readers see generation {asyncio.run(run())}")


@projections.command()
@click.argument("target", metavar="APP")
@click.argument("name")
@click.option("--generation", type=int, help="Which, where there are several that readers do not see.")
@click.option("--force", is_flag=True, help="Even where side effects are still to come from it.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def drop(target: str, name: str, generation: int | None, force: bool, yes: bool) -> None:
    """Remove a generation that readers do not see, with its tables."""
    load_app(target).view(name)
    confirm(f"dropping what readers do not see of {name} removes its tables", yes=yes)

    async def run() -> int:
        async with worked_on(target, name) as view:
            return await view.drop(generation, force=force)

    click.echo(f"{name}: dropped generation {asyncio.run(run())}")


@projections.command()
@click.argument("target", metavar="APP")
@click.argument("name")
@click.option("--generation", type=int, help="Which to compare with the live one; the newest by default.")
@click.option(
    "--limit", type=click.IntRange(1, 10_000), default=LIMIT, show_default=True, help="Rows shown of a table."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def diff(target: str, name: str, generation: int | None, limit: int, as_json: bool) -> None:
    """Compare the rows of a generation that was built with those readers see. Exit code 1 where they differ."""

    async def run() -> Sequence[Difference]:
        async with looked_at(target) as views:
            (view,) = [each for each in views if each.name == name]
            return await view.difference(generation, limit=limit)

    load_app(target).view(name)  # refused here where there is none of this name
    found = asyncio.run(run())
    if as_json:
        document([_as_json(each) for each in found])
    else:
        for each in found:
            _tell(each)
    sys.exit(SAME if all(each.same for each in found) else DIFFERENT)


def _tell(found: Difference) -> None:
    if found.note:
        click.echo(f"{found.table}: {safe(found.note)}")
        return
    click.echo(f"{found.table}: {counted(found.rows, 'row differs', 'rows differ') if found.rows else 'the same'}")
    for change in found.changes:
        key = ", ".join(f"{name}={value!r}" for name, value in zip(found.key, change.key, strict=True))
        if change.shown is None or change.other is None:
            only, row = ("only live", change.shown) if change.other is None else ("only built", change.other)
            click.echo(safe(f"  {key}  {only}: {_row(found.columns, row)}"))
        else:
            parts = [
                f"{column}: {was!r} → {now!r}"
                for column, was, now in zip(found.columns, change.shown, change.other, strict=True)
                if was != now
            ]
            click.echo(safe(f"  {key}  {', '.join(parts)}"))
    if found.rows > len(found.changes):
        click.echo(f"  … and {found.rows - len(found.changes):,} more")


def _row(columns: Sequence[str], row: Row | None) -> str:
    return ", ".join(f"{column}={value!r}" for column, value in zip(columns, row or (), strict=True))


def _as_json(found: Difference) -> dict[str, object]:
    return {
        "table": found.table,
        "rows": found.rows,
        "note": found.note,
        "key": list(found.key),
        "changes": [
            {
                "live": None if change.shown is None else _named(found.columns, change.shown),
                "built": None if change.other is None else _named(found.columns, change.other),
            }
            for change in found.changes
        ],
    }


def _named(columns: Sequence[str], row: Row) -> dict[str, object]:
    plain = (str, int, float, bool, type(None))
    return {
        column: value if isinstance(value, plain) else str(value) for column, value in zip(columns, row, strict=True)
    }
