"""Appending to the log through a connection that is somebody else's, in their transaction."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any

from eventmill.backends.postgres.append import append_columns, append_to_columns, prepare
from eventmill.core.errors import ConfigurationError
from eventmill.core.message import Message
from eventmill.core.partition import DEFAULT_PARTITIONS

Question = tuple[str, Sequence[object]]
"""A statement with `{}` where its parameters stand, and the parameters."""

_TYPES = (
    "text[]", "text[]", "bigint[]", "text[]", "integer[]", "text[]", "text[]", "integer[]", "integer[]", "text[]",
    "text[]", "bytea[]", "bigint",
)  # fmt: skip

_TYPES_OF_APPENDS = (
    "integer[]", "integer[]", "integer[]", "bigint[]", "text[]", "boolean[]", "text[]", "integer[]", "text[]", "jsonb",
)  # fmt: skip


def appending(messages: Sequence[Message], now: int, schema: str) -> Generator[Question, Any, list[int]]:
    """The statements to run, one after another, each answered with its rows; what is returned are the positions.

    A generator, so that it works on connections that wait and on those that are awaited. now: milliseconds.
    """
    prepared = prepare(messages)
    if not prepared:
        return []
    name = '"' + schema.replace('"', '""') + '"'
    ((table,),) = yield "SELECT to_regclass({})::text", [f"{name}.eventmill_log"]
    if table is None:
        raise ConfigurationError(
            f"schema {schema} of this database has no eventmill tables yet: open it once with App(...), or say schema="
        )
    topics = sorted({message.topic for message, _ in prepared})
    partitions: dict[str, int] = {}
    for _ in range(2):
        rows = yield f"SELECT topic, partitions FROM {name}.eventmill_topics WHERE topic = ANY ({{}}::text[])", [topics]  # noqa: S608
        partitions.update({str(topic): int(count) for topic, count in rows})
        for topic in topics:
            if topic not in partitions:
                yield (
                    f"INSERT INTO {name}.eventmill_topics VALUES ({{}}, {{}}) ON CONFLICT DO NOTHING RETURNING 1",  # noqa: S608
                    [topic, DEFAULT_PARTITIONS],
                )
    places = ", ".join(f"{{}}::{kind}" for kind in _TYPES)
    if any(message.tags for message in messages):
        places += ", " + ", ".join(f"{{}}::{kind}" for kind in _TYPES_OF_APPENDS)
        ((positions,),) = yield (
            f"SELECT positions FROM {name}.eventmill_append_to({places})",  # noqa: S608
            append_to_columns(prepared, partitions, now),
        )
    else:
        ((positions,),) = yield (
            f"SELECT {name}.eventmill_append({places})",
            append_columns(prepared, partitions, now),
        )
    return [int(position) for position in positions]


def numbered(sql: str) -> str:
    """The statement with `$1`, `$2`, …, as asyncpg has them."""
    parts = sql.split("{}")
    return parts[0] + "".join(f"${number}{part}" for number, part in enumerate(parts[1:], 1))


def marked(sql: str) -> str:
    """The statement with `%s`, as psycopg has them."""
    return sql.replace("{}", "%s")


def run(steps: Generator[Question, Any, list[int]], ask: Callable[[str, Sequence[object]], Sequence[Any]]) -> list[int]:
    """Run the statements on a connection that waits."""
    answer: Any = None
    try:
        while True:
            answer = ask(*steps.send(answer))
    except StopIteration as end:
        return list(end.value)
