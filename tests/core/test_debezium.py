"""Debezium's envelope, as its documentation shows it, with and without the converter's schemas."""

from __future__ import annotations

import json
from typing import Any

import pytest

from eventmill.core.debezium import from_debezium, to_debezium, topic_of, type_of
from eventmill.core.errors import DecodeError, EncodeError
from eventmill.core.message import Message

SOURCE = {
    "version": "3.0.5.Final", "connector": "postgresql", "name": "legacy", "ts_ms": 1714000000000,
    "ts_us": 1714000000000123, "snapshot": "false", "db": "inventory", "sequence": '[null,"24023128"]',
    "schema": "public", "table": "customers", "txId": 555, "lsn": 24023128, "xmin": None,
}  # fmt: skip

FIELDS = [
    {"type": "int32", "optional": False, "field": "id"},
    {"type": "string", "optional": True, "field": "email"},
    {"type": "int64", "optional": True, "name": "io.debezium.time.MicroTimestamp", "version": 1, "field": "since"},
    {"type": "int32", "optional": True, "name": "io.debezium.time.Date", "version": 1, "field": "born"},
    {"type": "int64", "optional": True, "name": "io.debezium.time.MicroTime", "version": 1, "field": "wakes"},
    {"type": "string", "optional": True, "name": "io.debezium.time.ZonedTimestamp", "version": 1, "field": "seen"},
    {
        "type": "bytes", "optional": True, "name": "org.apache.kafka.connect.data.Decimal", "version": 1,
        "parameters": {"scale": "2", "connect.decimal.precision": "10"}, "field": "balance",
    },
    {"type": "string", "optional": True, "name": "io.debezium.data.Json", "version": 1, "field": "profile"},
    {"type": "bytes", "optional": True, "field": "photo"},
]  # fmt: skip
SCHEMA = {
    "type": "struct", "optional": False, "name": "legacy.public.customers.Envelope", "version": 2,
    "fields": [
        {"type": "struct", "fields": FIELDS, "optional": True, "name": "legacy.public.customers.Value", "field": "before"},
        {"type": "struct", "fields": FIELDS, "optional": True, "name": "legacy.public.customers.Value", "field": "after"},
        {"type": "struct", "fields": [], "optional": False, "field": "source"},
        {"type": "string", "optional": False, "field": "op"},
    ],
}  # fmt: skip
KEY_SCHEMA = {"type": "struct", "fields": [FIELDS[0]], "optional": False, "name": "legacy.public.customers.Key"}


def read(value: dict[str, Any], key: dict[str, Any] | None = None, *, schemas: bool = False) -> Message:
    key = {"id": 1004} if key is None else key
    if schemas:
        value, key = {"schema": SCHEMA, "payload": value}, {"schema": KEY_SCHEMA, "payload": key}
    return from_debezium(
        json.dumps(key).encode(),
        json.dumps(value).encode(),
        topic="legacy.public.customers",
        identity="t/0@7",
        arrived=1,
    )


@pytest.mark.parametrize("schemas", [False, True])
def test_a_created_row(schemas: bool) -> None:
    after = {"id": 1004, "email": "annek@noanswer.org"}
    value = {
        "before": None, "after": after, "source": SOURCE, "op": "c", "ts_ms": 1714000000142, "transaction": None
    }  # fmt: skip
    message = read(value, schemas=schemas)
    assert (message.type, message.topic, message.key, message.id) == (
        "legacy.customers", "legacy.public.customers", "1004", "t/0@7",
    )  # fmt: skip
    assert (message.source, message.time) == ("debezium/legacy", 1714000000000123)
    assert json.loads(message.data) == {
        "op": "insert", "table": "customers", "key": {"id": 1004}, "after": after, "position": 24023128, "number": 0,
        "transaction": 555, "at": "2024-04-24T23:06:40.000123Z",
    }  # fmt: skip


