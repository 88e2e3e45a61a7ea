"""`eventmill schedules`: what fires when, and what operators do about it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import click

from eventmill.cli.office import Office, offices
from eventmill.cli.output import document, moment, safe, table
from eventmill.cli.place import opened
from eventmill.cli.standard import StandardGroup
from eventmill.patterns.tasks.schedules import Plan
from eventmill.patterns.tasks.task import PREFIX
from eventmill.patterns.tasks.timing import Timing


@click.group(cls=StandardGroup)
def schedules() -> None:
    """List schedules (`schedules APP_OR_URL`), pause, resume or edit one, or run it now."""


@schedules.command("list")
@click.argument("target", metavar="APP_OR_URL")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def list_(target: str, as_json: bool) -> None:
    """Each schedule with its next moment, and how often it has fired."""
    found = asyncio.run(_list(target))
    if as_json:
        document([_fields(service, plan) for service, plan in found])
        return
    table(
        ["SCHEDULE", "SERVICE", "TASK", "WHEN", "NEXT", "LAST", "FIRES", ""],
        [
            [
                plan.name,
                service,
                plan.call.type.removeprefix(PREFIX),
                when(plan.timing),
                None if plan.paused else moment(plan.next),
                moment(plan.last),
                plan.fires,
                ", ".join([*(["paused"] if plan.paused else []), *(["edited"] if plan.edited else [])]),
            ]
            for service, plan in found
        ],
    )


def when(timing: Timing) -> str:
    """A timing in a few words."""
    return f"{timing.cron} {timing.tz}" if timing.cron is not None else f"every {timing.every:g} s"


def _fields(service: str, plan: Plan) -> dict[str, Any]:
    timing = plan.timing
    return {
        "schedule": plan.name,
        "service": service,
        "task": plan.call.type.removeprefix(PREFIX),
        "cron": timing.cron,
        "every": timing.every,
        "tz": timing.tz,
        "missed": timing.missed,
        "tolerance": timing.tolerance,
        "paused": plan.paused,
        "edited": plan.edited,
        "next": moment(plan.next),
        "last": moment(plan.last),
        "fires": plan.fires,
    }


async def _list(target: str) -> list[tuple[str, Plan]]:
    async with opened(target) as place:
        return [(office.name, plan) for office in await offices(place) for plan in await office.tasks.schedules.list()]


async def _act(target: str, name: str, act: Callable[[Office], Awaitable[object]]) -> object:
    async with opened(target, write=True) as place:
        having = [
            office
            for office in await offices(place)
            if any(plan.name == name for plan in await office.tasks.schedules.list())
        ]
        if len(having) > 1:
            services = ", ".join(office.name for office in having)
            raise click.UsageError(f"several services here have a schedule {name!r} ({services}): name the App instead")
        if not having:
            raise click.BadParameter(f"there is no schedule {name!r}; see `eventmill schedules`", param_hint="NAME")
        return await act(having[0])


@schedules.command()
@click.argument("target", metavar="APP_OR_URL")
@click.argument("name")
def pause(target: str, name: str) -> None:
    """Let a schedule not fire until it is resumed; what it misses meanwhile is not made up for."""
    asyncio.run(_act(target, name, lambda office: office.tasks.schedules.pause(name)))
    click.echo(f"paused {safe(name)}")


@schedules.command()
@click.argument("target", metavar="APP_OR_URL")
@click.argument("name")
def resume(target: str, name: str) -> None:
    """Let a schedule fire again, from its next moment on."""
    asyncio.run(_act(target, name, lambda office: office.tasks.schedules.resume(name)))
    click.echo(f"resumed {safe(name)}")


@schedules.command()
@click.argument("target", metavar="APP_OR_URL")
@click.argument("name")
def run(target: str, name: str) -> None:
    """Send a schedule's task at once, beside its plan; prints the task's id."""
    click.echo(asyncio.run(_act(target, name, lambda office: office.tasks.schedules.run_now(name))))


@schedules.command()
@click.argument("target", metavar="APP_OR_URL")
@click.argument("name")
@click.option("--cron", help="Minute, hour, day, month, weekday.")
@click.option("--every", type=float, help="Seconds.")
@click.option("--tz", default="UTC", show_default=True, help="Time zone of --cron.")
@click.option("--missed", type=click.Choice(["once", "skip", "all"]), default="once", show_default=True)
@click.option("--declared", is_flag=True, help="As its code says again.")
def edit(target: str, name: str, cron: str | None, every: float | None, tz: str, missed: Any, declared: bool) -> None:
    """Have a schedule fire at other times than its code says, until it is edited again."""
    if declared and (cron or every):
        raise click.UsageError("say --declared, or other times, not both")
    timing = None if declared else Timing(cron, every, tz, missed)
    asyncio.run(_act(target, name, lambda office: office.tasks.schedules.edit(name, timing)))
    click.echo(f"{safe(name)} fires {'as declared' if timing is None else safe(when(timing))}")
