"""`eventmill sagas`: where each instance stands, what happened to it, and what a person may do."""

from __future__ import annotations

import asyncio
import getpass
import time
from collections.abc import Callable
from typing import Any

import click

from eventmill.cli.output import document, moment, note, safe, span, table
from eventmill.cli.place import opened
from eventmill.cli.standard import StandardGroup
from eventmill.core.capabilities import Store
from eventmill.core.clock import Ids, SystemClock
from eventmill.patterns.saga.instance import ENDED, Instance, StepRecord, as_json
from eventmill.patterns.saga.operate import Action
from eventmill.patterns.saga.records import definitions, instances, load
from eventmill.patterns.saga.records import operate as operate_on

STATES = ["EARLY", "RUNNING", "COMPENSATING", "COMPLETED", "COMPENSATED", "NEEDS_ATTENTION"]


@click.group(cls=StandardGroup)
def sagas() -> None:
    """List sagas (`sagas APP_OR_URL`), show the history of one, and help on what needs attention.

    ID is the saga's name and the key, such as shop.checkout/A-17; the key alone will do where the store has one saga.
    """


@sagas.command("list")
@click.argument("target", metavar="APP_OR_URL")
@click.option("--saga", help="Only those of this one, such as shop.checkout.")
@click.option("--state", type=click.Choice(STATES, case_sensitive=False), help="Only those that stand so.")
@click.option("--open", "only_open", is_flag=True, help="Only those that have not ended.")
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def list_(target: str, saga: str | None, state: str | None, only_open: bool, limit: int, as_json: bool) -> None:
    """Instances by saga and key, with where they stand and since when."""
    found, more = asyncio.run(_list(target, saga, state, only_open, limit))
    if as_json:
        document([_summary(each) for each in found])
    else:
        table(
            ["SAGA", "KEY", "STATE", "AT", "STARTED", "TOOK", "REASON"],
            [
                [each.saga, each.key, each.state, _at(each), moment(each.started_at), span(_seconds(each)), each.reason]
                for each in found
            ],
        )
    if more:
        note(f"there are more than these {limit:,}: raise --limit to see them")


async def _list(
    target: str, saga: str | None, state: str | None, only_open: bool, limit: int
) -> tuple[list[Instance], bool]:
    async with opened(target) as place:
        names = await _names(place.store)
        if saga is not None and saga not in names:
            raise click.BadParameter(f"there is no saga {saga!r}; there are: {', '.join(names) or 'none'}")
        found: list[Instance] = []
        for name in [saga] if saga else names:
            async for each in instances(place.store, name, state=state):
                if only_open and each.ended:
                    continue
                if len(found) == limit:
                    return found, True
                found.append(each)
        return found, False


async def _names(store: Store) -> list[str]:
    return sorted({each.saga for each in await definitions(store)})


def _at(instance: Instance) -> str | None:
    """The step it stands at."""
    if instance.state in ENDED:
        return None
    return instance.halted or (instance.steps[-1].name if instance.steps else None)


def _seconds(instance: Instance) -> float | None:
    return None if instance.ended_at is None else (instance.ended_at - instance.started_at) / 1000


def _summary(instance: Instance) -> dict[str, Any]:
    return {
        "saga": instance.saga,
        "key": instance.key,
        "state": instance.state,
        "version": instance.version,
        "at": _at(instance),
        "started_at": moment(instance.started_at),
        "ended_at": moment(instance.ended_at),
        "reason": instance.reason,
    }


