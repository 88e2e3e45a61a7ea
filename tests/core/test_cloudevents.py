from __future__ import annotations

import json
import string
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventmill.core.cloudevents import STRUCTURED, from_binary, from_structured, to_binary, to_structured
from eventmill.core.errors import DecodeError, EncodeError, MessageTooLargeError
from eventmill.core.limits import Limits
from eventmill.core.message import Message
from eventmill.core.names import ATTRIBUTES

ARRIVED = 1_700_000_000_000_000
text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20)
messages = st.builds(
    Message,
    id=text,
    source=text,
    type=text,
    topic=text,
    time=st.integers(-62_135_596_800_000_000, 253_402_300_799_999_999),
    data=st.just(b"") | st.recursive(st.integers() | text, lambda i: st.lists(i)).map(lambda v: json.dumps(v).encode()),
    key=st.none() | text,
    version=st.integers(1, 2**63 - 1),
    sequence=st.none() | st.integers(1, 2**63 - 1),
    subject=st.none() | text,
    correlationid=st.none() | text,
    causationid=st.none() | text,
    traceparent=st.none() | text,
    tags=st.lists(
        st.text(string.ascii_letters + ":é ", min_size=1, max_size=60).map(str.strip).filter(bool),
        unique=True,
        max_size=5,
    ).map(tuple),
    extensions=st.none()
    | st.dictionaries(
        st.text(string.ascii_lowercase + string.digits, min_size=1, max_size=20).filter(lambda n: n not in ATTRIBUTES),
        text | st.just(""),
        min_size=1,
    ),
)


@given(messages)
def test_structured_json_brings_every_field_back(message: Message) -> None:
    assert from_structured(to_structured(message), arrived=0, topic=message.topic) == message


@given(messages, st.binary(), st.sampled_from(["ce_", "ce-"]))
def test_binary_mode_brings_every_field_back(message: Message, data: bytes, prefix: str) -> None:
    message = msgspec.structs.replace(message, data=data, contenttype="application/octet-stream")
    headers, body = to_binary(message, prefix)
    assert from_binary(headers, body, prefix, arrived=0, topic=message.topic) == message
    as_bytes = {name: value.encode() for name, value in headers.items()}
    assert from_binary(as_bytes, body, prefix, arrived=0, topic=message.topic) == message


@given(messages, st.binary(min_size=1))
def test_other_data_than_json_travels_as_base64(message: Message, data: bytes) -> None:
    message = msgspec.structs.replace(message, data=data, contenttype="text/plain")
    assert "data_base64" in json.loads(to_structured(message))
    assert from_structured(to_structured(message), arrived=0, topic=message.topic) == message


FULL = Message(
    id="1",
    source="shop",
    type="order.placed",
    topic="order",
    time=1_769_860_800_000_001,
    data=b'{"total": 1.10}',
    key="7",
    version=2,
    sequence=12,
    correlationid="c",
    extensions={"tenant": "a"},
)


def test_the_text_of_structured_json() -> None:
    assert to_structured(FULL) == (
        b'{"specversion":"1.0","id":"1","source":"shop","type":"order.placed","time":"2026-01-31T12:00:00.000001Z",'
        b'"datacontenttype":"application/json","schemaversion":"2","partitionkey":"7","correlationid":"c",'
        b'"sequence":"00000000000000000012","tenant":"a","data":{"total": 1.10}}'
    )


def test_the_headers_of_binary_mode() -> None:
    headers, body = to_binary(FULL, "ce_")
    assert body == FULL.data
    assert headers["content-type"] == "application/json"
    assert headers["ce_specversion"] == "1.0"
    assert headers["ce_sequence"] == "00000000000000000012"
    assert headers["ce_partitionkey"] == "7"
    assert "ce_datacontenttype" not in headers
    assert "ce_topic" not in headers


def test_a_foreign_event_of_the_least_attributes() -> None:
    event = {"specversion": "1.0", "id": "A-1", "source": "//host/x", "type": "com.Example.Created"}
    assert from_structured(json.dumps(event).encode(), arrived=ARRIVED) == Message(
        id="A-1", source="//host/x", type="com.Example.Created", topic="com", time=ARRIVED, data=b""
    )
    headers = {f"Ce-{name.title()}": value for name, value in event.items()} | {"other": "left alone"}
    assert from_binary(headers, b"{}", "ce-", arrived=ARRIVED).topic == "com"
    event["type"] = "Created"
    assert from_structured(json.dumps(event).encode(), arrived=ARRIVED).topic == "Created"


def test_attributes_of_other_types_are_kept_as_their_text_and_written_back() -> None:
    event = {
        "specversion": "1.0",
        "id": "1",
        "source": "s",
        "type": "t",
        "dataschema": "http://x/y",
        "count": 5,
        "urgent": True,
        "gone": None,
        "sequence": "2026-A",
        "schemaversion": 3,
        "data": [1, 2.50, {"a": "\u00e9"}],
    }
    message = from_structured(json.dumps(event).encode(), arrived=ARRIVED)
    assert message.extensions == {"dataschema": "http://x/y", "count": "5", "urgent": "true", "sequence": "2026-A"}
    assert message.version == 3
    assert message.sequence is None
    written = json.loads(to_structured(message))
    assert {name: written[name] for name in message.extensions} == message.extensions
    assert written["data"] == event["data"]


