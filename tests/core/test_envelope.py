from __future__ import annotations

import itertools
import re
from typing import Any, TypedDict

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventmill.core.clock import ManualClock
from eventmill.core.context import handling
from eventmill.core.envelope import Envelopes
from eventmill.core.errors import ConfigurationError, EncodeError, MessageError, MessageTooLargeError, UnknownEventError
from eventmill.core.event import named
from eventmill.core.limits import Limits
from eventmill.core.message import Message
from eventmill.core.registry import Registry


class Order(msgspec.Struct):
    id: str
    note: str = ""


class Payment(TypedDict):
    order: int
    amount: int


TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
MESSAGE = Message(id="m", source="elsewhere", type="x.y", topic="x", time=1, data=b"{}")


def envelopes(limits: Limits | None = None) -> Envelopes:
    registry = Registry()
    registry.add(Order, name="order.placed", key="id", version=3)
    registry.add(Payment, name="payment.taken", key="order", topic="money")
    counter = itertools.count(1)
    return Envelopes("shop", ManualClock(1_700_000_000.123456), lambda: f"id-{next(counter)}", registry, limits)


def test_a_message_of_its_own_begins_a_correlation() -> None:
    assert envelopes()(Order("7")) == Message(
        id="id-1",
        source="shop",
        type="order.placed",
        topic="order",
        time=1_700_000_000_123_456,
        data=b'{"id":"7","note":""}',
        key="7",
        version=3,
        correlationid="id-1",
    )


@pytest.mark.parametrize(("correlation", "expected"), [(None, "m"), ("c", "c")])
def test_a_handlers_message_follows_the_one_it_handles(correlation: str | None, expected: str) -> None:
    parent = msgspec.structs.replace(MESSAGE, correlationid=correlation, traceparent=TRACE)
    make = envelopes()
    token = handling.set(parent)
    try:
        first, second = make(Order("7")), make(named("free.name", {}))
    finally:
        handling.reset(token)
    for message in (first, second):
        assert (message.correlationid, message.causationid) == (expected, "m")
        assert message.traceparent is not None
        assert message.traceparent[:36] == TRACE[:36]
        assert message.traceparent[52:] == "-01"
    assert len({first.traceparent, second.traceparent, TRACE}) == 3
    assert make(Order("8")).causationid is None


def test_named_data_under_a_free_name() -> None:
    message = envelopes()(named("lamp.lit", {"room": 3}, key=3))
    assert (message.type, message.topic, message.key, message.version) == ("lamp.lit", "lamp", "3", 1)
    assert message.data == b'{"room":3}'
    assert envelopes()(named("lamp.lit", [1])).key is None


def test_named_data_under_a_registered_name_takes_its_key_version_and_topic() -> None:
    taken = envelopes()(named("payment.taken", {"order": 7, "amount": 5}))
    assert (taken.type, taken.topic, taken.key) == ("payment.taken", "money", "7")
    placed = envelopes()(named("order.placed", {"id": "7"}, key="8"))
    assert (placed.key, placed.version) == ("8", 3)
    assert envelopes()(named("order.placed", Order("7"))).data == b'{"id":"7","note":""}'


def test_named_data_that_does_not_fit_its_type_is_refused() -> None:
    with pytest.raises(EncodeError, match=r"named\('order.placed', ...\) does not fit .*Expected `str`, got `int`"):
        envelopes()(named("order.placed", {"id": 7}))
    with pytest.raises(EncodeError, match="free cannot be written as JSON"):
        envelopes()(named("free", object()))
    with pytest.raises(ConfigurationError, match="name="):
        named("Not A Name", {})
    with pytest.raises(EncodeError, match="free: key is empty"):
        envelopes()(named("free", {}, key=""))


def test_what_was_never_registered_is_refused() -> None:
    for event in (object(), {"id": "7"}, "order.placed", None):
        with pytest.raises(UnknownEventError):
            envelopes()(event)


def test_events_over_a_limit_are_refused_with_their_name() -> None:
    with pytest.raises(MessageTooLargeError, match=r"order.placed is 1,048,599 bytes; the limit is 1,048,576"):
        envelopes()(Order("7", "x" * 1_048_579))
    deep: Any = []
    for _ in range(3):
        deep = [deep]
    with pytest.raises(MessageTooLargeError, match="free is nested 4 deep; the limit is 3"):
        envelopes(Limits(max_depth=3))(named("free", deep))
    assert envelopes(Limits(max_depth=3))(named("free", "[[[[[")).data == b'"[[[[["'


def test_a_message_is_returned_as_it_is() -> None:
    message = msgspec.structs.replace(MESSAGE, type="com.Example Event", extensions={"tenant": "", "tracestate": "a=1"})
    assert envelopes()(message) is message


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"id": ""}, "id"),
        ({"source": "a\0"}, "source"),
        ({"type": "\ud800"}, "type"),
        ({"topic": "a/b"}, "topic"),
        ({"key": ""}, "key"),
        ({"key": "k" * 501}, "key"),
        ({"subject": "\udfff"}, "subject"),
        ({"correlationid": "\0"}, "correlationid"),
        ({"contenttype": ""}, "contenttype"),
        ({"version": 0}, "version"),
        ({"extensions": {"Tenant": "a"}}, "extension 'Tenant'"),
        ({"extensions": {"ten_ant": "a"}}, "extension 'ten_ant'"),
        ({"extensions": {"": "a"}}, "extension ''"),
        ({"extensions": {"t" * 21: "a"}}, "extension 't"),
        ({"extensions": {"partitionkey": "a"}}, "extension 'partitionkey'"),
        ({"extensions": {"tenant": "\ud800"}}, "extension 'tenant'"),
        ({"extensions": {"tenant": 7}}, "extension 'tenant'"),
        ({"data": b"[" * 65}, "x.y"),
    ],
)
def test_a_message_that_cannot_be_carried_is_refused_with_the_field(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(MessageError, match=f"^{field}"):
        envelopes()(msgspec.structs.replace(MESSAGE, **changes))


def test_a_source_must_be_text() -> None:
    with pytest.raises(ConfigurationError, match="source is empty"):
        Envelopes("", ManualClock(), lambda: "id")


@given(st.text())
def test_any_text_as_key_is_carried_whole_or_refused(key: str) -> None:
    if not key or "\0" in key or len(key.encode(errors="replace")) > 500 or re.search("[\ud800-\udfff]", key):
        with pytest.raises(MessageError, match="key"):
            envelopes()(named("free", {}, key=key))
    else:
        assert envelopes()(named("free", {}, key=key)).key == key
