"""Stored states: what spares a long stream from being read from its beginning. Never trusted, always checked."""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

import msgspec

from eventmill.core.capabilities import Store
from eventmill.core.codec import write_json
from eventmill.core.entity import Entity
from eventmill.core.stream import Stream

log = logging.getLogger("eventmill")


class Snapshot(msgspec.Struct, frozen=True):
    """A state as a document holds it.

    fingerprint: what it depends on, see `Entity.fingerprint`. version, event: where in its stream it was taken, and the id of
    the event there: a stream that holds another one has another history.
    """

    fingerprint: str
    version: int
    event: str
    state: msgspec.Raw


class Taken(NamedTuple):
    """A snapshot that may be begun from."""

    state: Any
    version: int
    event: str


_read = msgspec.json.Decoder(Snapshot).decode


def snapshot_key(entity: Entity[Any], stream: Stream) -> str:
    """The key of the document of a snapshot."""
    return f"snapshot {entity.name} {stream}"


def snapshot_of(entity: Entity[Any], state: object, version: int, last: str) -> bytes:
    """The document of a state at a version. last: the id of the event there."""
    fingerprint = entity.fingerprint()
    return write_json(Snapshot(fingerprint, version, last, msgspec.Raw(write_json(state))))


async def taken(store: Store, entity: Entity[Any], stream: Stream) -> Taken | None:
    """The stored state, if there is one that fits the code and can be read; else None, and the stream is replayed."""
    document = await store.document(snapshot_key(entity, stream))
    if document is None:
        return None
    try:
        snapshot = _read(document.data)
        if snapshot.fingerprint != entity.fingerprint():
            log.info("%s: the snapshot of %s was taken by other code: replaying", entity.name, stream)
            return None
        state = entity.restore(bytes(snapshot.state))
    except (msgspec.MsgspecError, ValueError, TypeError, RecursionError) as error:
        log.warning("%s: the snapshot of %s cannot be read (%s): replaying", entity.name, stream, error)
        return None
    stands = entity.version(state)
    if snapshot.version < 1 or stands not in (None, snapshot.version):
        log.warning("%s: the snapshot of %s is at odds with itself: replaying", entity.name, stream)
        return None
    return Taken(state, snapshot.version, snapshot.event)


def mismatched(entity: Entity[Any], stream: Stream) -> None:
    """Say that a snapshot was not of this stream's history."""
    log.warning("%s: the snapshot of %s is not of this stream's history: replaying", entity.name, stream)
