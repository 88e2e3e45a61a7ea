"""The captures of one App: declared, and run beside its consumers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count
from typing import Any

from eventmill.core.changes import Source
from eventmill.core.errors import ConfigurationError
from eventmill.patterns.cdc.capture import MAX_BYTES, Capture, ForeignTables
from eventmill.patterns.cdc.capturing import Capturing
from eventmill.patterns.cdc.change import Order
from eventmill.patterns.cdc.policy import RetentionPolicy
from eventmill.patterns.cdc.setup import drop, initialise
from eventmill.patterns.surroundings import Surroundings
from eventmill.runtime.heartbeat import Heartbeat


class Captures:
    """Those of one App, by name.

    connect: from a URL to the source of changes there. database_of: the database's name in a URL. register: `App.on`.
    topics: the App's partition counts, to which those of the captured tables are added. running: what this process captures.
    """

    def __init__(
        self,
        where: Surroundings,
        *,
        connect: Callable[[str], Source],
        database_of: Callable[[str], str],
        register: Callable[..., Any],
        topics: dict[str, int],
        lease: float,
    ) -> None:
        self._where = where
        self._connect = connect
        self._database_of = database_of
        self._register = register
        self._topics = topics
        self._lease = lease
        self._declared: dict[str, Capture] = {}
        self.running: list[Capturing] = []

    def __iter__(self) -> Iterator[Capture]:
        return iter(self._declared.values())

    def declare(
        self,
        url: str,
        *,
        tables: Sequence[str],
        name: str | None = None,
        messages: Sequence[str] = (),
        order: Order = "row",
        partitions: int = 1,
        retention: RetentionPolicy | None = None,
        max_bytes: int = MAX_BYTES,
        debezium: bool = False,
    ) -> Capture:
        """Capture changes of another database's tables as events; `eventmill cdc init` has to be run once.

        url: `postgresql://…`, or `sqlite:///file.db`. tables: names, with their schema where it is not `public`. name:
        the first part of the events' names, by default the database's. messages: prefixes of `pg_logical_emit_message`
        whose messages become events, too. order: handlers get each `row`'s changes in order, or all of a `table`, one after
        another. partitions: of each table's topic. retention: when the source keeps too much for it.
        max_bytes: of one row's event; a larger one stops the capture. debezium: call the topics as Debezium does, for a
        broker `kafka://…?debezium=NAME`, which then writes them in its format.

        As a decorator it registers the function as a handler of all the tables' changes. Otherwise
        `capture["customers"]` is the event type to give to `@app.on`.
        """
        made = Capture(
            self._connect(url), name=name or self._database_of(url), tables=tables, registry=self._where.registry,
            messages=messages, order=order, partitions=partitions, retention=retention, max_bytes=max_bytes,
            debezium=debezium, register=self._register,
        )  # fmt: skip
        # What a source keeps has names in which - and _ are the same.
        same = next((name for name in self._declared if name.replace("-", "_") == made.name.replace("-", "_")), None)
        if same is not None:
            raise ConfigurationError(f"a capture {same!r} is there already: give this one another name=")
        self._declared[made.name] = made
        self._add(made.topics)
        return made

    def _add(self, topics: Mapping[str, int]) -> None:
        for topic, partitions in topics.items():
            self._topics.setdefault(topic, partitions)

    def debezium(self, server: str, *, tables: Sequence[str]) -> ForeignTables:
        """The tables whose changes a Debezium publishes; the App's broker must be `kafka://…?debezium=SERVER`.

        server: its topic.prefix. tables: with their schema, as in the topics' names (`public.customers`).
        """
        return ForeignTables(server, tables, self._where.registry, debezium=True)

    def captured(self, name: str, *, tables: Sequence[str], partitions: int = 1) -> ForeignTables:
        """The tables that another service captures, and whose changes come over the broker.

        name, tables, partitions: as in that service's `app.capture`. `captured["customers"]` is the event type to give to
        `@app.on`.
        """
        made = ForeignTables(name, tables, self._where.registry, debezium=False, partitions=partitions)
        self._add(made.topics)
        return made

    async def initialise(self, *, anew: bool = False, snapshot: bool = True) -> None:
        """What `eventmill cdc init` does, for all of them; the App must be open. See there."""
        where = self._where
        for each in self:
            try:
                await initialise(where.store, each, where.clock, where.ids, anew=anew, snapshot=snapshot)
            finally:
                await each.source.close()

    async def drop(self) -> None:
        """What `eventmill cdc drop` does, for all of them: nothing is kept for them at the sources any more."""
        for each in self:
            try:
                await drop(self._where.store, each)
            finally:
                await each.source.close()

    def capturings(self, incarnation: str, heartbeat: Heartbeat, numbers: count[int]) -> Sequence[Capturing]:
        """This process's part in each."""
        where = self._where
        self.running = [
            Capturing(
                each, source_name=where.name, store=where.store, heartbeat=heartbeat, lease=self._lease, clock=where.clock,
                registry=where.registry, member=f"{incarnation}/{where.name}.{next(numbers)}", new_id=where.ids,
                rng=where.rng,
            )
            for each in self
        ]  # fmt: skip
        return self.running
