"""An aggregator's groups in a store: looked at, closed by a person, pruned; and what was made of what."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import msgspec

from eventmill.core.capabilities import Store
from eventmill.core.errors import ConfigurationError
from eventmill.patterns.aggregation.aggregator import Look, job
from eventmill.patterns.aggregation.record import (
    DEFINITIONS,
    Link,
    Record,
    closed_prefix,
    decode,
    definition_key,
    encode,
    page_key,
    past_prefix,
    prefix_of,
)

PAGE = 200


class Definition(msgspec.Struct, frozen=True):
    """That a store has an aggregator of this name, and in words how it was declared."""

    name: str
    rules: str


@dataclass(frozen=True, slots=True)
class Made:
    """One coarse event and what it was made of."""

    aggregation: str
    key: str
    epoch: str
    reason: str
    closed_at: int
    coarse: Sequence[str]
    links: Sequence[Link]


async def definitions(store: Store) -> list[Definition]:
    """The aggregators that a store knows."""
    found = await store.documents(DEFINITIONS, limit=1_000)
    return [msgspec.json.decode(each.data, type=Definition) for each in found]


async def define(store: Store, name: str, rules: str) -> None:
    """Make an aggregator known."""
    made = msgspec.json.encode(Definition(name, rules))
    found = await store.documents(definition_key(name), limit=1)
    if not found or found[0].key != definition_key(name) or found[0].data != made:
        async with store.transaction() as tx:
            tx.put(definition_key(name), made, expected=None)


async def pages(store: Store, name: str) -> AsyncIterator[tuple[str, Record]]:
    """The pages of all its keys: groups that were closed before those in the records."""
    prefix, after = past_prefix(name), ""
    while page := await store.documents(prefix, after=after, limit=PAGE):
        for document in page:
            yield document.key[len(prefix) :].rpartition("/")[0], decode(document.data)
        after = page[-1].key


async def records(store: Store, name: str) -> AsyncIterator[tuple[str, Record]]:
    """An aggregator's keys, each with its open groups and the newest of the closed ones, page by page."""
    prefix, after = prefix_of(name), ""
    while page := await store.documents(prefix, after=after, limit=PAGE):
        for document in page:
            yield document.key[len(prefix) :], decode(document.data)
        after = page[-1].key


async def record(store: Store, name: str, key: str) -> Record | None:
    """All groups of one key."""
    found = await _at(store, prefix_of(name) + key)
    if found is not None:
        past = [await _at(store, page_key(name, key, page.number)) for page in found.past]
        found.closed = [closed for page in past if page is not None for closed in page.closed] + found.closed
    return found


async def _at(store: Store, place: str) -> Record | None:
    found = await store.documents(place, limit=1)
    return decode(found[0].data) if found and found[0].key == place else None


async def close(store: Store, name: str, key: str, *, now: int, id_: str, by: str, why: str) -> int:
    """Have the aggregator close what is open of a key, as if it were complete; returns how many groups are open.

    Its worker does it, in the order of things; it is durable that it will when this returns.
    """
    if not by or not why:
        raise ConfigurationError(f"closing {name}/{key}: say who does it, and why")
    found = await record(store, name, key)
    if found is None or not found.open:
        raise ConfigurationError(f"{name} has no open group of key {key!r}")
    async with store.transaction() as tx:
        tx.send([job(name, id_, Look([key], force=True, by=by, why=why), now)])
    return len(found.open)


async def prune(store: Store, name: str, before: int) -> None:
    """Forget what was closed before a moment (milliseconds): repeats and late events of it are then taken for new."""
    prefix = closed_prefix(name)
    while page := await store.documents(prefix, limit=10):
        due = [mark for mark in page if int(mark.key[len(prefix) :].partition("/")[0]) < before]
        for mark in due:
            async with store.transaction() as tx:
                places = [prefix_of(name) + key for key in json.loads(mark.data)]
                for place, document in (await tx.get_many(places)).items():
                    found = decode(document.data)
                    found.closed = [closed for closed in found.closed if closed.at >= before]
                    key = place.removeprefix(prefix_of(name))
                    for old in found.past:
                        if old.at < before:
                            tx.put(page_key(name, key, old.number), None, expected=None)
                    found.past = [each for each in found.past if each.at >= before]
                    gone = not found.closed and not found.open and not found.past
                    tx.put(place, None if gone else encode(found), expected=document.version)
                tx.put(mark.key, None, expected=None)
        if not due or len(due) < len(page):
            return


# Lineage


async def made_of(store: Store, id_: str) -> Made | None:
    """What a coarse event was made of, by its id; None where it is none, or was forgotten."""
    for each in await definitions(store):
        if not id_.startswith(f"{each.name}/"):
            continue
        key, slash, _ = id_[len(each.name) + 1 :].rpartition("/")
        found = await record(store, each.name, key) if slash else None
        for made in _made(each.name, key, found):
            if id_ in made.coarse:
                return made
        for listed in (records(store, each.name), pages(store, each.name)):
            async for other, found in listed:  # its id is a digest, because the key is long
                for made in _made(each.name, other, found):
                    if id_ in made.coarse:
                        return made
    return None


async def went_into(store: Store, id_: str, key: str | None = None) -> list[Made]:
    """The closed groups that an event was part of, by its id. key: look there first, where the event's key is known."""
    found: list[Made] = []
    for each in await definitions(store):
        if key is not None:
            found += _with(_made(each.name, key, await record(store, each.name, key)), id_)
            if found:
                continue
        for listed in (records(store, each.name), pages(store, each.name)):
            async for other, groups in listed:
                found += _with(_made(each.name, other, groups), id_)
    return found


def _made(name: str, key: str, found: Record | None) -> list[Made]:
    return [
        Made(name, key, closed.epoch, closed.reason, closed.at, closed.coarse, closed.links)
        for closed in (found.closed if found is not None else ())
    ]


def _with(made: Sequence[Made], id_: str) -> list[Made]:
    return [each for each in made if any(link.id == id_ for link in each.links)]
