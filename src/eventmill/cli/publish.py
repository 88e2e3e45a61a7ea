"""`eventmill publish`: events from the command line, or from lines of JSON."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from difflib import get_close_matches
from itertools import islice

import click
import msgspec

from eventmill.app import App
from eventmill.cli.output import counted
from eventmill.cli.place import opened
from eventmill.cli.target import is_url, load_app
from eventmill.core.clock import Ids, SystemClock
from eventmill.core.envelope import Envelopes
from eventmill.core.errors import DecodeError, MessageError
from eventmill.core.event import named
from eventmill.core.registry import EventType, Registry

BATCH = 500

Make = Callable[[bytes], object]
Send = Callable[[Sequence[object]], Awaitable[Sequence[int]]]


@click.command()
@click.argument("target", metavar="APP_OR_URL")
@click.argument("name", metavar="TYPE")
@click.argument("data", metavar="[JSON]", required=False)
@click.option("--key", help="Messages of one topic and key keep their order. An App's event types know their own.")
@click.option("--any-type", is_flag=True, help="Let an App publish a type it has not registered, unchecked.")
@click.option("--count", is_flag=True, help="Print only how many were published.")
def publish(target: str, name: str, data: str | None, key: str | None, any_type: bool, count: bool) -> None:
    """Publish JSON as an event of TYPE; without JSON, each line of standard input becomes one.

    With an App the data is checked against the type it has registered, before anything is stored.
    Lines are stored 500 at a time; at a bad one, which is named, publishing stops.
    """
    if data is None:
        lines: Iterable[bytes] = sys.stdin.buffer
    else:
        lines = [data.encode("utf-8", "surrogateescape")]
    positions = asyncio.run(_publish(target, name, lines, key, any_type))
    total = len(positions)
    if count:
        click.echo(total)
    else:
        where = "" if not positions else f", position {_range(positions)}"
        click.echo(f"published {counted(total, 'message')} of {name}{where}")


def _range(positions: Sequence[int]) -> str:
    return str(positions[0]) if len(positions) == 1 else f"{positions[0]} to {positions[-1]}"


async def _publish(target: str, name: str, lines: Iterable[bytes], key: str | None, any_type: bool) -> list[int]:
    if not is_url(target):
        app = load_app(target)
        kind = app.registry.named(name)
        if kind is None and not any_type:
            raise click.BadParameter(_unregistered(app, name), param_hint="TYPE")
        async with app:
            return await _stream(lines, lambda line: _event(name, kind, line, key), lambda some: app.publish(*some))
    clock = SystemClock()
    envelopes = Envelopes("eventmill.cli", clock, Ids(clock), Registry())
    async with opened(target, write=True) as place:

        async def send(events: Sequence[object]) -> Sequence[int]:
            return await place.store.publish([envelopes(event) for event in events])

        return await _stream(lines, lambda line: _event(name, None, line, key), send)


def _unregistered(app: App, name: str) -> str:
    names = sorted(app.registry.names())
    close = get_close_matches(name, names, n=1)
    hint = f"did you mean {close[0]}? " if close else f"it knows {', '.join(names) or 'none'}. "
    return f"{app.name} has no event type {name!r}; {hint}--any-type publishes it unchecked"


def _event(name: str, kind: EventType | None, line: bytes, key: str | None) -> object:
    """What to publish for one line. Raises DecodeError."""
    event = None if kind is None else kind.decode(line, kind.version)
    if event is not None and key is None:
        return event
    try:
        return named(name, msgspec.json.decode(line), key=key)
    except msgspec.DecodeError as error:
        raise DecodeError(f"this is not JSON: {error}") from error


async def _stream(lines: Iterable[bytes], make: Make, send: Send) -> list[int]:
    """Publish in batches; a bad line ends it, after what came before it was published."""
    positions: list[int] = []
    numbered = _numbered(lines)
    while batch := list(islice(numbered, BATCH)):
        events: list[object] = []
        wrong: MessageError | None = None
        for number, line in batch:
            try:
                events.append(make(line))
            except MessageError as error:
                wrong = DecodeError(f"line {number}: {error}")
                break
        if events:
            positions += await send(events)
        if wrong is not None:
            raise DecodeError(f"{wrong}; {counted(len(positions), 'message')} before it published")
    return positions


def _numbered(lines: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """Lines with their numbers, without the empty ones."""
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if text:
            yield number, text
