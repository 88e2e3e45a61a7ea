"""Debezium's change envelope in JSON, to and from changes as eventmill captures them.

https://debezium.io/documentation/reference/stable/connectors/postgresql.html#postgresql-events

Read with Connect's schemas around it or without them. With schemas, times, decimals and JSON are what they mean; without,
they stay the numbers and texts that they are sent as. Written without schemas (`schemas.enable=false`). A row's values that
Debezium calls unavailable are those that eventmill calls unchanged.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Context, Decimal
from functools import lru_cache
from typing import Any

import msgspec

from eventmill.core.codec import write_json
from eventmill.core.errors import DecodeError, EncodeError
from eventmill.core.message import Message
from eventmill.core.timestamp import microseconds, timestamp

UNAVAILABLE = "__debezium_unavailable_value"
_UNAVAILABLE: tuple[Any, ...] = (
    UNAVAILABLE,
    [UNAVAILABLE],
    b64encode(UNAVAILABLE.encode()).decode(),
    list(UNAVAILABLE.encode()),
    {UNAVAILABLE: UNAVAILABLE},
)
"""As a text, an array of texts, bytes, an array of numbers, and a map."""

OPERATIONS = {"c": "insert", "u": "update", "d": "delete", "r": "snapshot", "t": "truncate"}
_LETTERS = {name: letter for letter, name in OPERATIONS.items()}

_UNFIT = re.compile(r"[^a-z0-9_.-]+")
_NO_TOPIC = re.compile(r"[^A-Za-z0-9._-]")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_read = msgspec.json.Decoder().decode
_EXACT = Context(prec=10_000)

Convert = Callable[[Any], Any]


class Wrapped(msgspec.Struct):
    """What the JSON converter of Kafka Connect writes where its schemas are enabled."""

    payload: msgspec.Raw
    schema: msgspec.Raw = msgspec.Raw(b"null")


_read_wrapped = msgspec.json.Decoder(Wrapped).decode


def type_of(topic: str) -> str:
    """The type of a topic's changes: `legacy.public.Customers` has `legacy.customers`, other schemas stay in it."""
    server, _, table = topic.partition(".")
    return f"{server}.{fitted(table.removeprefix('public.'))}"


def fitted(table: str) -> str:
    """A table's name as a part of a type's: small letters, and _ for what types do not have."""
    return _UNFIT.sub("_", table.lower())


def topic_of(server: str, table: str) -> str:
    """The topic that Debezium uses for a table, which is named with its schema; Kafka takes few characters."""
    return _NO_TOPIC.sub("_", f"{server}.{table if '.' in table else f'public.{table}'}")


def from_debezium(key: bytes | None, value: bytes, *, topic: str, identity: str, arrived: int) -> Message:
    """The message of one record. identity: its id here. arrived: microseconds, where the event says no time.

    Raises DecodeError for what is not such an envelope, naming the field.
    """
    payload, convert = _unwrapped(value, "value")
    if not isinstance(payload, dict):
        raise DecodeError(f"no change of Debezium's: it is {type(payload).__name__}, not an object")
    op = OPERATIONS.get(payload.get("op", ""))
    source = payload.get("source")
    if op is None or not isinstance(source, dict):
        raise DecodeError(f"no change of Debezium's: op={payload.get('op')!r}, source={type(source).__name__}")
    change: dict[str, Any] = {"op": op, "table": _table(source)}
    if op != "truncate":
        row_key, _ = (None, {}) if key is None else _unwrapped(key, "key")
        change["key"] = _row(row_key, convert, "key")[0]
    after, unchanged = _row(payload.get("after"), convert, "after")
    before, _ = _row(payload.get("before"), convert, "before")
    if after is not None:
        change["after"] = after
    if before is not None:
        change["before"] = before
    if unchanged:
        change["unchanged"] = unchanged
    if "key" in change and change["key"] is None:
        raise DecodeError(f"the record of {change['table']} has no key, so its rows cannot be told apart")
    transaction = payload.get("transaction") or {}
    at = _moment(source, arrived)
    change["position"] = next((int(source[name]) for name in ("lsn", "pos") if source.get(name) is not None), 0)
    change["number"] = int(transaction.get("total_order") or 0)
    if source.get("txId") is not None:
        change["transaction"] = int(source["txId"])
    change["at"] = timestamp(at)
    return Message(
        id=identity,
        source=f"debezium/{source.get('name', topic.partition('.')[0])}",
        type=type_of(topic),
        topic=topic,
        time=at,
        data=write_json(change),
        key=key_text(change.get("key")) or _table(source),
        correlationid=transaction.get("id"),
    )