@sagas.command()
@click.argument("target", metavar="APP_OR_URL")
@click.argument("name", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def show(target: str, name: str, as_json: bool) -> None:
    """One instance whole: its steps, and its history with attempts, answers, compensations and operators' actions."""
    found = asyncio.run(_show(target, name))
    if as_json:
        whole = as_json_times(found)
        document(whole)
        return
    for label, value in _summary(found).items():
        click.echo(f"{label:<12} {safe(str('-' if value is None else value))}")
    if found.locks:
        click.echo(f"{'locks':<12} {safe(', '.join(found.locks))}")
    click.echo()
    table(["STEP", "STATE", "ATTEMPTS", "TOOK", "ERROR"], [_step(each) for each in found.steps])
    click.echo()
    before = found.started_at
    for entry in found.timeline:
        who = f" by {entry.by}" if entry.by else ""
        attempt = f" #{entry.attempt}" if entry.attempt > 1 else ""
        line = f"{moment(entry.at)}  +{(entry.at - before) / 1000:.3f} s  {entry.what:<18} {entry.step}{attempt}{who}  {entry.detail}"
        click.echo(safe(line).rstrip())
        before = entry.at
    if found.dropped:
        note(f"{found.dropped:,} entries of the history were dropped after the first hundred")


def _step(record: StepRecord) -> list[str | int | None]:
    took = None if record.ended_at is None else span((record.ended_at - record.started_at) / 1000)
    return [record.name, record.state, record.attempts + record.undo_attempts, took, record.error]


def as_json_times(instance: Instance) -> dict[str, Any]:
    """The instance with its times as text, and how long each entry of the history came after the one before."""
    found = as_json(instance)
    for name in ("started_at", "ended_at", "deadline", "timer"):
        if name in found:
            found[name] = moment(found[name])
    for step in found.get("steps", ()):
        for name in ("started_at", "ended_at", "due", "patience"):
            if name in step:
                step[name] = moment(step[name])
    before = instance.started_at
    for entry in found.get("timeline", ()):
        entry["after_ms"], before = entry["at"] - before, entry["at"]
        entry["at"] = moment(entry["at"])
    return found


async def _show(target: str, name: str) -> Instance:
    async with opened(target) as place:
        saga, key = await _which(place.store, name)
        found = await load(place.store, saga, key)
        if found is None:
            raise click.BadParameter(f"{saga} has no instance {key!r} (or it was pruned)", param_hint="ID")
        return found[0]


async def _which(store: Store, name: str) -> tuple[str, str]:
    names = await _names(store)
    saga, slash, key = name.partition("/")
    if slash and saga in names:
        return saga, key
    if len(names) == 1:
        return names[0], name
    there = ", ".join(names) or "none"
    raise click.BadParameter(f"{name!r}: write SAGA/KEY; there are these sagas: {there}", param_hint="ID")


# What a person does


def _operation(action: Action, words: str) -> Callable[..., None]:
    """The command for one action."""

    @sagas.command(action, help=words)
    @click.argument("target", metavar="APP_OR_URL")
    @click.argument("name", metavar="ID")
    @click.option("--why", default="", help="The reason; it is kept in the history.")
    @click.option("--by", default=None, help="Who does it; the user's name by default.")
    @click.option("--json", "as_json", is_flag=True, help="One JSON document.")
    def command(target: str, name: str, why: str, by: str | None, as_json: bool, failed: bool = False) -> None:
        who = by or getpass.getuser()
        found = asyncio.run(_operate(target, name, action, who, why, "failed" if failed else "done"))
        if as_json:
            document(_summary(found))
        else:
            click.echo(f"{found.saga}/{found.key}: {found.state}")

    if action == "resolve":
        click.option("--failed", is_flag=True, help="It did not take place, and is to count as failed.")(command)
    return command


async def _operate(target: str, name: str, action: Action, by: str, why: str, outcome: str) -> Instance:
    async with opened(target, write=True) as place:
        saga, key = await _which(place.store, name)
        return await operate_on(
            place.store, saga, key, action, now=int(time.time() * 1000), id_=Ids(SystemClock())(),
            by=by, why=why, outcome=outcome,
        )  # fmt: skip


retry = _operation("retry", "Try again what failed, with fresh attempts.")
skip = _operation("skip", "Go on without what failed: it is not done, and will not be. Say why.")
resolve = _operation("resolve", "What failed was seen to by hand: it counts as done. Say why.")
resume = _operation("resume", "Wake an instance that stands still, and let go of whoever drove it.")
cancel = _operation("cancel", "Undo everything the instance has done; refused past its point of no return. Say why.")
