"""`eventmill history`: the audit trail of one entity."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import click

from eventmill.app import App
from eventmill.cli.output import document, safe
from eventmill.cli.place import Place, opened
from eventmill.cli.record import recorded_fields
from eventmill.cli.target import is_url
from eventmill.core.document import Document
from eventmill.core.errors import DecodeError
from eventmill.core.message import Recorded
from eventmill.core.stream import Stream, closing
from eventmill.patterns.privacy.vault import Vault

PAGE = 1_000


@click.command()
@click.argument("stream", metavar="TOPIC/KEY")
@click.argument("target", metavar="APP_OR_URL")
@click.option("--after", type=click.IntRange(min=0), default=0, help="Begin behind this version.")
@click.option("--limit", type=click.IntRange(min=1), help="Stop after so many events.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def history(stream: str, target: str, after: int, limit: int | None, as_json: bool) -> None:
    """Everything that happened to one entity: version, moment of the commit, type, data, and what it followed from.

    With an App, data is shown as its event types read it now; with a URL, as it is stored.
    """
    if "/" not in stream and "/" in target and not is_url(target):
        raise click.UsageError(f"the stream comes first: eventmill history {target} {stream}")
    asyncio.run(_history(Stream.parse(stream), target, after, limit, as_json))


async def _history(stream: Stream, target: str, after: int, limit: int | None, as_json: bool) -> None:
    async with opened(target) as place:
        stands = await place.store.version(stream)
        if not stands:
            raise click.BadParameter(f"{stream} has no events; `eventmill topics {target}` lists what there is",
                                     param_hint="TOPIC/KEY")  # fmt: skip
        closed = await place.store.document(closing(stream))
        found: list[dict[str, Any]] = []
        left = limit
        while left is None or left > 0:
            page = await place.store.read_stream(stream, after=after, limit=min(PAGE, left or PAGE))
            for stored in page:
                record = stored if place.app is None else await _vault(place, place.app).opened(stored)
                shown = await _fields(place, record)
                if as_json:
                    found.append(shown)
                else:
                    click.echo(_lines(shown))
            if not page:
                break
            after = page[-1].message.sequence or 0
            left = None if left is None else left - len(page)
        if as_json:
            document({"stream": str(stream), "version": stands, "closed": _word(closed), "events": found})
        elif closed is not None:
            click.echo(f"the stream is {_word(closed)}")


def _vault(place: Place, app: App) -> Vault:
    return Vault(place.store, app.clock, app.registry)


def _word(closed: Document | None) -> str | None:
    return None if closed is None else closed.data.decode()


async def _fields(place: Place, record: Recorded) -> dict[str, Any]:
    message = record.message
    shown = {"version": message.sequence, **recorded_fields(record)}
    kind = None if place.app is None else place.app.registry.named(message.type)
    if kind is not None:
        try:
            shown["data"] = json.loads(kind.encode(kind.decode(message.data, message.version)))
        except DecodeError as error:
            shown["unreadable"] = str(error)
    return shown


def _lines(shown: dict[str, Any]) -> str:
    """A line of what happened, and one of where it came from."""
    data = json.dumps(shown["data"], ensure_ascii=False) if "data" in shown else shown.get("data_base64", "")
    first = f"{shown['version']:>6}  {shown['recorded_at']}  {shown['type']}  {data}"
    rest = [f"{name} {shown[key]}" for name, key in _ORIGIN if key in shown]
    return safe(f"{first}\n        {'  '.join(rest)}", lines=True)


_ORIGIN = (
    ("by", "source"),
    ("id", "id"),
    ("caused by", "causationid"),
    ("correlation", "correlationid"),
    ("reverted to version", "revertedto"),
    ("UNREADABLE:", "unreadable"),
)
