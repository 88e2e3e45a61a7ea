"""Entries of a source's stream to messages for the log."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence

import msgspec

from eventmill.core.changes import Emitted, Key, Reshaped, Row, RowChange, Shape, renamed_columns
from eventmill.core.cloudevents import from_structured
from eventmill.core.codec import write_json
from eventmill.core.envelope import check_message
from eventmill.core.errors import ConfigurationError, MessageError
from eventmill.core.limits import Limits
from eventmill.core.message import Message
from eventmill.core.registry import Registry
from eventmill.core.timestamp import timestamp
from eventmill.patterns.cdc.change import Change, Emission, Order, SchemaChanged, type_name
from eventmill.patterns.cdc.keys import message_key


class Translator:
    """Makes the messages of one capture. Their ids follow from the source's order: what is told again has the same.

    source: the service's name. epoch: see `Progress`. order: whether messages
    have the row's key, or all of a table the table's name. limits: of one message.
    """

    def __init__(
        self,
        *,
        source: str,
        capture: str,
        epoch: str,
        tables: Sequence[str],
        order: Order,
        limits: Limits,
        registry: Registry,
    ) -> None:
        self._source = source
        self._capture = capture
        self._epoch = epoch
        self._limits = limits
        self._registry = registry
        self._types = {table: type_name(capture, table) for table in tables}
        self._by_row = order == "row"
        self._position = 0
        self._transaction = 0
        self._time = 0
        self._at = ""
        self._correlation = ""

    def begin(self, position: int, transaction: int, at: int) -> None:
        """What follows is of this transaction. at: microseconds."""
        self._position = position
        self._transaction = transaction
        self._time = at
        self._at = timestamp(at)
        self._correlation = f"{self._epoch}-{position:x}"

    def row(self, change: RowChange, shape: Shape, number: int, *, last: bool) -> list[Message]:
        """One message, or two where the key was changed."""
        if change.moved_from is None:
            return [self._change(change.op, shape, change.key, change, number, last, "")]
        former, key = change.moved_from, change.key
        gone = RowChange(change.table, "delete", former, change.before, None)
        come = RowChange(change.table, "insert", key, None, change.after)
        return [
            self._change(
                "delete", shape, former, gone, number, False, "", moved=dict(zip(shape.key, key, strict=True))
            ),
            self._change(
                "insert", shape, key, come, number, last, "+", moved=dict(zip(shape.key, former, strict=True))
            ),
        ]

    def _change(
        self,
        op: str,
        shape: Shape,
        key: Key,
        change: RowChange,
        number: int,
        last: bool,
        suffix: str,
        moved: Row | None = None,
    ) -> Message:
        event = Change(
            op=op,  # type: ignore[arg-type]
            table=shape.table,
            key=dict(zip(shape.key, key, strict=True)),
            after=change.after,
            before=change.before,
            unchanged=change.unchanged,
            moved=moved,
            position=self._position,
            number=number,
            last=last,
            transaction=self._transaction,
            at=self._at,
        )
        return self._message(self._types[shape.table], self._key(shape, key), f"{number}{suffix}", event)

    def snapshot(self, shape: Shape, key: Key, row: Row, mark: str, number: int) -> Message:
        """A row of a chunk, told within the transaction of its mark."""
        event = Change(
            op="snapshot",
            table=shape.table,
            key=dict(zip(shape.key, key, strict=True)),
            after=row,
            position=self._position,
            at=self._at,
        )
        return self._message(self._types[shape.table], self._key(shape, key), f"s{mark}-{number}", event)

    def truncated(self, table: str, number: int, *, last: bool) -> list[Message]:
        event = Change(
            op="truncate",
            table=table,
            position=self._position,
            number=number,
            last=last,
            transaction=self._transaction,
            at=self._at,
        )
        return [self._message(self._types[table], table, str(number), event)]

    def reshaped(self, entry: Reshaped, number: int) -> list[Message]:
        event = schema_changed(entry.shape, entry.former, self._position)
        name = self._types[entry.shape.table]
        return [self._message(f"{name}.schema", entry.shape.table, f"r{number}", event)]

    def emitted(self, entry: Emitted, number: int, now: int) -> Message:
        """The event in a CloudEvents envelope, or else what was said as it is. now: microseconds."""
        position = self._position if entry.position is None else entry.position
        identity = f"{self._epoch}-{position:x}-{'m' if entry.position is not None else number}"
        try:
            return self._enveloped(entry.content, identity, now)
        except (MessageError, ValueError):
            try:
                event = Emission(prefix=entry.prefix, text=entry.content.decode(), position=position)
            except UnicodeDecodeError:
                event = Emission(prefix=entry.prefix, base64=b64encode(entry.content).decode(), position=position)
            name = f"{self._capture}.messages"
            return Message(
                id=identity,
                source=self._source,
                type=name,
                topic=self._topic(name),
                time=now,
                data=write_json(event),
                key=entry.prefix,
            )

    def _enveloped(self, content: bytes, identity: str, now: int) -> Message:
        """Completed with what a writer in SQL need not say. Raises MessageError or ValueError for what is no envelope."""
        members = msgspec.json.decode(content)
        if not isinstance(members, dict) or not isinstance(members.get("type"), str):
            raise ValueError("no envelope")
        kind = self._registry.named(members["type"])
        whole = write_json({"specversion": "1.0", "id": identity, "source": self._source, **members})
        topic = None if kind is None else kind.topic
        message = from_structured(whole, arrived=now, topic=topic, limits=self._limits)
        check_message(message, self._limits)
        return message

    def _topic(self, name: str) -> str:
        kind = self._registry.named(name)
        return name if kind is None else kind.topic

    def _key(self, shape: Shape, key: Key) -> str:
        return message_key(key) if self._by_row else shape.table

    def _message(self, name: str, key: str, place: str, event: object) -> Message:
        data = write_json(event)
        if len(data) > self._limits.max_bytes:
            raise ConfigurationError(
                f"capture {self._capture}: a row of {name} (key {key[:80]}) makes a message of {len(data):,} bytes; the "
                f"limit is {self._limits.max_bytes:,}: raise max_bytes= of the capture"
            )
        return Message(
            id=f"{self._epoch}-{self._position:x}-{place}",
            source=self._source,
            type=name,
            topic=self._topic(name),
            time=self._time,
            data=data,
            key=key,
            correlationid=self._correlation,
        )


def schema_changed(shape: Shape, former: Shape | None, position: int) -> SchemaChanged:
    """What is different between two shapes."""
    before = {column.name: column.type for column in former.columns} if former else {}
    after = {column.name: column.type for column in shape.columns}
    added = [name for name in after if name not in before]
    dropped = [name for name in before if name not in after]
    renamed = renamed_columns(former.columns, shape.columns) if former else []
    added = [name for name in added if name not in [new for _, new in renamed]]
    dropped = [name for name in dropped if name not in [old for old, _ in renamed]]
    return SchemaChanged(
        table=shape.table,
        name=shape.name,
        columns=shape.columns,
        added=tuple(added),
        dropped=tuple(dropped),
        retyped=tuple([name for name in after if name in before and before[name] != after[name]]),
        renamed=tuple(renamed),
        identity=shape.identity,
        position=position,
    )
