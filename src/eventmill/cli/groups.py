"""`eventmill groups`: who consumes, and how far behind."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection
from typing import Any

import click

from eventmill.cli.output import document, moment, note, span, table
from eventmill.cli.place import Place, opened
from eventmill.cli.standard import StandardGroup, confirm
from eventmill.core.claims import Group
from eventmill.core.message import Partition
from eventmill.core.reading import Pending, Types


@click.group(cls=StandardGroup)
def groups() -> None:
    """List consumer groups (`groups APP_OR_URL`), or forget one (`groups forget APP_OR_URL NAME`)."""


@groups.command("list")
@click.argument("target", metavar="APP_OR_URL")
@click.option(
    "--broker", metavar="URL", help="The broker that a store's groups read, where only the store's URL is given."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def list_(target: str, broker: str | None, as_json: bool) -> None:
    """Each group with its live members, what waits for it and since when, and what has failed.

    RETRYING: waiting for a further attempt. PARKED: waiting behind a failed one of the same key. With an App, its
    groups that never ran are listed, too.
    """
    found = asyncio.run(_list(target, broker))
    now = time.time()
    if as_json:
        document([_fields(group, lag, now) for group, lag in found])
        return
    table(
        ["GROUP", "MEMBERS", "LAG", "OLDEST", "RETRYING", "PARKED", "DEAD", "TYPES"],
        [
            [
                group.name,
                len(group.members),
                None if lag is None else lag.messages,
                span(_age(lag, now)),
                group.retrying,
                group.parked,
                group.dead,
                patterns(group.types),
            ]
            for group, lag in found
        ],
    )
    if any(lag is None for _, lag in found):
        note(
            "LAG is not known here: these groups read a broker. Name the App instead of its store, or give --broker URL."
        )


def patterns(types: Types | None) -> str:
    """Types as one writes them in `@app.on`."""
    return "*" if types is None else ", ".join(sorted([*types.names, *(f"{prefix}*" for prefix in types.prefixes)]))


def _age(lag: Pending | None, now: float) -> float | None:
    return None if lag is None or lag.oldest is None else max(0.0, now - lag.oldest / 1000)


def _fields(group: Group, lag: Pending | None, now: float) -> dict[str, Any]:
    return {
        "group": group.name,
        "types": patterns(group.types),
        "members": dict(group.members),
        "lag": None if lag is None else lag.messages,
        "oldest": None if lag is None else moment(lag.oldest),
        "oldest_age": _age(lag, now),
        "retrying": group.retrying,
        "parked": group.parked,
        "dead": group.dead,
    }


async def _list(target: str, broker: str | None) -> list[tuple[Group, Pending | None]]:
    async with opened(target, broker=broker) as place:
        known = [*await place.store.groups()]
        known += await _never_ran(place, {group.name for group in known})
        return [(group, await place.lag(group)) for group in sorted(known, key=lambda group: group.name)]


async def _never_ran(place: Place, names: Collection[str]) -> list[Group]:
    """Groups that the App declares and the store does not know: all of the log is before them, which is easily overlooked."""
    missing = [each for each in place.consumers if each.group not in names]
    topics = await place.topics_log.topics() if missing else {}
    found = []
    for each in missing:
        parts = [Partition(topic, number) for topic in each.topics(topics) for number in range(topics.get(topic, 0))]
        found.append(Group(each.group, each.types, dict.fromkeys(parts, 0), {}))
    return found


@groups.command()
@click.argument("target", metavar="APP_OR_URL")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
def forget(target: str, name: str, yes: bool) -> None:
    """Remove a group that is not coming back: its place in the log, its retries and its dead letters."""
    asyncio.run(_forget(target, name, yes))


async def _forget(target: str, name: str, yes: bool) -> None:
    async with opened(target, write=True) as place:
        known = {group.name: group for group in await place.store.groups()}
        if name not in known:
            there = ", ".join(sorted(known)) or "none"
            raise click.BadParameter(f"there is no group {name!r}; there are: {there}", param_hint="NAME")
        group = known[name]
        if group.members:
            raise click.UsageError(f"group {name} has live members ({', '.join(group.members)}); stop them first")
        jobs = group.retrying + group.parked + group.dead
        confirm(f"forgetting {name} drops its place in the log and {jobs:,} of its failed messages", yes=yes)
        await place.store.forget(name)
        if place.broker is not None and place.broker is not place.store:
            await place.broker.dismiss(name)
        click.echo(f"forgot {name}")
