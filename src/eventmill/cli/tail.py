"""`eventmill tail`: the log, as it is and as it grows."""

from __future__ import annotations

import asyncio

import click

from eventmill.cli.output import document
from eventmill.cli.place import opened_log
from eventmill.cli.record import line, recorded_fields
from eventmill.core.capabilities import Log
from eventmill.core.message import Partition
from eventmill.core.reading import Types

PAGE = 500


@click.command()
@click.argument("target", metavar="APP_OR_URL")
@click.option("--topic", "topics", multiple=True, help="Only this topic; may be given several times.")
@click.option("--type", "types", multiple=True, help="Only this type, or order.* for all that begin so; several times.")
@click.option("--follow", "-f", is_flag=True, help="Go on with what is appended, until Ctrl-C.")
@click.option("--from", "start", type=click.Choice(["earliest", "end"]), default="earliest", show_default=True)
@click.option("--limit", type=click.IntRange(min=1), help="Stop after so many events.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def tail(
    target: str,
    topics: tuple[str, ...],
    types: tuple[str, ...],
    follow: bool,
    start: str,
    limit: int | None,
    as_json: bool,
) -> None:
    """Print events as they are in the log, in the order of each key.

    For an App with a broker that is the broker's log; give the store's URL for the service's own, or a broker's for all.
    """
    asyncio.run(_tail(target, topics, _wanted(types), follow, start == "end", limit, as_json))


def _wanted(types: tuple[str, ...]) -> Types | None:
    """Exact names, and patterns that end in a star."""
    for each in types:
        if "*" in each.removesuffix("*"):
            raise click.BadParameter(f"{each!r}: a star may only stand at the end", param_hint="--type")
    if not types:
        return None
    prefixes = frozenset(each.removesuffix("*") for each in types if each.endswith("*"))
    return Types(frozenset(each for each in types if not each.endswith("*")), prefixes)


async def _tail(
    target: str,
    topics: tuple[str, ...],
    types: Types | None,
    follow: bool,
    from_end: bool,
    limit: int | None,
    as_json: bool,
) -> None:
    async with opened_log(target) as log:
        known = await log.topics()
        for topic in topics:
            if topic not in known and not follow:
                there = ", ".join(sorted(known)) or "none"
                raise click.BadParameter(f"there is no topic {topic!r}; there are: {there}", param_hint="--topic")
        counter = await log.changed(-1, 0)
        after: dict[Partition, int] = {}
        if from_end:
            ends = await log.end()
            after = {partition: ends.get(partition, 0) for partition in await _partitions(log, topics)}
        rest = limit
        while True:
            # Topics may appear while we watch: they are read from their beginning.
            for partition in await _partitions(log, topics):
                after.setdefault(partition, 0)
            rest = await _print(log, after, types, rest, as_json)
            if rest == 0 or not follow:
                return
            counter = await log.changed(counter, 1.0)


async def _partitions(log: Log, topics: tuple[str, ...]) -> list[Partition]:
    known = await log.topics()
    return [
        Partition(topic, number)
        for topic, count in known.items()
        if not topics or topic in topics
        for number in range(count)
    ]


async def _print(
    log: Log, after: dict[Partition, int], types: Types | None, rest: int | None, as_json: bool
) -> int | None:
    """Print what lies beyond `after`, moving it on; returns what is left of the limit."""
    while rest is None or rest > 0:
        page = await log.read(after, limit=PAGE if rest is None else min(PAGE, rest), types=types)
        for each in page.messages:
            if as_json:
                document(recorded_fields(each), indent=None)
            else:
                click.echo(line(each))
        if rest is not None:
            rest -= len(page.messages)
        moved = any(position > after.get(partition, 0) for partition, position in page.after.items())
        after.update(page.after)
        if not moved:
            break
    return rest
