"""`eventmill lineage`: what was made of what, also after the payloads were trimmed."""

from __future__ import annotations

import asyncio
from typing import Any

import click

from eventmill.cli.output import document, moment, safe
from eventmill.cli.place import opened
from eventmill.patterns.aggregation.groups import Made, made_of, went_into


@click.command()
@click.argument("target", metavar="APP_OR_URL")
@click.argument("id_", metavar="ID")
@click.option("--key", help="The key of an event that was collected: it is found at once then, without looking at all.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def lineage(target: str, id_: str, key: str | None, as_json: bool) -> None:
    """What an aggregated event was made of, or what an event went into, by its id.

    Events need not be in the log any more. What an event went into is looked for among all groups that are remembered.
    """
    made, into = asyncio.run(_look(target, id_, key))
    if as_json:
        document(
            {"id": id_, "made_of": None if made is None else _fields(made), "went_into": [_fields(e) for e in into]}
        )
    elif made is not None:
        click.echo(
            safe(f"{id_}: {made.aggregation}/{made.key} epoch {made.epoch}, {made.reason}, {moment(made.closed_at)}")
        )
        for link in made.links:
            click.echo(safe(f"  <- {link.type} {link.id} from {link.source} at {link.position}"))
    else:
        click.echo(safe(id_))
    if not as_json:
        for each in into:
            for coarse in each.coarse or ["(nothing was published)"]:
                click.echo(safe(f"  -> {coarse}: {each.aggregation}/{each.key} epoch {each.epoch}, {each.reason}"))
    if made is None and not into:
        raise SystemExit(1)


def _fields(made: Made) -> dict[str, Any]:
    return {
        "aggregation": made.aggregation,
        "key": made.key,
        "epoch": made.epoch,
        "reason": made.reason,
        "closed": moment(made.closed_at),
        "coarse": list(made.coarse),
        "events": [
            {"id": each.id, "source": each.source, "type": each.type, "position": each.position} for each in made.links
        ],
    }


async def _look(target: str, id_: str, key: str | None) -> tuple[Made | None, list[Made]]:
    async with opened(target) as place:
        return await made_of(place.store, id_), await went_into(place.store, id_, key)
