"""What is kept of a task that says `keep=`: its state, its progress, its result."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from eventmill.core.capabilities import Transaction
from eventmill.core.codec import write_json
from eventmill.core.errors import EncodeError
from eventmill.core.job import MAX_PRIORITY
from eventmill.patterns.tasks.call import CallSpec, Desk
from eventmill.runtime.transaction import Transaction as RuntimeTransaction

State = Literal["waiting", "running", "done", "dead", "cancelled"]

EXPIRE = "eventmill.expire"
"""The task that removes a document when its time is over."""


class Report(msgspec.Struct, omit_defaults=True):
    """How far a task is, or how it ended.

    at: milliseconds since 1970 UTC. done, total, note: its progress, as it last told it. result: what it returned, as
    JSON has it. error: why it is dead. expires: when this is removed, in milliseconds.
    """

    id: str
    task: str
    state: State
    at: int = 0
    attempt: int = 0
    done: float | None = None
    total: float | None = None
    note: str = ""
    result: Any = None
    error: str = ""
    expires: int = 0


decode_report = msgspec.json.Decoder(Report).decode


IN_USE = 60_000
"""Milliseconds after which a document that is in use is looked at again."""


def result_key(prefix: str, identity: str) -> str:
    return f"{prefix}result/{identity}"


def encode_report(report: Report) -> bytes:
    """Raises EncodeError where the result is nothing that JSON holds."""
    try:
        return write_json(report)
    except MemoryError:
        raise
    except Exception as error:
        raise EncodeError(f"task {report.task}: its result cannot be written as JSON: {error}") from error


def keep(unit: Transaction, desk: Desk, queue: str, report: Report, seconds: float) -> None:
    """Stage a report, and its removal after so many seconds."""
    report.at = int(desk.clock.now() * 1000)
    report.expires = report.at + int(seconds * 1000)
    key = result_key(desk.prefix, report.id)
    unit.put(key, encode_report(report), expected=None)
    expire(unit, desk, queue, key, report.expires)


def expire(unit: Transaction, desk: Desk, queue: str, key: str, at: int) -> None:
    """Stage the removal of a document, as a job of a queue, the store's name for it; again, if need be, as one of the same."""
    data = msgspec.Raw(write_json({"key": key, "queue": queue}))
    unit.send([desk.job(CallSpec(f"task.{EXPIRE}", queue, data, -MAX_PRIORITY), at, None)])


class _Dated(msgspec.Struct):
    expires: int = 0
    running: dict[str, int] = {}


_decode_dated = msgspec.json.Decoder(_Dated).decode


async def remove(key: str, tx: RuntimeTransaction, desk: Desk, queue: str) -> None:
    """Delete a document; later, where it was written anew since and is to be kept for longer, or is in use."""
    found = await tx.get(key)
    if found is None:
        return
    now = int(desk.clock.now() * 1000)
    dated = _decode_dated(found.data)
    if dated.expires > now or dated.running:
        expire(tx.unit, desk, queue, key, max(dated.expires, now + IN_USE))
    else:
        tx.put(key, None, expected=found.version)
