"""A message as the commands show it."""

from __future__ import annotations

import base64
import json
from typing import Any

from eventmill.cli.output import moment, safe
from eventmill.core.message import Message, Recorded


def fields(message: Message) -> dict[str, Any]:
    """Every attribute that is set, under its CloudEvents name, and the data as JSON where it is JSON."""
    found: dict[str, Any] = {
        "id": message.id,
        "source": message.source,
        "type": message.type,
        "time": message.at.isoformat().replace("+00:00", "Z"),
        "partitionkey": message.key,
        "sequence": message.sequence,
        "schemaversion": message.version,
        "subject": message.subject,
        "correlationid": message.correlationid,
        "causationid": message.causationid,
        "traceparent": message.traceparent,
        "datacontenttype": message.contenttype,
        **(message.extensions or {}),
    }
    found = {name: value for name, value in found.items() if value is not None}
    try:
        found["data"] = json.loads(message.data)
    except ValueError:
        # Not JSON, or not even text: CloudEvents has a member for that.
        found["data_base64"] = base64.b64encode(message.data).decode("ascii")
    return found


def recorded_fields(recorded: Recorded) -> dict[str, Any]:
    """The same with where and since when it stands in the log."""
    return {
        "position": recorded.position,
        "topic": recorded.partition.topic,
        "partition": recorded.partition.number,
        "recorded_at": moment(recorded.recorded_at),
        **fields(recorded.message),
    }


def line(recorded: Recorded) -> str:
    """One line for a person."""
    message = recorded.message
    key = "" if message.key is None else f" {message.key}#{message.sequence}"
    text = message.data.decode("utf-8", "backslashreplace")
    head = f"{recorded.position:>8} {moment(recorded.recorded_at)} {recorded.partition} {message.type}{key}"
    return safe(f"{head} {text}")
