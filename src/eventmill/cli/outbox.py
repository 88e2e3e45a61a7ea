"""`eventmill outbox`: what a service has published to its own log, and what of it has reached the broker."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import click

from eventmill.backends.connect import StoreBackend
from eventmill.cli.output import counted, document, moment, note, span, table
from eventmill.cli.place import opened
from eventmill.core.capabilities import Log, Store
from eventmill.core.claims import Group
from eventmill.core.message import Message, Partition
from eventmill.patterns.relay import RELAY

PAGE = 500
STATES = ("pending", "retrying", "parked", "failed", "sent")
_BY_JOB = {"due": "retrying", "running": "retrying", "parked": "parked", "dead": "failed"}


@dataclass(frozen=True, slots=True)
class _Item:
    state: str
    position: int | None
    recorded_at: int
    message: Message
    error: str = ""


@dataclass(slots=True)
class _Outbox:
    counts: dict[str, int]
    oldest: int | None
    items: list[_Item] = field(default_factory=list)
    more: bool = False


@click.command()
@click.argument("target", metavar="APP_OR_URL")
@click.option("--state", type=click.Choice(STATES), help="List the messages of this state; otherwise all not sent yet.")
@click.option(
    "--limit", type=click.IntRange(min=0), default=20, show_default=True, help="List at most so many messages."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def outbox(target: str, state: str | None, limit: int, as_json: bool) -> None:
    """Count a service's messages that are pending, retrying, parked behind a failed one, failed, and sent; list them.

    A message is sent when the broker has confirmed it and the relay's mark is committed. Failed ones
    are dead letters of the group `relay`: see `eventmill dead`.
    """
    found = asyncio.run(_look(target, state, limit))
    now = time.time()
    if as_json:
        document(_fields(found, now))
        return
    if found is None:
        click.echo("This store has no relay: it is its own broker, and publishing is the append itself. Nothing waits.")
        return
    counts = ", ".join(f"{found.counts[each]:,} {each}" for each in STATES)
    age = "" if found.oldest is None else f"; the oldest not sent waits for {span(now - found.oldest / 1000)}"
    click.echo(counts + age)
    if found.items:
        click.echo()
        rows = [
            [
                item.state,
                item.position,
                span(now - item.recorded_at / 1000),
                item.message.type,
                item.message.key,
                item.message.id,
                item.error,
            ]
            for item in found.items
        ]
        table(["STATE", "POSITION", "AGE", "TYPE", "KEY", "ID", "ERROR"], rows)
    if found.more:
        note(f"there are more than these {counted(limit, 'message')}: raise --limit to see them")


def _fields(found: _Outbox | None, now: float) -> dict[str, Any]:
    if found is None:
        return {"relay": False}
    return {
        "relay": True,
        **found.counts,
        "oldest": moment(found.oldest),
        "oldest_age": None if found.oldest is None else max(0.0, now - found.oldest / 1000),
        "messages": [
            {
                "state": item.state,
                "position": item.position,
                "recorded_at": moment(item.recorded_at),
                "id": item.message.id,
                "type": item.message.type,
                "partitionkey": item.message.key,
                "error": item.error or None,
            }
            for item in found.items
        ],
        "more": found.more,
    }


async def _look(target: str, state: str | None, limit: int) -> _Outbox | None:
    async with opened(target) as place:
        relay = next((group for group in await place.store.groups() if group.name == RELAY), None)
        if relay is None and (place.app is None or place.app.broker is place.app.store):
            return None
        # A topic's first messages may be there before the relay has taken its partitions up.
        starts = {
            Partition(topic, number): 0
            for topic, count in (await place.store.topics()).items()
            for number in range(count)
        }
        cursors = {**starts, **(relay.cursors if relay else {})}
        jobs: dict[int | None, str] = {}
        counts: Counter[str] = Counter()
        oldest = (await place.store.pending(cursors)).oldest
        async for item in _jobs(place.store):
            counts[item.state] += 1
            jobs[item.position] = item.state
            oldest = item.recorded_at if oldest is None else min(oldest, item.recorded_at)
        counts["pending"] = (await place.store.pending(cursors)).messages
        total = (await place.store.pending(starts)).messages
        counts["sent"] = max(0, total - sum(counts.values()))
        found = _Outbox({each: counts[each] for each in STATES}, oldest)
        source = _sent(place.store, starts, relay, jobs) if state == "sent" else _unsent(place.store, cursors)
        async for item in source:
            if state not in (None, item.state):
                continue
            if len(found.items) == limit:
                found.more = True
                break
            found.items.append(item)
        return found


async def _jobs(store: Store) -> AsyncIterator[_Item]:
    after = 0
    while jobs := await store.jobs(RELAY, limit=PAGE, after_id=after):
        after = jobs[-1].id
        for job in jobs:
            error = job.errors[-1].error if job.errors else ""
            yield _Item(_BY_JOB[job.state], job.position, job.recorded_at, job.message, error)


async def _unsent(store: StoreBackend, cursors: dict[Partition, int]) -> AsyncIterator[_Item]:
    """What failed or waits for another attempt, then what was not tried yet."""
    async for item in _jobs(store):
        yield item
    async for each in _messages(store, cursors):
        yield each


async def _messages(log: Log, start: dict[Partition, int]) -> AsyncIterator[_Item]:
    after = dict(start)
    while True:
        page = await log.read(after, limit=PAGE)
        for each in page.messages:
            yield _Item("pending", each.position, each.recorded_at, each.message)
        if not any(position > after.get(partition, 0) for partition, position in page.after.items()):
            return
        after.update(page.after)


async def _sent(
    log: Log, starts: dict[Partition, int], relay: Group | None, jobs: dict[int | None, str]
) -> AsyncIterator[_Item]:
    """What lies before the relay's mark, and is none of its jobs."""
    cursors = {} if relay is None else relay.cursors
    after = {partition: position for partition, position in starts.items() if cursors.get(partition, 0) > 0}
    while after:
        page = await log.read(after, limit=PAGE)
        for each in page.messages:
            if each.position <= cursors[each.partition] and each.position not in jobs:
                yield _Item("sent", each.position, each.recorded_at, each.message)
        if not any(position > after[partition] for partition, position in page.after.items()):
            return
        after.update(page.after)
        after = {partition: position for partition, position in after.items() if position < cursors[partition]}
