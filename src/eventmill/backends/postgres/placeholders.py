"""From `?` and `:name`, which mark parameters on every backend, to the `$1` of PostgreSQL."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from eventmill.core.errors import ConfigurationError
from eventmill.core.rows import SqlParameters

_TOKEN = re.compile(
    r"""
      '(?:[^']|'')*'                          # a string; E'…' is told apart below
    | "(?:[^"]|"")*"                          # a quoted name
    | --[^\n]*                                # a comment to the end of the line
    | /\*                                     # a comment that may be nested
    | \$(?P<tag>[A-Za-z_\u0080-\uffff][\w]*)?\$  # the opening of a dollar-quoted string
    | (?P<doubled>\?\?)
    | (?P<mark>\?)
    | ::|:=
    | :(?P<name>[A-Za-z_]\w*)
    """,
    re.VERBOSE,
)
_ESCAPED = re.compile(r"'(?:[^'\\]|\\.|'')*'", re.DOTALL)
_COMMENT_EDGE = re.compile(r"/\*|\*/")
_FORBIDDEN = frozenset(
    {"BEGIN", "START", "COMMIT", "END", "ROLLBACK", "ABORT", "SAVEPOINT", "RELEASE", "PREPARE", "VACUUM", "COPY"}
)

_BLIND = frozenset({"INSERT", "UPDATE", "DELETE", "MERGE", "CREATE", "ALTER", "DROP", "TRUNCATE", "COMMENT", "GRANT"})
_DEFINING = frozenset({"CREATE", "ALTER", "DROP"})
_RETURNING = re.compile(r"\bRETURNING\b", re.IGNORECASE)


class Translated(NamedTuple):
    """names: the named parameters in the order of their numbers, None where they are marked by place.

    reads: whether it gives rows, on which the caller may base what it writes next.
    defines: whether it creates or changes tables rather than rows.
    """

    sql: bytes
    names: tuple[str, ...] | None
    marks: int
    reads: bool
    defines: bool


@lru_cache(4096)
def translate(sql: str) -> Translated:
    """Raises ConfigurationError for a statement that would end the transaction, or that mixes both kinds of marks.

    What stands in strings, quoted names and comments is left alone. `??` is a `?` of PostgreSQL's own: its JSON
    operators are written `??`, `??|` and `??&`.
    """
    out: list[str] = []
    names: dict[str, int] = {}
    count = at = 0
    while found := _TOKEN.search(sql, at):
        start, end = found.span()
        part = found[0]
        out.append(sql[at:start])
        if part.startswith("'") and start and sql[start - 1] in "eE" and not sql[start - 2 : start - 1].isalnum():
            escaped = _ESCAPED.match(sql, start)
            end = escaped.end() if escaped else len(sql)
        elif part == "/*":
            end = _after_comment(sql, end)
        elif part.startswith("$") and not (start and (sql[start - 1].isalnum() or sql[start - 1] == "_")):
            closing = sql.find(part, end)
            end = len(sql) if closing < 0 else closing + len(part)
        elif found["doubled"]:
            part = "?"
        elif found["mark"]:
            count += 1
            part = f"${count}"
        elif found["name"]:
            part = f"${names.setdefault(found['name'], len(names) + 1)}"
        out.append(part if end == found.end() else sql[start:end])
        at = end
    out.append(sql[at:])
    if count and names:
        raise ConfigurationError(f"a statement marks its parameters by ? or by :name, not by both: {sql[:200]}")
    first = _first_word(sql)
    if first in _FORBIDDEN:
        raise ConfigurationError(f"{first} cannot run inside a transaction of eventmill: it begins and ends by itself")
    text = "".join(out)
    reads = first not in _BLIND or _RETURNING.search(text) is not None
    return Translated(text.encode(), tuple(names) if names else None, len(names) or count, reads, first in _DEFINING)


def _after_comment(sql: str, at: int) -> int:
    depth = 1
    while depth:
        edge = _COMMENT_EDGE.search(sql, at)
        if edge is None:
            return len(sql)
        depth += 1 if edge[0] == "/*" else -1
        at = edge.end()
    return at


def _first_word(sql: str) -> str:
    bare = re.sub(r"^(\s|--[^\n]*\n|/\*.*?\*/)+", "", sql, flags=re.DOTALL)
    word = re.match(r"\w*", bare)
    return word[0].upper() if word else ""


def in_order(translated: Translated, parameters: SqlParameters) -> Sequence[object]:
    """The parameters in the order of their numbers; raises ConfigurationError where they do not fit the statement."""
    if isinstance(parameters, Mapping):
        if translated.names is None:
            if translated.marks or parameters:
                raise ConfigurationError("the statement marks no parameters by :name, but names were given")
            return ()
        missing = [name for name in translated.names if name not in parameters]
        if missing:
            raise ConfigurationError(f"no value for :{missing[0]}")
        return [parameters[name] for name in translated.names]
    if translated.names is not None:
        if len(parameters) != translated.marks:
            raise ConfigurationError(f"the statement marks parameters by name: give a dict with {translated.names}")
        return parameters
    if len(parameters) != translated.marks:
        raise ConfigurationError(f"the statement marks {translated.marks} parameters, {len(parameters)} were given")
    return parameters