def key_text(key: dict[str, Any] | None) -> str:
    """A row's key as the key of a message, as captures of eventmill's own have it."""
    if not key:
        return ""
    values = list(key.values())
    if len(values) == 1 and isinstance(values[0], str | int) and not isinstance(values[0], bool) and values[0] != "":
        return str(values[0])
    return write_json(values[0] if len(values) == 1 else values).decode()


def to_debezium(message: Message, server: str) -> tuple[bytes | None, bytes]:
    """Key and value of the record for a change. After a delete, Debezium sends a tombstone: the same key, no value.

    Raises EncodeError for a message that is no change of a row.
    """
    try:
        change = _read(message.data)
        op = _LETTERS[change["op"]]
        schema, _, table = str(change["table"]).rpartition(".")
    except (msgspec.DecodeError, KeyError, TypeError) as error:
        raise EncodeError(
            f"{message.type} {message.id} is no change of a row, as topic {message.topic!r} has them: {error!r}"
        ) from error
    at = microseconds(change["at"]) if change.get("at") else message.time
    after = change.get("after")
    if after is not None:
        after = {**after, **dict.fromkeys(change.get("unchanged", ()), UNAVAILABLE)}
    position = change.get("position", 0)
    value = {
        "before": change.get("before"),
        "after": after,
        "source": {
            "version": "3.0.0.eventmill",
            "connector": "postgresql",
            "name": server,
            "ts_ms": at // 1000,
            "ts_us": at,
            "ts_ns": at * 1000,
            "snapshot": "true" if op == "r" else "false",
            "db": server,
            "sequence": write_json([None, str(position)]).decode(),
            "schema": schema or "public",
            "table": table,
            "txId": change.get("transaction"),
            "lsn": position,
            "xmin": None,
        },
        "transaction": None
        if change.get("transaction") is None
        else {
            "id": f"{change['transaction']}:{position}",
            "total_order": change.get("number", 0),
            "data_collection_order": 0,
        },
        "op": op,
        "ts_ms": message.time // 1000,
        "ts_us": message.time,
        "ts_ns": message.time * 1000,
    }
    key = change.get("key")
    return (None if key is None else write_json(key)), write_json(value)


