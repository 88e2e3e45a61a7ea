"""`eventmill tasks`: what waits, runs and is held, and what operators do about it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import click

from eventmill.cli.office import office_of, offices, owner
from eventmill.cli.output import counted, document, moment, note, safe, table
from eventmill.cli.place import Place, opened
from eventmill.cli.record import fields
from eventmill.cli.standard import StandardGroup
from eventmill.core.errors import ConfigurationError
from eventmill.core.job import Job
from eventmill.patterns.tasks.limit import Limit
from eventmill.patterns.tasks.setting import Setting
from eventmill.patterns.tasks.task import PREFIX

PAGE = 500

STATES = {"waiting": "due", "running": "running", "held": "parked", "dead": "dead"}
WORDS = {state: word for word, state in STATES.items()}


@click.group(cls=StandardGroup)
def tasks() -> None:
    """List tasks (`tasks APP_OR_URL`), show or cancel one, run one now, pause and resume queues.

    A queue is named by itself where an App is given, and as SERVICE/QUEUE where only a store's URL is.
    """


@tasks.command("list")
@click.argument("target", metavar="APP_OR_URL")
@click.option("--queue", help="Only those of this queue.")
@click.option("--state", type=click.Choice(list(STATES)), help="Only those in this state.")
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def list_(target: str, queue: str | None, state: str | None, limit: int, as_json: bool) -> None:
    """Tasks that have not ended, oldest first, and the queues that are not as they are declared.

    HELD: waits until a limit lets it begin. DUE: when it may begin, or since when it is dead.
    """
    found, settings = asyncio.run(_list(target, queue, state, limit + 1))
    if as_json:
        document({"tasks": [_fields(job) for job in found[:limit]], "queues": settings})
    else:
        table(
            ["ID", "QUEUE", "TASK", "STATE", "PRIORITY", "ATTEMPTS", "DUE", "ERROR"],
            [
                [
                    job.reference,
                    job.queue,
                    job.message.type.removeprefix(PREFIX),
                    WORDS.get(job.state, job.state),
                    job.priority,
                    job.attempts,
                    moment(job.due),
                    job.errors[-1].error.splitlines()[0] if job.errors and job.errors[-1].error else "",
                ]
                for job in found[:limit]
            ],
        )
        for each in settings:
            note(f"queue {safe(each['queue'])} {' and '.join(each['said'])}, by an operator's word")
    if len(found) > limit:
        note(f"there are more than these {limit:,}: raise --limit to see them")


async def _list(
    target: str, queue: str | None, state: str | None, limit: int
) -> tuple[list[Job], list[dict[str, Any]]]:
    async with opened(target) as place:
        name = None if queue is None else _queue_of(place, queue)
        found: list[Job] = []
        after = 0
        while len(found) < limit:
            jobs = await place.store.jobs(name, state=STATES.get(state or ""), limit=PAGE, after_id=after)
            if not jobs:
                break
            after = jobs[-1].id
            found += [job for job in jobs if job.reference is not None and job.message.type.startswith(PREFIX)]
        settings = [
            {
                "queue": f"{office.name}/{queue_}",
                "paused": setting.paused,
                "concurrency": setting.concurrency,
                "said": _said(setting),
            }
            for office in await offices(place)
            for queue_, setting in (await office.tasks.settings()).items()
            if _said(setting)
        ]
        return found[:limit], settings


def _said(setting: Setting) -> list[str]:
    """What an operator has said of a queue, in words."""
    said = ["is paused"] if setting.paused else []
    if setting.concurrency is not None:
        said.append(f"runs {counted(setting.concurrency, 'task')} at a time in each process")
    if (limit := setting.limit) is not None:
        rate = None if limit.number is None else (limit.number, limit.per / 1000)
        said.append(f"is limited {_words(Limit(limit.concurrency, rate))}")
    return said


def _queue_of(place: Place, queue: str) -> str:
    """The queue as the store names it."""
    if "/" in queue:
        return queue
    if place.app is None:
        raise click.BadParameter(f"whose {queue!r}? With a store's URL write SERVICE/{queue}", param_hint="queue")
    return f"{place.app.name}/{queue}"


def _fields(job: Job) -> dict[str, Any]:
    return {
        "id": job.reference,
        "queue": job.queue,
        "task": job.message.type.removeprefix(PREFIX),
        "state": WORDS.get(job.state, job.state),
        "priority": job.priority,
        "attempts": job.attempts,
        "due": moment(job.due),
        "sent": moment(job.recorded_at),
        "crashed": job.crashed,
        "errors": [
            {"at": moment(each.at), "attempt": each.attempt, "error": each.error, "trace": each.trace}
            for each in job.errors
        ],
        "message": fields(job.message),
    }


@tasks.command()
@click.argument("target", metavar="APP_OR_URL")
@click.argument("identity", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def show(target: str, identity: str, as_json: bool) -> None:
    """One task whole: its call, every attempt with its error, and its progress or result where those are kept."""
    job, report = asyncio.run(_show(target, identity))
    if as_json:
        document({**({} if job is None else _fields(job)), "report": report})
        return
    if job is not None:
        for name, value in _fields(job).items():
            if name not in ("errors", "message"):
                click.echo(f"{name:<12} {safe(str(value))}")
        for name, value in fields(job.message).items():
            click.echo(f"{safe(name):<12} {safe(value if isinstance(value, str) else repr(value))}")
    for name, value in (report or {}).items():
        if job is None or name in ("done", "total", "note", "result"):
            click.echo(f"{name:<12} {safe(str(value))}")
    for each in job.errors if job is not None else ():
        click.echo(f"\nattempt {each.attempt}, {moment(each.at)}: {safe(each.error, lines=True)}")
        if each.trace:
            click.echo(safe(each.trace.rstrip(), lines=True))


async def _show(target: str, identity: str) -> tuple[Job | None, dict[str, Any] | None]:
    async with opened(target) as place:
        job = await place.store.find(identity)
        for office in await offices(place):
            report = await office.tasks.kept(identity)
            if report is not None:
                shown = {name: getattr(report, name) for name in ("id", "task", "state", "attempt", "done", "total")}
                shown |= {"note": report.note, "result": report.result, "error": report.error}
                shown |= {"at": moment(report.at), "expires": moment(report.expires)}
                return job, shown
        if job is None:
            raise click.BadParameter(f"no task {identity!r} is here: it has ended, or never was", param_hint="ID")
        return job, None


@tasks.command()
@click.argument("target", metavar="APP_OR_URL")
@click.argument("identities", metavar="ID...", nargs=-1, required=True)
def cancel(target: str, identities: tuple[str, ...]) -> None:
    """Cancel tasks: one that waits does not run, one that runs is interrupted within a second."""
    if not asyncio.run(_cancel(target, identities)):
        raise SystemExit(1)


async def _cancel(target: str, identities: Sequence[str]) -> bool:
    well = True
    async with opened(target, write=True) as place:
        for identity in identities:
            job = await place.store.find(identity)
            said = "unknown" if job is None else await (await office_of(place, owner(job))).tasks.cancel(identity)
            if said == "dead":
                note(f"{identity} is dead: see `eventmill dead`, which replays or skips it")
            elif said == "unknown":
                note(f"{identity} has ended, or never was")
            else:
                click.echo(f"{safe(identity)} is {'cancelled' if said == 'cancelled' else 'told to stop'}")
            well = well and said in ("cancelled", "cancelling")
    return well


@tasks.command()
@click.argument("target", metavar="APP_OR_URL")
@click.argument("identities", metavar="ID...", nargs=-1, required=True)
def run(target: str, identities: tuple[str, ...]) -> None:
    """Let tasks that wait for their time run at once."""
    if not asyncio.run(_run(target, identities)):
        raise SystemExit(1)


async def _run(target: str, identities: Sequence[str]) -> bool:
    done = 0
    async with opened(target, write=True) as place:
        for identity in identities:
            job = await place.store.find(identity)
            if job is not None and await (await office_of(place, owner(job))).tasks.run_now(identity):
                done += 1
            else:
                note(f"{identity} does not wait here")
    click.echo(f"{counted(done, 'task')} may run now")
    return done == len(identities)


@tasks.command()
@click.argument("target", metavar="APP_OR_URL")
@click.argument("queue")
def pause(target: str, queue: str) -> None:
    """Let no more tasks of a queue begin, in any process, until it is resumed; those that run go on."""
    asyncio.run(_set(target, queue, paused=True))
    click.echo(f"paused {safe(queue)}")


@tasks.command()
@click.argument("target", metavar="APP_OR_URL")
@click.argument("queue")
def resume(target: str, queue: str) -> None:
    """Go on with a queue that was paused."""
    asyncio.run(_set(target, queue, paused=False))
    click.echo(f"resumed {safe(queue)}")


@tasks.command()
@click.argument("target", metavar="APP_OR_URL")
@click.argument("queue")
@click.argument("concurrency", type=click.IntRange(min=1))
def scale(target: str, queue: str, concurrency: int) -> None:
    """Have each process run so many tasks of a queue at a time, whatever its code declares."""
    asyncio.run(_set(target, queue, concurrency=concurrency))
    click.echo(f"{safe(queue)} runs {counted(concurrency, 'task')} at a time in each process")


@tasks.command()
@click.argument("target", metavar="APP_OR_URL")
@click.argument("queue")
@click.option("--concurrency", type=click.IntRange(min=1), help="So many run at a time, over all processes.")
@click.option("--rate", metavar="N/SECONDS", help="So many begin in any stretch of so many seconds, such as 100/60.")
@click.option("--declared", is_flag=True, help="As the code declares it.")
def limit(target: str, queue: str, concurrency: int | None, rate: str | None, declared: bool) -> None:
    """Change the limit that a queue declares, over all processes, at once; what is not named is as declared."""
    if declared == (concurrency is not None or rate is not None):
        raise click.UsageError("give --concurrency, --rate or both, or else --declared")
    said = None if declared else Limit(concurrency, None if rate is None else _rate(rate))
    asyncio.run(_limit(target, queue, said))
    click.echo(f"{safe(queue)} is limited {'as declared' if said is None else _words(said)}")


def _rate(text: str) -> tuple[int, float]:
    number, _, seconds = text.partition("/")
    try:
        return int(number), float(seconds)
    except ValueError:
        raise click.BadParameter(f"{text!r} is no rate: write N/SECONDS, such as 100/60", param_hint="--rate") from None


def _words(limit: Limit) -> str:
    parts = [] if limit.concurrency is None else [f"to {counted(limit.concurrency, 'task')} at a time"]
    if limit.rate is not None:
        parts.append(f"to {limit.rate[0]} in {limit.rate[1]:g} s")
    return " and ".join(parts)


async def _limit(target: str, queue: str, limit: Limit | None) -> None:
    async with opened(target, write=True) as place:
        name, short = _split(place, queue)
        if limit is not None and place.app is not None and name == place.app.name:
            place.app.tasks.queues[short].refuse_undeclared(limit)
        await (await office_of(place, name)).tasks.limit(short, limit)


async def _set(target: str, queue: str, *, paused: bool | None = None, concurrency: int | None = None) -> None:
    async with opened(target, write=True) as place:
        name, short = _split(place, queue)
        tasks_ = (await office_of(place, name)).tasks
        if concurrency is not None:
            await tasks_.scale(short, concurrency=concurrency)
        elif paused:
            await tasks_.pause(short)
        else:
            await tasks_.resume(short)


def _split(place: Place, queue: str) -> tuple[str, str]:
    """The service and its queue, which must be there, as far as can be known."""
    name, _, short = _queue_of(place, queue).partition("/")
    if place.app is not None and name == place.app.name and short not in place.app.tasks.queues:
        there = ", ".join(sorted(place.app.tasks.queues)) or "none"
        raise ConfigurationError(f"there is no queue {short!r}; there are: {there}")
    return name, short
