"""A declared capture: which tables of which database, under which name."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from typing import Any

from eventmill.core.changes import Source
from eventmill.core.errors import ConfigurationError
from eventmill.core.registry import Registry
from eventmill.patterns.cdc.change import Change, Order, declare, type_name
from eventmill.patterns.cdc.policy import RetentionPolicy

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")

MAX_BYTES = 64 << 20


class Capture:
    """What `App.capture` returns. `capture["customers"]` is the event type of that table's changes, for `@app.on`.

    name: part of what the source keeps for it, and of its events' names. partitions: of each table's topic.
    """

    def __init__(
        self,
        source: Source,
        *,
        name: str,
        tables: Sequence[str],
        registry: Registry,
        messages: Collection[str] = (),
        order: Order = "row",
        partitions: int = 1,
        retention: RetentionPolicy | None = None,
        max_bytes: int = MAX_BYTES,
        debezium: bool = False,
        register: Callable[..., Any],
    ) -> None:
        if not _NAME.fullmatch(name):
            raise ConfigurationError(
                f"capture name={name!r}: use small letters, digits, _ and -, at most 40, such as 'legacy'"
            )
        if isinstance(tables, str) or not tables:
            raise ConfigurationError(
                f"capture {name}: tables={tables!r}; give a list such as ['customers', 'sales.orders']"
            )
        if len(set(tables)) != len(tables):
            raise ConfigurationError(f"capture {name}: a table is named twice in tables={list(tables)}")
        if isinstance(messages, str):
            raise ConfigurationError(f"capture {name}: messages={messages!r}; give a list of prefixes")
        if order not in ("row", "table"):
            raise ConfigurationError(f"capture {name}: order={order!r}; choose 'row' or 'table'")
        if partitions < 1:
            raise ConfigurationError(f"capture {name}: partitions={partitions}; give 1 or more")
        if max_bytes < 1:
            raise ConfigurationError(f"capture {name}: max_bytes={max_bytes}; give bytes above 0")
        self.source = source
        self.name = name
        self.tables = list(tables)
        self.prefixes = frozenset(messages)
        self.order = order
        self.partitions = partitions
        self.retention = retention or RetentionPolicy()
        self.max_bytes = max_bytes
        self.classes = declare(registry, name, self.tables, debezium=debezium)
        self._registry = registry
        self._register = register

    def __repr__(self) -> str:
        return f"<Capture {self.name}: {', '.join(self.tables)} of {self.source!r}>"

    def __getitem__(self, table: str) -> type[Change]:
        """The event type of a table's changes. Raises ConfigurationError for one that is not captured."""
        found = self.classes.get(table)
        if found is None:
            raise ConfigurationError(f"capture {self.name} has no table {table!r}; it has {', '.join(self.tables)}")
        return found

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """As a decorator: the function handles the changes of all its tables, one by one."""
        self._register(*self.classes.values())(function)
        return function

    @property
    def topics(self) -> dict[str, int]:
        """Where its events are kept, with partition counts."""
        return _topics(self._registry, self.name, self.tables, self.partitions)


class ForeignTables:
    """Tables that a Debezium, or another service, captures. `tables["public.customers"]` is the event type, for `@app.on`."""

    def __init__(
        self, name: str, tables: Sequence[str], registry: Registry, *, debezium: bool, partitions: int | None = None
    ) -> None:
        self._label = f"{'debezium' if debezium else 'captured'} {name}"
        if not _NAME.fullmatch(name):
            what = "the connector's topic.prefix" if debezium else "the capture's name"
            raise ConfigurationError(f"{self._label}: give {what}, such as 'legacy'")
        if isinstance(tables, str) or not tables:
            raise ConfigurationError(f"{self._label}: tables={tables!r}; give a list such as ['public.customers']")
        self.name = name
        self.classes = declare(registry, name, list(tables), debezium=debezium)
        self.topics = {} if partitions is None else _topics(registry, name, tables, partitions)
        """Partition counts of the topics, where they are known."""

    def __getitem__(self, table: str) -> type[Change]:
        found = self.classes.get(table)
        if found is None:
            raise ConfigurationError(f"{self._label} has no table {table!r}; it has {', '.join(self.classes)}")
        return found


def _topics(registry: Registry, capture: str, tables: Sequence[str], partitions: int) -> dict[str, int]:
    names = [f"{capture}.messages"]
    for table in tables:
        names += [type_name(capture, table), f"{type_name(capture, table)}.schema"]
    kinds = map(registry.named, names)
    return {kind.topic: partitions for kind in kinds if kind is not None}