def _unwrapped(data: bytes, what: str) -> tuple[Any, Mapping[str, Convert]]:
    """The payload, and how the values of its columns are read."""
    try:
        whole = _read(data)
        if not (isinstance(whole, dict) and whole.keys() == {"schema", "payload"}):
            return whole, {}
        wrapped = _read_wrapped(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DecodeError(f"the record's {what} is no JSON: {error}") from error
    return whole["payload"], _converters(bytes(wrapped.schema))


@lru_cache(256)
def _converters(schema: bytes) -> Mapping[str, Convert]:
    """By column. The same schema stands in each record of a table, so it is read once."""
    whole = _read(schema)
    if not isinstance(whole, dict):
        return {}
    for field in whole.get("fields", ()):
        if field.get("field") in ("after", "before"):
            whole = field
            break
    return {field["field"]: convert for field in whole.get("fields", ()) if (convert := _converter(field)) is not None}


def _converter(field: dict[str, Any]) -> Convert | None:
    name = field.get("name")
    if name == "org.apache.kafka.connect.data.Decimal":
        scale = int(field.get("parameters", {}).get("scale", 0))
        return lambda value: _decimal(value, scale)
    if field.get("type") == "array" and isinstance(field.get("items"), dict):
        element = _converter(field["items"])
        return None if element is None else lambda value: [None if one is None else element(one) for one in value]
    return _NAMED.get(name) if isinstance(name, str) else None


def _decimal(value: str, scale: int) -> str:
    """Debezium's `precise` decimals: the digits as a whole number, big-endian, in base64."""
    unscaled = int.from_bytes(b64decode(value), "big", signed=True)
    return format(Decimal(unscaled).scaleb(-scale, _EXACT), "f")


def _variable(value: dict[str, Any]) -> str:
    return _decimal(value["value"], int(value["scale"]))


_CYCLE = 146_097
"""Days of 400 years, after which the calendar repeats."""

_INFINITY = {9_223_372_036_825_200_000: "infinity", -9_223_372_036_832_400_000: "-infinity"}
"""Microseconds by which Debezium means these, as PostgreSQL's JDBC driver does."""


def _day(value: int) -> str:
    """Days since 1970 as PostgreSQL has them, whose years go beyond those of `date`."""
    cycles, days = divmod(value, _CYCLE)
    day = date(1970, 1, 1) + timedelta(days=days)
    year = day.year + 400 * cycles
    return f"{year:04d}-{day:%m-%d}" if year > 0 else f"{1 - year:04d}-{day:%m-%d} BC"


def _since(unit: int) -> Convert:
    """A moment without a zone: so many units of 1/unit seconds since 1970."""
    infinite = _INFINITY | {value * unit // 1_000_000: text for value, text in _INFINITY.items()}

    def convert(value: int) -> str:
        if value in infinite:
            return infinite[value]
        second, part = divmod(value, unit)
        days, second = divmod(second, 86_400)
        day, _, era = _day(days).partition(" ")
        digits = f"{part * (1_000_000_000 // unit):09d}".rstrip("0")
        time = f"{(_EPOCH + timedelta(seconds=second)):%H:%M:%S}{digits and '.'}{digits}"
        return f"{day} {time} BC" if era else f"{day}T{time}"

    return convert


def _time(unit: int) -> Convert:
    convert = _since(unit)
    return lambda value: convert(value).partition("T")[2]


_NAMED: Mapping[str, Convert] = {
    "io.debezium.time.Date": _day,
    "org.apache.kafka.connect.data.Date": _day,
    "io.debezium.time.Timestamp": _since(1_000),
    "org.apache.kafka.connect.data.Timestamp": _since(1_000),
    "io.debezium.time.MicroTimestamp": _since(1_000_000),
    "io.debezium.time.NanoTimestamp": _since(1_000_000_000),
    "io.debezium.time.Time": _time(1_000),
    "org.apache.kafka.connect.data.Time": _time(1_000),
    "io.debezium.time.MicroTime": _time(1_000_000),
    "io.debezium.time.NanoTime": _time(1_000_000_000),
    "io.debezium.data.Json": _read,
    "io.debezium.data.VariableScaleDecimal": _variable,
}


def _row(row: Any, convert: Mapping[str, Convert], what: str) -> tuple[dict[str, Any] | None, list[str]]:
    """A row's values, and the columns whose values were not available."""
    if row is None:
        return None, []
    if not isinstance(row, dict):
        raise DecodeError(f"{what} is {type(row).__name__}, not an object")
    found: dict[str, Any] = {}
    missing = []
    for name, value in row.items():
        if value in _UNAVAILABLE:
            missing.append(name)
        elif value is None or name not in convert:
            found[name] = value
        else:
            try:
                found[name] = convert[name](value)
            except (ValueError, TypeError, KeyError, OverflowError, msgspec.DecodeError) as error:
                raise DecodeError(f"{what}: column {name} is not as its schema says: {error!r}") from error
    return found, missing


def _table(source: Mapping[str, Any]) -> str:
    """As `Change.table`: with its schema, unless that is public."""
    schema, table = source.get("schema"), str(source.get("table", ""))
    return table if schema in (None, "", "public") else f"{schema}.{table}"


def _moment(source: Mapping[str, Any], arrived: int) -> int:
    for name, factor in (("ts_us", 1), ("ts_ms", 1_000)):
        if isinstance(source.get(name), int):
            return int(source[name]) * factor
    return arrived
