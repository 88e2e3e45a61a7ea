"""`eventmill dead`: messages that were given up, and what to do with them."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any

import click

from eventmill.cli.output import counted, document, moment, note, safe, table
from eventmill.cli.place import opened
from eventmill.cli.record import fields
from eventmill.cli.standard import StandardGroup, confirm
from eventmill.core.capabilities import Store
from eventmill.core.job import Job

PAGE = 500


@click.group(cls=StandardGroup)
def dead() -> None:
    """List dead letters (`dead APP_OR_URL`), show one, replay or skip them.

    While a dead letter is there, later messages of its key wait behind it, unless its handler says on_dead="skip".
    """


@dead.command("list")
@click.argument("target", metavar="APP_OR_URL")
@click.option("--group", help="Only those of this group.")
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def list_(target: str, group: str | None, limit: int, as_json: bool) -> None:
    """Dead letters, oldest first, with their last error."""
    found, more = asyncio.run(_list(target, group, limit))
    if as_json:
        document([_fields(job) for job in found])
    else:
        table(
            ["ID", "GROUP", "TYPE", "KEY", "ATTEMPTS", "SINCE", "ERROR"],
            [
                [job.id, job.queue, job.message.type, job.message.key, job.attempts, _since(job), _last_error(job)]
                for job in found
            ],
        )
    if more:
        note(f"there are more than these {limit:,}: raise --limit to see them")


def _since(job: Job) -> str | None:
    return moment(job.errors[-1].at) if job.errors else None


def _last_error(job: Job) -> str:
    return job.errors[-1].error.splitlines()[0] if job.errors and job.errors[-1].error else ""


def _fields(job: Job) -> dict[str, Any]:
    return {
        "id": job.id,
        "group": job.queue,
        "attempts": job.attempts,
        "topic": job.message.topic,
        "partition": None if job.partition is None else job.partition.number,
        "position": job.position,
        "recorded_at": moment(job.recorded_at),
        "errors": [
            {"at": moment(each.at), "attempt": each.attempt, "error": each.error, "trace": each.trace}
            for each in job.errors
        ],
        "message": fields(job.message),
    }


async def _list(target: str, group: str | None, limit: int) -> tuple[list[Job], bool]:
    async with opened(target) as place:
        await _known(place.store, group)
        jobs = await place.store.jobs(group, state="dead", limit=limit + 1)
        return list(jobs[:limit]), len(jobs) > limit


async def _known(store: Store, group: str | None) -> None:
    names = {each.name for each in await store.groups()}
    if group is not None and group not in names:
        there = ", ".join(sorted(names)) or "none"
        raise click.BadParameter(f"there is no group {group!r}; there are: {there}", param_hint="--group")


@dead.command()
@click.argument("target", metavar="APP_OR_URL")
@click.argument("number", type=int, metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def show(target: str, number: int, as_json: bool) -> None:
    """One dead letter whole: the message, every attempt with its error and trace, and what waits behind it."""
    job, behind = asyncio.run(_show(target, number))
    if as_json:
        document({**_fields(job), "parked_behind": behind})
        return
    for name, value in fields(job.message).items():
        click.echo(f"{safe(name):<16} {safe(value if isinstance(value, str) else repr(value))}")
    click.echo(f"{'group':<16} {safe(job.queue)}")
    click.echo(f"{'parked behind':<16} {behind:,}")
    for each in job.errors:
        click.echo(f"\nattempt {each.attempt}, {moment(each.at)}: {safe(each.error, lines=True)}")
        if each.trace:
            click.echo(safe(each.trace.rstrip(), lines=True))


async def _show(target: str, number: int) -> tuple[Job, int]:
    async with opened(target) as place:
        store = place.store
        jobs = await store.jobs(None, state="dead", limit=1, after_id=number - 1)
        if not jobs or jobs[0].id != number:
            raise click.BadParameter(f"{number} is not a dead letter here", param_hint="ID")
        job = jobs[0]
        behind = 0
        if job.lane is not None:
            async for each in _pages(store, job.queue, "parked"):
                behind += sum(1 for parked in each if parked.lane == job.lane)
        return job, behind


async def _pages(store: Store, group: str | None, state: str) -> AsyncIterator[list[Job]]:
    """The jobs of a state, a page at a time, each looked at once although they change meanwhile."""
    after = 0
    while jobs := await store.jobs(group, state=state, limit=PAGE, after_id=after):
        yield list(jobs)
        after = jobs[-1].id


@dead.command()
@click.argument("target", metavar="APP_OR_URL")
@click.argument("numbers", type=int, nargs=-1, metavar="[ID]...")
@click.option("--group", help="All of this group.")
@click.option("--all", "everything", is_flag=True, help="All there are.")
def replay(target: str, numbers: tuple[int, ...], group: str | None, everything: bool) -> None:
    """Let dead letters be tried again, with fresh attempts; what waits behind each one follows when it succeeds."""
    if not asyncio.run(_settle(target, numbers, group, everything, "replayed")):
        raise SystemExit(1)


@dead.command()
@click.argument("target", metavar="APP_OR_URL")
@click.argument("numbers", type=int, nargs=-1, metavar="[ID]...")
@click.option("--group", help="All of this group.")
@click.option("--all", "everything", is_flag=True, help="All there are.")
@click.option("--yes", is_flag=True, help="Do not ask before --group or --all.")
def skip(target: str, numbers: tuple[int, ...], group: str | None, everything: bool, yes: bool) -> None:
    """Drop dead letters for good, and let what waits behind them go on without them."""
    if not numbers and (group or everything):
        confirm(f"dropping every dead letter of {group or target}", yes=yes)
    if not asyncio.run(_settle(target, numbers, group, everything, "skipped")):
        raise SystemExit(1)


async def _settle(target: str, numbers: tuple[int, ...], group: str | None, everything: bool, word: str) -> bool:
    """Replay or skip; False when some of the given IDs were no dead letters."""
    if sum((bool(numbers), group is not None, everything)) != 1:
        raise click.UsageError("say which: some IDs, --group NAME, or --all")
    async with opened(target, write=True) as place:
        store = place.store
        act = store.replay if word == "replayed" else store.skip
        done = 0
        if numbers:
            for number in numbers:
                if await act([number]):
                    done += 1
                else:
                    note(f"{number} is not a dead letter here")
        else:
            await _known(store, group)
            # Listed first: what dies meanwhile, perhaps because of this, was not meant.
            ids = [job.id async for jobs in _pages(store, group, "dead") for job in jobs]
            with click.progressbar(length=len(ids), label=word, file=sys.stderr, hidden=not sys.stderr.isatty()) as bar:
                for start in range(0, len(ids), PAGE):
                    chunk = ids[start : start + PAGE]
                    done += await act(chunk)
                    bar.update(len(chunk))
        click.echo(f"{word} {counted(done, 'message')}")
        return done == len(numbers) or not numbers
