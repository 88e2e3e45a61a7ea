"""Projections as the user declares them: a class whose methods fold events into rows of tables of its own."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Protocol, TypeVar, cast

from eventmill.core.errors import ConfigurationError, UnknownEventError
from eventmill.core.reading import Types
from eventmill.core.registry import Registry
from eventmill.core.retry import RetryPolicy, exponential
from eventmill.patterns.consumers import annotated_types, topics_of, types_wanted
from eventmill.runtime.handler import Handler
from eventmill.runtime.transaction import Transaction

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,60}", re.ASCII)
TABLE = re.compile(r"[a-z_][a-z0-9_]{0,39}", re.ASCII)
"""Plain names need no quotes anywhere, and leave room for a generation's number, and for index names made of them."""

BATCH = 500
"""Events a projection takes in one commit, at most."""

_MARK = "__eventmill_on__"

Method = TypeVar("Method", bound=Callable[..., Any])
Class = TypeVar("Class", bound=type)


@dataclass(frozen=True, slots=True)
class _Marked:
    wanted: tuple[type | str, ...]
    batch: bool


def on(*wanted: type | str, batch: bool = False) -> Callable[[Method], Method]:
    """Mark the method of a projection that takes these events.

    wanted: event types, names, or patterns (`order.*`, `*`); without any, the method's annotation says it.
    batch: the method takes a list: of events that follow each other, as many as there are in one commit.
    """

    def mark(method: Method) -> Method:
        setattr(method, _MARK, _Marked(wanted, batch))
        return method

    return mark


class Projecting(Protocol):
    """What the class of a projection has beside its marked methods."""

    async def create(self, tx: Transaction) -> None:
        """Create the tables, written `{name}`."""
        ...


@dataclass(frozen=True, slots=True)
class Branch:
    """One method, and the types it takes; None for all."""

    types: Types | None
    handler: Handler
    batch: bool


@dataclass(frozen=True, slots=True)
class Projection:
    """A declared projection.

    version: what the user says his code is; fingerprint: of that, the tables and the types, which tells a
    definition from an earlier one whose rows would be others.
    """

    name: str
    tables: tuple[str, ...]
    version: str
    fingerprint: str
    code: Projecting
    branches: tuple[Branch, ...]
    types: Types | None
    topics: Callable[[Mapping[str, int]], frozenset[str]]
    retry: RetryPolicy
    batch: int
    partial: bool
    _found: dict[str, Branch] = field(default_factory=dict, repr=False)

    def branch(self, name: str) -> Branch:
        """The method for a type of event."""
        branch = self._found.get(name)
        if branch is None:
            branch = next(each for each in self.branches if each.types is None or each.types.accepts(name))
            self._found[name] = branch
        return branch


def projection(
    cls: type,
    name: str,
    *,
    tables: Sequence[str],
    registry: Registry,
    version: int | str = 1,
    batch: int = BATCH,
    retry: RetryPolicy | None = None,
    partial: bool = False,
) -> Projection:
    """What `@app.projection` makes of a class; see there. Raises ConfigurationError, naming class, method and remedy."""
    if not NAME.fullmatch(name):
        raise ConfigurationError(f"projection {name!r}: write a name of small letters, digits, '-', '_' and '.'")
    what = f"projection {name!r} ({cls.__qualname__})"
    if batch < 1:
        raise ConfigurationError(f"{what}: batch={batch}; give 1 or more events a commit")
    _check_tables(what, tables)
    branches = tuple(_branches(what, cls, registry))
    if not branches:
        raise ConfigurationError(f"{what} has no method for any event: mark one with @on(OrderPlaced)")
    _check_overlaps(what, branches)
    types = _together(branches)
    described = [str(version), sorted(tables), None if types is None else [sorted(types.names), sorted(types.prefixes)]]
    return Projection(
        name=name,
        tables=tuple(tables),
        version=str(version),
        fingerprint=sha256(json.dumps(described).encode()).hexdigest()[:16],
        code=cast(Projecting, branches[0].handler.function.__self__),  # type: ignore[attr-defined]
        branches=branches,
        types=types,
        topics=topics_of(types, registry),
        retry=retry or exponential(),
        batch=batch,
        partial=partial,
    )


def _check_tables(what: str, tables: Sequence[str]) -> None:
    if isinstance(tables, str) or not tables:
        raise ConfigurationError(f"{what}: name its tables: tables=['customer_orders']")
    for table in tables:
        if not isinstance(table, str) or not TABLE.fullmatch(table) or table.startswith("eventmill_") or "__" in table:
            raise ConfigurationError(
                f"{what}: tables={table!r}; write small letters, digits and single '_', up to 40, "
                "and nothing that begins with eventmill_"
            )
    if len(set(tables)) < len(tables):
        raise ConfigurationError(f"{what}: tables={list(tables)} names one twice")


def _branches(what: str, cls: type, registry: Registry) -> list[Branch]:
    try:
        instance = cls()
    except TypeError as error:
        raise ConfigurationError(f"{what}: it is made without arguments, which fails: {error}") from error
    create = getattr(instance, "create", None)
    if not inspect.iscoroutinefunction(create) or len(inspect.signature(create).parameters) != 1:
        raise ConfigurationError(f"{what}: it needs `async def create(self, tx)`, which creates its tables")
    found = []
    for name, _ in inspect.getmembers(cls, inspect.isfunction):
        method = getattr(instance, name)
        marked: _Marked | None = getattr(method, _MARK, None)
        if marked is None:
            continue
        where = f"{what}: {name}"
        if not inspect.iscoroutinefunction(method):
            raise ConfigurationError(f"{where} is a plain `def`: write `async def {name}(self, event, tx)`")
        handler = Handler(method, registry, batch=marked.batch)
        if "transaction" not in handler.wants:
            raise ConfigurationError(
                f"{where} takes no transaction, so it can write no rows: add a parameter `tx: Transaction`"
            )
        try:
            types = types_wanted(where, marked.wanted or annotated_types(handler), registry)
        except UnknownEventError as error:
            raise ConfigurationError(f"{where}: {error}") from error
        found.append(Branch(types, handler, marked.batch))
    return found


def _check_overlaps(what: str, branches: Sequence[Branch]) -> None:
    """Each event has one method, whatever is published later."""
    for index, first in enumerate(branches):
        for second in branches[index + 1 :]:
            both = _both(first.types, second.types)
            if both is not None:
                names = sorted(each.handler.function.__name__ for each in (first, second))
                raise ConfigurationError(f"{what}: {names[0]} and {names[1]} both take {both}: give it to one of them")


def _both(first: Types | None, second: Types | None) -> str | None:
    """A name or pattern that both take."""
    if first is None or second is None:
        return "*" if first is second else _one(first or second)
    for name in sorted(first.names):
        if second.accepts(name):
            return name
    for name in sorted(second.names):
        if first.accepts(name):
            return name
    for one in sorted(first.prefixes):
        for other in sorted(second.prefixes):
            if one.startswith(other) or other.startswith(one):
                return f"{max(one, other, key=len)}*"
    return None


def _one(types: Types | None) -> str:
    assert types is not None
    return next(iter(sorted(types.names)), None) or f"{sorted(types.prefixes)[0]}*"


def _together(branches: Sequence[Branch]) -> Types | None:
    names: set[str] = set()
    prefixes: set[str] = set()
    for branch in branches:
        if branch.types is None:
            return None
        names |= branch.types.names
        prefixes |= branch.types.prefixes
    return Types(frozenset(names), frozenset(prefixes))
