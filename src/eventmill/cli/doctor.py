"""`eventmill doctor`: what is wrong with a store, or soon will be, and the remedy for each finding."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator, Mapping

import click

from eventmill.app import App
from eventmill.backends.connect import BrokerBackend, connect_store
from eventmill.backends.sqlite.backend import SqliteBackend
from eventmill.cli.examination import Finding, database_findings, file_findings, newest_of_each_type, sqlite_version
from eventmill.cli.output import counted, document, safe, span
from eventmill.cli.place import Place, file_of, opened
from eventmill.cli.target import is_url, load_app
from eventmill.core.capabilities import Log
from eventmill.core.errors import EventmillError
from eventmill.core.message import Message, Partition
from eventmill.patterns.inbox import remedy, short_inboxes
from eventmill.patterns.relay import RELAY

_SIGNS = {"ok": "ok     ", "warning": "WARNING", "error": "ERROR  "}


@click.command()
@click.argument("target", metavar="APP_OR_URL")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def doctor(target: str, as_json: bool) -> None:
    """Examine a store, and an App's broker. Exit code 1 when something is an error rather than a warning.

    The integrity check reads the whole file, which takes as long as copying it.
    """
    app = None if is_url(target) else load_app(target)
    places: list[tuple[str, BrokerBackend]] = [("store", connect_store(target) if app is None else app.store)]
    if app is not None and app.broker is not app.store:
        places.append(("broker", app.broker))
    found: list[tuple[str, Finding]] = [("here", sqlite_version(_version()))]
    for name, backend in places:
        if isinstance(backend, SqliteBackend):
            found += [(f"{name} {file_of(backend)}", finding) for finding in _files(backend)]
    if not any(finding.level == "error" for _, finding in found):
        found += [("groups", finding) for finding in asyncio.run(_contents(target))]
        for name, backend in places:
            found += [(f"{name} {backend!r}", finding) for finding in asyncio.run(_server(backend))]
    failed = any(finding.level == "error" for _, finding in found)
    if as_json:
        document(
            {
                "ok": not failed,
                "findings": [
                    {
                        "place": place,
                        "level": finding.level,
                        "about": finding.about,
                        "text": finding.text,
                        "remedy": finding.remedy or None,
                    }
                    for place, finding in found
                ],
            }
        )
    else:
        _print(found)
    if failed:
        raise SystemExit(1)


def _version() -> tuple[int, int, int]:
    major, minor, patch = sqlite3.sqlite_version_info[:3]
    return major, minor, patch


def _print(found: list[tuple[str, Finding]]) -> None:
    last = ""
    for place, finding in found:
        if place != last:
            click.echo(safe(place))
            last = place
        click.echo(f"  {_SIGNS[finding.level]}  {finding.about:<11}  {safe(finding.text)}")
        if finding.remedy:
            click.echo(f"           remedy       {safe(finding.remedy)}")


def _files(backend: SqliteBackend) -> Iterator[Finding]:
    path = file_of(backend)
    yield from file_findings(path)
    try:
        yield from database_findings(path)
    except EventmillError as error:
        yield Finding(
            "error", "database", str(error), "check that the URL names the right file, and that it can be read"
        )


async def _server(backend: BrokerBackend) -> list[Finding]:
    """What a backend that stands on a server has to say about it."""
    examine = getattr(backend, "examine", None)
    if examine is None:
        return []
    async with backend:
        return [Finding(*each) for each in await examine()]


async def _contents(target: str) -> list[Finding]:
    async with opened(target) as place:
        found = [finding async for finding in _groups(place)]
        if place.app is not None:
            found += [finding async for finding in _types(place, place.app)]
            found += [finding async for finding in _inbox(place, place.app)]
    return found


async def _groups(place: Place) -> AsyncIterator[Finding]:
    """Dead letters, and groups that nobody runs although others are run: they hold trimming back for ever."""
    groups = await place.store.groups()
    app = place.app
    ours = None if app is None else {*(consumer.group for consumer in app.consumers), RELAY}
    running = any(group.members for group in groups)
    now = time.time()
    for group in groups:
        if group.dead:
            text = f"{group.name}: {counted(group.dead, 'dead letter')}, {group.parked:,} parked behind"
            remedy = f"eventmill dead list … --group {group.name}; mend the cause, then `dead replay` or `dead skip`"
            yield Finding("warning", "dead", text, remedy)
        known = ours is not None and app is not None and (group.name in ours or app.projections.owns(group.name))
        deserted = not group.members and (running if ours is None else not known)
        lag = await place.lag(group) if deserted else None
        if lag is not None and lag.messages:
            age = span(now - lag.oldest / 1000) if lag.oldest is not None else "ever"
            yield Finding(
                "warning",
                "group",
                f"{group.name} has no members, and holds {counted(lag.messages, 'message')} back from trimming for {age}",
                f"run it, or `eventmill groups forget … {group.name}` if it is not coming back",
            )
    if not any(group.dead for group in groups):
        yield Finding("ok", "dead", f"no dead letters in {counted(len(groups), 'group')}")


async def _inbox(place: Place, app: App) -> AsyncIterator[Finding]:
    """Whether the inbox remembers for as long as the broker may bring something back."""
    if place.broker is not None and place.broker is not place.store:
        for problem in await short_inboxes(place.broker, app.consumers, app.settings.inbox_retention):
            yield Finding("warning", "inbox", problem, remedy())


async def _types(place: Place, app: App) -> AsyncIterator[Finding]:
    """Whether the App can read the newest event of each type that its handlers ask for."""
    log = place.broker or place.store
    if not isinstance(log, SqliteBackend):
        return
    topics = await log.topics()
    sound = 0
    for name, (number, position) in sorted(newest_of_each_type(file_of(log)).items()):
        consumers = [*app.consumers, *app.projections.consumers]
        takers = [each for each in consumers if each.types is None or each.types.accepts(name)]
        if not takers or all(each.handler.event_class is Message for each in takers):
            continue
        problem = await _problem(log, topics, app, name, position)
        if problem is None:
            sound += 1
            continue
        who = ", ".join(each.group for each in takers)
        yield Finding(
            "error",
            "types",
            f"{name} ({counted(number, 'message')}), asked for by {who}: {problem}",
            "register the type or the missing upcaster, or the messages become dead letters",
        )
    yield Finding("ok", "types", f"{counted(sound, 'type')} in the log can be decoded")


async def _problem(log: Log, topics: Mapping[str, int], app: App, name: str, position: int) -> str | None:
    """Why the message at a position cannot be decoded."""
    kind = app.registry.named(name)
    if kind is None:
        return "no such type is registered"
    after = {Partition(topic, part): position - 1 for topic, count in topics.items() for part in range(count)}
    for recorded in (await log.read(after, limit=1)).messages:
        try:
            kind.decode(recorded.message.data, recorded.message.version)
        except EventmillError as error:
            return str(error)
    return None
