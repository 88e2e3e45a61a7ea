"""`eventmill topics`: what is in the log, and removing the old of it."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass

import click

from eventmill.backends.connect import as_store
from eventmill.cli.output import counted, document, moment, note, span, table
from eventmill.cli.parameters import seconds, size
from eventmill.cli.place import opened_log
from eventmill.cli.standard import StandardGroup
from eventmill.core.capabilities import Log
from eventmill.core.errors import CapabilityError
from eventmill.core.message import Partition
from eventmill.core.reading import Trimmed


@dataclass(frozen=True, slots=True)
class _Topic:
    name: str
    partitions: int
    messages: int
    oldest: int | None
    newest: int | None


@click.group(cls=StandardGroup)
def topics() -> None:
    """List topics (`topics APP_OR_URL`), or trim one (`topics trim APP_OR_URL TOPIC …`)."""


@topics.command("list")
@click.argument("target", metavar="APP_OR_URL")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def list_(target: str, as_json: bool) -> None:
    """Each topic with its partitions, its messages, and their age.

    For an App with a broker these are the broker's; give the store's URL for the service's own, or a broker's for all.
    """
    found = asyncio.run(_list(target))
    if as_json:
        document(
            [
                {
                    "topic": each.name,
                    "partitions": each.partitions,
                    "messages": each.messages,
                    "oldest": moment(each.oldest),
                    "newest": moment(each.newest),
                }
                for each in found
            ]
        )
        return
    now = time.time()
    ages = [[None if at is None else span(now - at / 1000) for at in (each.oldest, each.newest)] for each in found]
    rows = [[each.name, each.partitions, each.messages, *age] for each, age in zip(found, ages, strict=True)]
    table(["TOPIC", "PARTITIONS", "MESSAGES", "OLDEST", "NEWEST"], rows)


async def _list(target: str) -> list[_Topic]:
    async with opened_log(target) as log:
        ends = await log.end()
        return [await _topic(log, name, count, ends) for name, count in sorted((await log.topics()).items())]


async def _topic(log: Log, name: str, count: int, ends: Mapping[Partition, int]) -> _Topic:
    partitions = [Partition(name, number) for number in range(count)]
    pending = await log.pending(dict.fromkeys(partitions, 0))
    newest = None
    for partition in partitions:
        if partition in ends:
            page = await log.read({partition: ends[partition] - 1}, limit=1)
            newest = max([newest or 0, *(each.recorded_at for each in page.messages)]) or None
    return _Topic(name, count, pending.messages, pending.oldest, newest)


@topics.command()
@click.argument("target", metavar="APP_OR_URL")
@click.argument("topic")
@click.option(
    "--older-than", type=seconds, metavar="SPAN", help="Remove what was recorded longer ago than this: 7d, 12h."
)
@click.option("--max-bytes", type=size, metavar="SIZE", help="Remove the oldest beyond so many bytes of data: 1GB.")
@click.option("--force", is_flag=True, help="Also remove what some group has not handled yet. It will never see it.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def trim(target: str, topic: str, older_than: float | None, max_bytes: int | None, force: bool, as_json: bool) -> None:
    """Remove the oldest messages of TOPIC, up to the slowest group's place."""
    if older_than is None and max_bytes is None:
        raise click.UsageError("say how much may go: --older-than 7d, --max-bytes 1GB, or both")
    trimmed = asyncio.run(_trim(target, topic, older_than, max_bytes, force))
    if as_json:
        document({"removed": trimmed.messages, "held_by": trimmed.held_by, "held_at": trimmed.held_at})
        return
    click.echo(f"removed {counted(trimmed.messages, 'message')} of {topic}")
    if trimmed.held_by is not None:
        note(
            f"stopped at position {trimmed.held_at}: group {trimmed.held_by} has not handled what comes after it. "
            f"Let it catch up, `eventmill groups forget {target} {trimmed.held_by}` if it is not coming back, or --force."
        )


async def _trim(target: str, topic: str, older_than: float | None, max_bytes: int | None, force: bool) -> Trimmed:
    async with opened_log(target, write=True) as found:
        log = as_store(found)
        if log is None:
            raise CapabilityError(f"{found!r} has a retention of its own: set it there")
        known = await log.topics()
        if topic not in known:
            there = ", ".join(sorted(known)) or "none"
            raise click.BadParameter(f"there is no topic {topic!r}; there are: {there}", param_hint="TOPIC")
        trimming = asyncio.create_task(log.trim(topic, older_than=older_than, max_bytes=max_bytes, force=force))
        if sys.stderr.isatty():
            await _watch(trimming, log, [Partition(topic, number) for number in range(known[topic])])
        return await trimming


async def _watch(trimming: asyncio.Task[Trimmed], log: Log, partitions: list[Partition]) -> None:
    """A bar of how many messages are gone; how many will go is not known before, so it counts against all there are."""
    before = (await log.pending(dict.fromkeys(partitions, 0))).messages
    with click.progressbar(length=max(before, 1), label="trimming", file=sys.stderr) as bar:
        while not (await asyncio.wait((trimming,), timeout=0.5))[0]:
            left = (await log.pending(dict.fromkeys(partitions, 0))).messages
            bar.update(max(0, before - left - bar.pos))
