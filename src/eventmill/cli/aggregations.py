"""`eventmill aggregations`: groups that are open, what they hold, and closing one by hand."""

from __future__ import annotations

import asyncio
import getpass
import time
from typing import Any

import click

from eventmill.cli.output import counted, document, moment, note, safe, table
from eventmill.cli.place import opened
from eventmill.cli.standard import StandardGroup
from eventmill.core.capabilities import Store
from eventmill.core.clock import Ids, SystemClock
from eventmill.patterns.aggregation import groups
from eventmill.patterns.aggregation.record import Closed, Group, Record


@click.group(cls=StandardGroup)
def aggregations() -> None:
    """List open groups (`aggregations APP_OR_URL`), show the groups of a key, or close what is open of it.

    ID is the aggregator's name and the key, such as shop.registered/A-17; the key alone will do where there is one.
    """


@aggregations.command("list")
@click.argument("target", metavar="APP_OR_URL")
@click.option("--name", help="Only those of this aggregator, such as shop.registered.")
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def list_(target: str, name: str | None, limit: int, as_json: bool) -> None:
    """Groups that are not closed yet, with what they have so far."""
    found, more = asyncio.run(_list(target, name, limit))
    if as_json:
        document([{"aggregation": name, "key": key, **_open(group)} for name, key, group in found])
    else:
        table(
            ["AGGREGATION", "KEY", "EPOCH", "EVENTS", "OPENED", "LAST", "TYPES"],
            [
                [name, key, group.epoch, len(group.events), moment(group.opened), moment(group.last), _types(group)]
                for name, key, group in found
            ],
        )
    if more:
        note(f"there are more than these {limit:,}: raise --limit to see them")


async def _list(target: str, name: str | None, limit: int) -> tuple[list[tuple[str, str, Group]], bool]:
    async with opened(target) as place:
        names = [each.name for each in await groups.definitions(place.store)]
        if name is not None and name not in names:
            raise click.BadParameter(f"there is no aggregator {name!r}; there are: {', '.join(names) or 'none'}")
        found: list[tuple[str, str, Group]] = []
        for each in [name] if name else names:
            async for key, record in groups.records(place.store, each):
                for group in record.open:
                    if len(found) == limit:
                        return found, True
                    found.append((each, key, group))
        return found, False


def _types(group: Group) -> str:
    return ", ".join(sorted({event.type for event in group.events}))


def _open(group: Group) -> dict[str, Any]:
    return {
        "epoch": group.epoch,
        "opened": moment(group.opened),
        "last": moment(group.last),
        "window": None if group.start is None else [moment(group.start), moment(group.end)],
        "events": [
            {"id": each.id, "source": each.source, "type": each.type, "position": each.position}
            for each in group.events
        ],
    }


def _closed(closed: Closed) -> dict[str, Any]:
    return {
        "epoch": closed.epoch,
        "closed": moment(closed.at),
        "reason": closed.reason,
        "window": None if closed.start is None else [moment(closed.start), moment(closed.end)],
        "coarse": closed.coarse,
        "late": closed.late,
        "events": [
            {"id": each.id, "source": each.source, "type": each.type, "position": each.position}
            for each in closed.links
        ],
    }


@aggregations.command()
@click.argument("target", metavar="APP_OR_URL")
@click.argument("name", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def show(target: str, name: str, as_json: bool) -> None:
    """All groups of a key that are open or remembered."""
    aggregation, key, record = asyncio.run(_show(target, name))
    whole: dict[str, Any] = {
        "aggregation": aggregation,
        "key": key,
        "open": [_open(group) for group in record.open],
        "closed": [_closed(closed) for closed in record.closed],
    }
    if as_json:
        document(whole)
        return
    for each in (*whole["open"], *whole["closed"]):
        state = "open" if "opened" in each else f"closed ({each['reason']})"
        click.echo(safe(f"{aggregation}/{key} epoch {each['epoch']}: {state}, {counted(len(each['events']), 'event')}"))
        for event in each["events"]:
            click.echo(safe(f"  {event['type']} {event['id']} from {event['source']} at {event['position']}"))
        for coarse in each.get("coarse", ()):
            click.echo(safe(f"  -> {coarse}"))


async def _show(target: str, name: str) -> tuple[str, str, Record]:
    async with opened(target) as place:
        aggregation, key = await _which(place.store, name)
        found = await groups.record(place.store, aggregation, key)
        if found is None:
            raise click.BadParameter(
                f"{aggregation} has no group of key {key!r} (or it was forgotten)", param_hint="ID"
            )
        return aggregation, key, found


async def _which(store: Store, name: str) -> tuple[str, str]:
    names = [each.name for each in await groups.definitions(store)]
    aggregation, slash, key = name.partition("/")
    if slash and aggregation in names:
        return aggregation, key
    if len(names) == 1:
        return names[0], name
    raise click.BadParameter(f"{name!r}: write NAME/KEY; there are: {', '.join(names) or 'none'}", param_hint="ID")


@aggregations.command()
@click.argument("target", metavar="APP_OR_URL")
@click.argument("name", metavar="ID")
@click.option("--why", required=True, help="The reason; it is kept with the request, and in the worker's log.")
@click.option("--by", default=None, help="Who does it; the user's name by default.")
def close(target: str, name: str, why: str, by: str | None) -> None:
    """Close what is open of a key as if it were complete; a worker of the aggregator does it, and publishes."""
    number = asyncio.run(_close(target, name, by or getpass.getuser(), why))
    click.echo(f"{counted(number, 'group')} will be closed")


async def _close(target: str, name: str, by: str, why: str) -> int:
    async with opened(target, write=True) as place:
        aggregation, key = await _which(place.store, name)
        return await groups.close(
            place.store, aggregation, key, now=int(time.time() * 1000), id_=Ids(SystemClock())(), by=by, why=why
        )
