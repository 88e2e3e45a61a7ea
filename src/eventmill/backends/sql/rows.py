"""Messages as rows of the log, and back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from eventmill.core.job import Job, JobError
from eventmill.core.message import JSON, Message, Partition, Recorded

LogRow = tuple[int, str, int, str, str | None, int | None, str, int, bytes, bytes]


class Attributes(msgspec.Struct, omit_defaults=True, gc=False):
    """What of a message is neither filtered nor indexed: one JSON column.

    sequence: only where another log gave it; this log's own count stands in its own column.
    correlationid: left out where it is the message's own id, as where a correlation begins; "" for none at all.
    """

    source: str
    time: int
    version: int = 1
    subject: str | None = None
    correlationid: str | None = None
    causationid: str | None = None
    traceparent: str | None = None
    contenttype: str = JSON
    extensions: dict[str, str] | None = None
    sequence: int | None = None
    tags: tuple[str, ...] = ()


SEQUENCE = 5
"""The column of a log row that holds this log's own count."""

_tuple = tuple.__new__
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Attributes).decode
_encode_message = msgspec.msgpack.Encoder().encode
_decode_message = msgspec.msgpack.Decoder(Message).decode
_decode_errors = msgspec.json.Decoder(list[JobError]).decode


def attributes(message: Message) -> bytes:
    return _encode(
        Attributes(
            message.source,
            message.time,
            message.version,
            message.subject,
            None if message.correlationid == message.id else message.correlationid or "",
            message.causationid,
            message.traceparent,
            message.contenttype,
            message.extensions,
            message.sequence,
            message.tags,
        )
    )


def numbered(rows: Iterable[Sequence[Any]]) -> list[Recorded]:
    """Rows of one stream as its events: an event's number is its version here, also where another log had given one."""
    found = []
    for row in rows:
        record = recorded(row)
        if record.message.sequence != row[SEQUENCE]:
            message = msgspec.structs.replace(record.message, sequence=row[SEQUENCE])
            record = msgspec.structs.replace(record, message=message)
        found.append(record)
    return found


def recorded(row: Sequence[Any]) -> Recorded:
    """A row of the log as the message it holds."""
    position, topic, partition, type_, key, sequence, id_, recorded_at, attributes_, data = row
    rest = _decode(attributes_)
    message = Message(
        id=id_,
        source=rest.source,
        type=type_,
        topic=topic,
        time=rest.time,
        data=data,
        key=key,
        version=rest.version,
        sequence=sequence if rest.sequence is None else rest.sequence,
        subject=rest.subject,
        correlationid=id_ if rest.correlationid is None else rest.correlationid or None,
        causationid=rest.causationid,
        traceparent=rest.traceparent,
        contenttype=rest.contenttype,
        extensions=rest.extensions,
        tags=rest.tags,
    )
    # A named tuple's own constructor is a Python function, and this is done for every message read.
    return Recorded(position, _tuple(Partition, (topic, partition)), recorded_at, message)


def job_row(job: Job, state: str) -> tuple[object, ...]:
    return (
        job.queue,
        job.lane,
        state,
        job.due,
        job.attempts,
        job.recorded_at,
        job.partition.topic if job.partition else None,
        job.partition.number if job.partition else None,
        job.position,
        b"[]" if not job.errors else _encode(job.errors),
        _encode_message(job.message),
        job.priority,
        job.reference,
    )


def errors(job: Job) -> bytes:
    return _encode(job.errors)


def jobs(rows: Iterable[Sequence[Any]]) -> list[Job]:
    """Rows of the jobs table (statement `job_columns`) as jobs."""
    return [
        Job(
            id=id_,
            queue=queue,
            lane=lane,
            state=state,
            due=due,
            attempts=attempts,
            token=token,
            crashed=crashed,
            recorded_at=recorded_at,
            partition=None if topic is None else Partition(topic, partition),
            position=position,
            errors=[] if errors_ == b"[]" else _decode_errors(errors_),
            message=_decode_message(message),
            priority=priority,
            reference=reference,
        )
        for (
            id_,
            queue,
            lane,
            state,
            due,
            attempts,
            token,
            crashed,
            recorded_at,
            topic,
            partition,
            position,
            errors_,
            message,
            priority,
            reference,
        ) in rows
    ]
