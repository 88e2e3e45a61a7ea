"""`eventmill project`: a whole view as of a moment."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import click

from eventmill.backends.connect import StoreBackend, connect_store
from eventmill.cli.output import counted, moment
from eventmill.cli.parameters import moment as parse_moment
from eventmill.cli.progress import told
from eventmill.cli.projections import looked_at
from eventmill.cli.target import is_url, load_app
from eventmill.patterns.projection.as_of import project as fold


@click.command()
@click.argument("target", metavar="APP")
@click.argument("name")
@click.option("--at", metavar="TIME", type=parse_moment, help="Such as 2026-11-01T12:00Z; up to now by default.")
@click.option("--into", required=True, metavar="FILE_OR_URL", help="Where the tables are made: a new file, or a store.")
@click.option("--partial", is_flag=True, help="Fold what is left, where the oldest messages were trimmed.")
def project(target: str, name: str, at: int | None, into: str, partial: bool) -> None:
    """Fold a projection of all events recorded up to a moment into another database, under its plain table names.

    The moment is compared with when each event was appended. The live view is neither read nor touched.
    """
    load_app(target).view(name)  # refused here where there is none of this name
    if at is not None and at > time.time() * 1000:
        raise click.BadParameter(f"{moment(at)} is yet to come", param_hint="--at")
    store = connect_store(into if is_url(into) else f"sqlite:///{Path(into).absolute()}")
    taken = asyncio.run(_project(target, name, at, store, partial))
    when = "" if at is None else f" as of {moment(at)}"
    click.echo(f"{name}{when}: {counted(taken, 'event')} folded into {into}")


async def _project(target: str, name: str, at: int | None, store: StoreBackend, partial: bool) -> int:
    async with looked_at(target) as views, store:
        (view,) = [each for each in views if each.name == name]
        with told(name) as report:
            return await fold(view.projection, view.ground, store, at=at, partial=partial, report=report)
