"""`eventmill check`: whether this code can read everything that is stored."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import click

from eventmill.cli.output import Cell, counted, document, note, safe, table
from eventmill.cli.place import Place, opened
from eventmill.core.errors import ConfigurationError, DecodeError
from eventmill.core.message import Message
from eventmill.core.registry import Registry
from eventmill.patterns.privacy.vault import Vault

PAGE = 1_000


@dataclass(slots=True)
class _Kind:
    """What was found of one type and schema version."""

    messages: int = 0
    unreadable: int = 0
    error: str | None = None
    places: list[str] = field(default_factory=list)


@click.command()
@click.argument("target", metavar="APP")
@click.option("--ignore", multiple=True, metavar="TYPE", help="A type that this App need not know; several times.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def check(target: str, ignore: tuple[str, ...], as_json: bool) -> None:
    """Decode every message of the App's store, in its log and among its waiting and dead letters.

    Run it with the new code before that is deployed: a type nobody has registered, a missing upcaster, a field that no
    longer fits are named, with the first place. Exit code 1 when something cannot be read.
    """
    found = asyncio.run(_check(target, frozenset(ignore)))
    bad = {place: kind for place, kind in found.items() if kind.unreadable}
    if as_json:
        document(
            {
                "ok": not bad,
                "types": [
                    {
                        "type": type_,
                        "version": version,
                        "messages": kind.messages,
                        "unreadable": kind.unreadable,
                        "first_at": kind.places,
                        "error": kind.error,
                    }
                    for (type_, version), kind in sorted(found.items())
                ],
            }
        )
    else:
        rows: list[list[Cell]] = [
            [type_, version, kind.messages, kind.unreadable] for (type_, version), kind in sorted(found.items())
        ]
        table(["TYPE", "VERSION", "MESSAGES", "UNREADABLE"], rows)
        for (type_, version), kind in sorted(bad.items()):
            first = ", ".join(kind.places)
            click.echo(safe(f"\n{type_} version {version}, first at {first}:\n    {kind.error}", lines=True))
        total = sum(kind.messages for kind in found.values())
        note(f"{counted(total, 'message')}, {counted(sum(kind.unreadable for kind in bad.values()), 'unreadable one')}")
    sys.exit(1 if bad else 0)


async def _check(target: str, ignored: frozenset[str]) -> dict[tuple[str, int], _Kind]:
    found: dict[tuple[str, int], _Kind] = {}
    async with opened(target) as place:
        app = place.app
        if app is None:
            raise ConfigurationError(f"{target}: an App is needed here: its event types are what is checked")
        vault = Vault(place.store, app.clock, app.registry)
        end = max((await place.store.end()).values(), default=0)
        hidden = not sys.stderr.isatty()
        with click.progressbar(length=max(end, 1), label="checking", file=sys.stderr, hidden=hidden) as bar:
            async for where, position, message in _messages(place):
                bar.update(max(0, min(position, end) - bar.pos))
                if message.type in ignored:
                    continue
                kind = found.setdefault((message.type, message.version), _Kind())
                kind.messages += 1
                error = await _unreadable(message, app.registry, vault)
                if error is not None:
                    kind.unreadable += 1
                    kind.error = kind.error or error
                    if len(kind.places) < 3:
                        kind.places.append(where)
            bar.update(bar.length - bar.pos if bar.length else 0)
    return found


async def _messages(place: Place) -> AsyncIterator[tuple[str, int, Message]]:
    """Everything stored: where it is, how far through the log that is, and the message."""
    position = 0
    while True:
        page, looked = await place.store.read_all(after=position, limit=PAGE)
        for record in page:
            yield f"position {record.position}", record.position, record.message
        if looked <= position:
            break
        position = looked
    last = 0
    while jobs := await place.store.jobs(limit=PAGE, after_id=last):
        for job in jobs:
            yield f"job {job.id} of {job.queue}", position, job.message
        last = jobs[-1].id or last


async def _unreadable(message: Message, registry: Registry, vault: Vault) -> str | None:
    """Why a message cannot be read; None where it can."""
    kind = registry.named(message.type)
    if kind is None:
        return (
            "no event type of this name is registered: register it, or say --ignore "
            f"{message.type} where this App need not know it"
        )
    try:
        kind.decode(await vault.open(message.type, message.version, message.data), message.version)
    except (DecodeError, ConfigurationError) as error:
        return str(error)
    return None