def test_text_data_is_its_characters() -> None:
    event = {"specversion": "1.0", "id": "1", "source": "s", "type": "t", "datacontenttype": "text/plain", "data": "é"}
    assert from_structured(json.dumps(event).encode(), arrived=0).data == "é".encode()


def test_structured_mode_is_recognised_by_its_content_type() -> None:
    read = from_binary({"content-type": f"{STRUCTURED}; charset=utf-8"}, to_structured(FULL), "ce_", arrived=0)
    assert read == FULL
    with pytest.raises(DecodeError, match="content-type: application/cloudevents-batch"):
        from_binary({"content-type": "application/cloudevents-batch+json"}, b"[]", "ce_", arrived=0)


@pytest.mark.parametrize(
    ("changes", "attribute"),
    [
        ({"specversion": None}, "specversion: missing"),
        ({"specversion": "0.3"}, "specversion: '0.3'"),
        ({"id": None}, "id: missing"),
        ({"id": ""}, "id is empty"),
        ({"source": None}, "source: missing"),
        ({"type": None}, "type: missing"),
        ({"type": ["t"]}, "type: list"),
        ({"time": "yesterday"}, "time: 'yesterday'"),
        ({"time": ""}, "time: ''"),
        ({"subject": ""}, "subject is empty"),
        ({"partitionkey": ""}, "partitionkey is empty"),
        ({"partitionkey": "k" * 501}, "partitionkey is 501 bytes"),
        ({"partitionkey": "a\0"}, "partitionkey=.*NUL"),
        ({"schemaversion": "1.2"}, "schemaversion: '1.2'"),
        ({"schemaversion": 0}, "schemaversion: '0'"),
        ({"rate": 1.5}, "rate: float"),
        ({"Upper": "x"}, "'Upper': names of attributes"),
        ({"data_base64": "?"}, "data_base64: not base64"),
        ({"data_base64": 7}, "data_base64: not base64"),
        ({"data_base64": "YQ==", "data": 1}, "data_base64: given together"),
        ({"datacontenttype": "text/plain", "data": {}}, "data: text/plain data must be"),
    ],
)
def test_what_is_wrong_is_named(changes: dict[str, Any], attribute: str) -> None:
    event = {"specversion": "1.0", "id": "1", "source": "s", "type": "t"} | changes
    with pytest.raises(DecodeError, match=f"^{attribute}"):
        from_structured(json.dumps(event).encode(), arrived=0)


def test_headers_that_are_no_text_or_given_twice_are_refused() -> None:
    with pytest.raises(DecodeError, match="id: not UTF-8"):
        from_binary({"ce_id": b"\xff"}, b"", "ce_", arrived=0)
    with pytest.raises(DecodeError, match="id: given twice"):
        from_binary({"ce_id": "1", "CE_ID": "2"}, b"", "ce_", arrived=0)


@given(st.binary() | st.sampled_from([b"[]", b"null", b'{"id":}', b'{"id":"\xff"}', b'{"id":"\\ud800"}', b'{"a":[}']))
def test_any_other_bytes_are_a_decode_error(data: bytes) -> None:
    with pytest.raises(DecodeError):
        from_structured(data, arrived=0)


def test_limits_hold_before_parsing() -> None:
    limits = Limits(max_bytes=1000, max_depth=3)
    event = {"specversion": "1.0", "id": "1", "source": "s", "type": "t"}
    assert from_structured(json.dumps(event | {"data": [[[]]]}).encode(), arrived=0, limits=limits).data == b"[[[]]]"
    too_much: list[Any] = [[[[[]]]], "x" * 1001]
    for data in too_much:
        with pytest.raises(MessageTooLargeError):
            from_structured(json.dumps(event | {"data": data}).encode(), arrived=0, limits=limits)
    with pytest.raises(MessageTooLargeError, match="t is 1,001 bytes; the limit is 1,000"):
        from_binary(
            {f"ce_{name}": value for name, value in event.items()}, b" " * 1001, "ce_", arrived=0, limits=limits
        )
    with pytest.raises(MessageTooLargeError, match="CloudEvent is nested"):
        from_structured(b"[" * 100_000, arrived=0)


def test_what_cannot_be_written_is_refused() -> None:
    for data in (b"{", b'"\xff"', b"{} {}"):
        with pytest.raises(EncodeError, match=r"data of order.placed 1 is not JSON"):
            to_structured(msgspec.structs.replace(FULL, data=data))
    with pytest.raises(EncodeError, match="outside of the years"):
        to_structured(msgspec.structs.replace(FULL, time=10**20))
    with pytest.raises(EncodeError, match=r"order.placed 1: an attribute cannot be written as UTF-8"):
        to_structured(msgspec.structs.replace(FULL, subject="\ud800"))
