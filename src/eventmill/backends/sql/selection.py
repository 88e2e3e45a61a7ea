"""Which events a read or a condition is about, as SQL. Only placeholders are written into it.

place: takes a value and returns the placeholder that stands for it, `?` or `$7`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from eventmill.core.reading import Types
from eventmill.core.stream import Query

Place = Callable[[str | int], str]


def among(column: str, values: Collection[str], place: Place) -> str:
    return f"{column} IN ({', '.join(place(value) for value in sorted(values))})" if values else "1 = 0"


def filters(place: Place, types: Types | None, topics: Collection[str] | None) -> str:
    """The condition on rows of the log, as `l`, that types and topics make."""
    conditions = []
    if topics is not None:
        conditions.append(among("l.topic", topics, place))
    if types is not None:
        wanted = [among("l.type", types.names, place)] if types.names else []
        wanted += [f"substr(l.type, 1, length({place(prefix)})) = {place(prefix)}" for prefix in sorted(types.prefixes)]
        conditions.append(f"({' OR '.join(wanted) or '1 = 0'})")
    return " AND ".join(conditions) or "1 = 1"


def has(tag: str, row: str, place: Place, tags: str) -> str:
    """The condition that the event at a row's position has a tag. tags: the name of the tags' table."""
    return f"EXISTS (SELECT 1 FROM {tags} AS o WHERE o.tag = {place(tag)} AND o.position = {row}.position)"  # noqa: S608


def tagged(query: Query, place: Place, tags: str) -> str:
    """The condition on rows of the tags' table, as `t`, and of the log, as `l`, that a query with tags makes."""
    first, *others = sorted(query.tags)
    conditions = [f"t.tag = {place(first)}", *(has(tag, "t", place, tags) for tag in others)]
    if query.types:
        conditions.append(among("l.type", query.types, place))
    return " AND ".join(conditions)


def matching(queries: Sequence[Query], place: Place, tags: str) -> str:
    """The condition on rows of the log, as `l`, that one of the queries matches."""
    choices = []
    for query in queries:
        conditions = [has(tag, "l", place, tags) for tag in sorted(query.tags)]
        if query.types:
            conditions.append(among("l.type", query.types, place))
        choices.append(f"({' AND '.join(conditions)})")
    return f"({' OR '.join(choices) or '1 = 0'})"
