"""What Debezium's values mean: with Connect's schemas each as PostgreSQL has it, and what it does not say."""

from __future__ import annotations

import json
from typing import Any

import pytest

from eventmill import App
from eventmill.core.debezium import UNAVAILABLE, from_debezium, to_debezium
from eventmill.core.errors import DecodeError
from eventmill.core.message import Message

TIME = "io.debezium.time"


def field(name: str, kind: str, semantic: str | None = None, **more: Any) -> dict[str, Any]:
    return {"field": name, "type": kind, "optional": True, **({"name": semantic} if semantic else {}), **more}


def read(values: dict[str, Any], fields: list[dict[str, Any]] | None, op: str = "c", **source: Any) -> Message:
    """One record of `s.public.Customers`. fields: of its schema, or None where none is sent."""
    whole: dict[str, Any] = {
        "before": None,
        "after": values,
        "source": {"name": "s", "schema": "public", "table": "Customers", "lsn": 5, "txId": 7, "ts_ms": 1, **source},
        "op": op,
    }
    key: dict[str, Any] = {"id": 1}
    if fields is not None:
        rows = [{"type": "struct", "field": name, "fields": fields} for name in ("before", "after")]
        whole = {"schema": {"type": "struct", "fields": [*rows, field("op", "string")]}, "payload": whole}
        key = {"schema": {"type": "struct", "fields": [field("id", "int32")]}, "payload": key}
    return from_debezium(
        json.dumps(key).encode(), json.dumps(whole).encode(), topic="s.public.Customers", identity="i", arrived=0
    )


@pytest.mark.parametrize(
    ("kind", "semantic", "sent", "meant"),
    [
        ("bytes", "org.apache.kafka.connect.data.Decimal", "MDk=", "123.45"),
        ("struct", "io.debezium.data.VariableScaleDecimal", {"scale": 3, "value": "/w=="}, "-0.001"),
        ("int32", f"{TIME}.Date", 19_000, "2022-01-08"),
        ("int32", f"{TIME}.Date", 3_000_000, "10183-09-21"),
        ("int32", f"{TIME}.Date", -719_529, "0002-12-31 BC"),
        ("int64", f"{TIME}.MicroTimestamp", 1_700_000_000_123_456, "2023-11-14T22:13:20.123456"),
        ("int64", f"{TIME}.MicroTimestamp", -1, "1969-12-31T23:59:59.999999"),
        ("int64", f"{TIME}.MicroTimestamp", 9_223_372_036_825_200_000, "infinity"),
        ("int64", f"{TIME}.MicroTimestamp", -9_223_372_036_832_400_000, "-infinity"),
        ("int64", f"{TIME}.MicroTimestamp", 300_000_000_000_000_000, "11476-08-15T05:20:00"),
        ("int64", f"{TIME}.Timestamp", 1_700_000_000_123, "2023-11-14T22:13:20.123"),
        ("int64", f"{TIME}.NanoTimestamp", 1_700_000_000_123_456_789, "2023-11-14T22:13:20.123456789"),
        ("string", f"{TIME}.ZonedTimestamp", "2026-01-31T10:00:00.5Z", "2026-01-31T10:00:00.5Z"),
        ("int64", f"{TIME}.MicroTime", 45_000_000_000, "12:30:00"),
        ("string", "io.debezium.data.Json", '{"a": [1]}', {"a": [1]}),
        ("string", "io.debezium.data.Uuid", "6b6bf4a5-8f3b-4b6c-9d1f-0e5a1f2b3c4d", "6b6bf4a5-8f3b-4b6c-9d1f-0e5a1f2b3c4d"),
        ("bytes", None, "AP8=", "AP8="),
    ],
)  # fmt: skip
def test_a_value_is_what_it_is_in_the_database(kind: str, semantic: str | None, sent: Any, meant: Any) -> None:
    fields = [field("id", "int32"), field("v", kind, semantic, parameters={"scale": "2"}), field("n", kind, semantic)]
    change = json.loads(read({"id": 1, "v": sent, "n": None}, fields).data)
    assert change["after"] == {"id": 1, "v": meant, "n": None}
    items = field("v", "array", items={"type": kind, "name": semantic, "parameters": {"scale": "2"}})
    change = json.loads(read({"id": 1, "v": [sent, None]}, [field("id", "int32"), items]).data)
    assert change["after"]["v"] == [meant, None]
    assert json.loads(read({"id": 1, "v": sent}, None).data)["after"]["v"] == sent  # without schemas nothing is known


@pytest.mark.parametrize(
    "placeholder",
    [UNAVAILABLE, [UNAVAILABLE], "X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ==", [*UNAVAILABLE.encode()], {UNAVAILABLE: UNAVAILABLE}],
    ids=["text", "texts", "bytes", "numbers", "map"],
)  # fmt: skip
def test_a_placeholder_is_never_a_value(placeholder: Any) -> None:
    message = read({"id": 1, "v": placeholder}, None, op="u")
    change = json.loads(message.data)
    assert (change["after"], change["unchanged"]) == ({"id": 1}, ["v"])
    _, value = to_debezium(message, "s")
    assert json.loads(value)["after"] == {"id": 1, "v": UNAVAILABLE}


def test_a_table_with_capital_letters_has_the_type_it_is_declared_with() -> None:
    app = App("memory://", name="reader")
    declared = app.debezium("s", tables=["public.Customers", "Sales.Straße"])
    message = read({"id": 1}, None)
    kind = app.registry.named(message.type)
    assert kind is not None
    assert kind.cls is declared["public.Customers"]
    assert kind.topic == "s.public.Customers"
    other = app.registry.named("s.sales.stra_e")
    assert other is not None
    assert other.topic == "s.Sales.Stra_e"


def test_what_is_no_change_says_so() -> None:
    with pytest.raises(DecodeError, match="op='m'"):
        read({"id": 1}, None, op="m")
