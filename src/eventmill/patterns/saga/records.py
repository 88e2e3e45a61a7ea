"""Instances in a store: found, listed, operated on and pruned; no code of the saga's is needed for it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec

from eventmill.core.capabilities import Store
from eventmill.core.errors import ConfigurationError, ConflictError
from eventmill.patterns.saga.instance import (
    ENDED,
    Instance,
    decode,
    document_key,
    encode,
    ended_key,
    ended_prefix,
    prefix_of,
)
from eventmill.patterns.saga.listening import DIGEST
from eventmill.patterns.saga.operate import Action
from eventmill.patterns.saga.operate import operate as apply
from eventmill.patterns.saga.shape import Shape
from eventmill.patterns.saga.wake import wake

PAGE = 200

DEFINITIONS = "saga-definition/"


class Definition(msgspec.Struct, frozen=True):
    """What a store knows of one version of a saga: enough to say what may be done to its instances.

    retired: when it was first found to be declared no more, with nothing in flight; milliseconds since 1970 UTC.
    """

    saga: str
    version: int
    digest: str
    shape: Shape
    retired: int | None = None


def definition_key(saga: str, digest: str) -> str:
    """Where a definition is stored."""
    return f"{DEFINITIONS}{saga}/{digest}"


_definition = msgspec.json.Decoder(Definition).decode


async def definitions(store: Store, saga: str | None = None) -> list[Definition]:
    """The definitions a store has seen, of one saga or of all."""
    prefix = DEFINITIONS if saga is None else f"{DEFINITIONS}{saga}/"
    found: list[Definition] = []
    after = ""
    while page := await store.documents(prefix, after=after, limit=PAGE):
        found += [_definition(each.data) for each in page]
        after = page[-1].key
    return found


async def instances(store: Store, saga: str, *, state: str | None = None) -> AsyncIterator[Instance]:
    """A saga's instances by their keys, page by page: each once, although they change meanwhile."""
    after = ""
    while page := await store.documents(prefix_of(saga), after=after, limit=PAGE):
        for document in page:
            instance = decode(document.data)
            if state is None or instance.state == state:
                yield instance
        after = page[-1].key


async def load(store: Store, saga: str, key: str) -> tuple[Instance, int] | None:
    """An instance and the version of its document."""
    place = document_key(saga, key)
    found = await store.documents(place, limit=1)
    return (decode(found[0].data), found[0].version) if found and found[0].key == place else None


async def operate(
    store: Store, saga: str, key: str, action: Action, *, now: int, id_: str, by: str, why: str, outcome: str = "done"
) -> Instance:
    """Do something to an instance, and wake it. Raises ConfigurationError where there is none, or where it cannot be."""
    for _ in range(20):
        found = await load(store, saga, key)
        if found is None:
            raise ConfigurationError(f"{saga} has no instance {key!r} (or it was pruned)")
        instance, version = found
        known = {each.digest: each.shape for each in await definitions(store, saga)} | {DIGEST: Shape()}
        if instance.digest not in known:
            raise ConfigurationError(
                f"{key!r} was begun with steps of version {instance.version} that are not known here any more: start "
                "the service with a version that migrates it, or with its own"
            )
        apply(known[instance.digest], instance, action, now, by=by, why=why, outcome=outcome)
        try:
            async with store.transaction() as tx:
                tx.put(document_key(saga, key), encode(instance), expected=version)
                if instance.ended:
                    tx.put(ended_key(instance), b"", expected=None)
                tx.send([wake(id_, saga, key, instance.queue, instance.topic, due=now, because=instance)])
        except ConflictError:
            continue
        return instance
    raise ConflictError(f"saga {saga}, {key!r}", expected=version, actual=None)


async def prune(store: Store, saga: str, before: int) -> int:
    """Remove instances that ended before a moment (milliseconds); returns how many."""
    removed = 0
    while page := await store.documents(ended_prefix(saga), limit=PAGE):
        due = [mark for mark in page if int(mark.key[len(ended_prefix(saga)) :].partition("/")[0]) < before]
        async with store.transaction() as tx:
            for mark in due:
                stamp, _, key = mark.key[len(ended_prefix(saga)) :].partition("/")
                found = await tx.get(document_key(saga, key))
                if found is not None:
                    instance = decode(found.data)
                    if instance.state in ENDED and instance.ended_at == int(stamp):
                        tx.put(found.key, None, expected=found.version)
                tx.put(mark.key, None, expected=None)
        removed += len(due)
        if len(due) < len(page) or not due:
            break
    return removed