def test_values_mean_what_their_schemas_say() -> None:
    after = {
        "id": 1, "since": 1706745600500000, "born": 19751, "wakes": 27000000000, "seen": "2024-02-01T00:00:00.5Z",
        "balance": "AOFK", "profile": '{"a": [1]}', "photo": "AP8=", "email": None,
    }  # fmt: skip
    message = read({"after": after, "source": SOURCE, "op": "r"}, schemas=True)
    assert json.loads(message.data)["after"] == {
        "id": 1, "since": "2024-02-01T00:00:00.5", "born": "2024-01-29", "wakes": "07:30:00",
        "seen": "2024-02-01T00:00:00.5Z", "balance": "576.74", "profile": {"a": [1]}, "photo": "AP8=", "email": None,
    }  # fmt: skip
    negative = read({"after": {"id": 1, "balance": "/w=="}, "source": SOURCE, "op": "r"}, schemas=True)
    assert json.loads(negative.data)["after"]["balance"] == "-0.01"
    with pytest.raises(DecodeError, match="after: column balance"):
        read({"after": {"id": 1, "balance": 7}, "source": SOURCE, "op": "r"}, schemas=True)


def test_what_was_not_available_is_unchanged() -> None:
    after = {
        "id": 1, "email": "__debezium_unavailable_value", "tags": ["__debezium_unavailable_value"],
        "photo": "X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ==",
    }  # fmt: skip
    change = json.loads(read({"before": None, "after": after, "source": SOURCE, "op": "u"}).data)
    assert change["after"] == {"id": 1}
    assert change["unchanged"] == ["email", "tags", "photo"]


def test_deletes_truncates_and_composite_keys() -> None:
    deleted = read(
        {"before": {"id": 1, "email": None}, "after": None, "source": SOURCE, "op": "d"}, {"id": 1, "kind": "a"}
    )
    assert deleted.key == '[1,"a"]'
    assert json.loads(deleted.data)["before"] == {"id": 1, "email": None}
    truncated = from_debezium(
        None, json.dumps({"source": {**SOURCE, "schema": "sales"}, "op": "t"}).encode(),
        topic="legacy.sales.customers", identity="i", arrived=1,
    )  # fmt: skip
    assert (truncated.type, truncated.key) == ("legacy.sales.customers", "sales.customers")
    assert json.loads(truncated.data)["op"] == "truncate"


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"[]",
        b"no json",
        b"{}",
        b'{"op": "x", "source": {}}',
        b'{"op": "c"}',
        b'{"op": "c", "source": {}, "after": 1}',
    ],
)
def test_what_is_no_change_is_refused(value: bytes) -> None:
    with pytest.raises(DecodeError):
        from_debezium(b'{"id":1}', value, topic="legacy.public.customers", identity="i", arrived=1)


def test_what_is_written_is_read_again() -> None:
    change = {
        "op": "update", "table": "customers", "key": {"id": 1}, "after": {"id": 1, "name": "é"}, "unchanged": ["photo"],
        "position": 24023128, "number": 3, "transaction": 555, "at": "2024-04-24T23:06:40.000123Z",
    }  # fmt: skip
    message = Message(
        id="e-1", source="shop", type="legacy.customers", topic="legacy.public.customers", time=1714000000000123,
        key="1", data=json.dumps(change).encode(),
    )  # fmt: skip
    key, value = to_debezium(message, "legacy")
    assert key == b'{"id":1}'
    written = json.loads(value)
    assert written["op"] == "u"
    assert written["after"]["photo"] == "__debezium_unavailable_value"
    assert (written["source"]["schema"], written["source"]["table"], written["source"]["lsn"]) == (
        "public", "customers", 24023128,
    )  # fmt: skip
    again = from_debezium(key, value, topic=message.topic, identity="i", arrived=1)
    assert json.loads(again.data) == change
    assert (again.key, again.type, again.time) == (message.key, message.type, message.time)


def test_only_changes_of_rows_are_written() -> None:
    message = Message(
        id="e", source="s", type="legacy.messages", topic="legacy.public.x", time=1, data=b'{"prefix":"a"}'
    )
    with pytest.raises(EncodeError, match="no change of a row"):
        to_debezium(message, "legacy")


def test_names() -> None:
    assert type_of("legacy.public.customers") == "legacy.customers"
    assert type_of("legacy.sales.orders") == "legacy.sales.orders"
    assert topic_of("legacy", "customers") == "legacy.public.customers"
    assert topic_of("legacy", "sales.orders") == "legacy.sales.orders"
