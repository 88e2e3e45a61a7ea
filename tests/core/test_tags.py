"""Tags: where they come from, and what is refused."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from uuid import UUID

import msgspec
import pytest

from eventmill.core.clock import ManualClock
from eventmill.core.cloudevents import from_binary, to_binary
from eventmill.core.envelope import Envelopes, check_message
from eventmill.core.errors import ConfigurationError, EncodeError, MessageError
from eventmill.core.limits import Limits
from eventmill.core.message import Message
from eventmill.core.registry import Registry
from eventmill.core.stream import Stream
from eventmill.core.tags import check_tags


class Level(Enum):
    HIGH = "high"


@dataclass
class Enrolled:
    course: str
    student: int | UUID
    level: Level | None = None
    rooms: tuple[str, ...] = ()


def envelopes(tags: object) -> Envelopes:
    registry = Registry()
    registry.add(Enrolled, name="course.enrolled", key="course", tags=tags)  # type: ignore[arg-type]
    numbers = iter(range(1_000))
    return Envelopes("school", ManualClock(), lambda: f"id{next(numbers)}", registry)


def test_fields_become_tags() -> None:
    make = envelopes(("course", "student", "level", "rooms"))
    assert make(Enrolled("c1", 7)).tags == ("course:c1", "student:7")
    assert make(Enrolled("c1", 7, Level.HIGH, ("b", "a"))).tags == (
        "course:c1", "student:7", "level:high", "rooms:a", "rooms:b",
    )  # fmt: skip
    assert envelopes("course")(Enrolled("c1", 7)).tags == ("course:c1",)


def test_a_function_gives_tags() -> None:
    assert envelopes(lambda event: [f"x:{event.student}", "y", "y"])(Enrolled("c", 7)).tags == ("x:7", "y")
    assert envelopes(lambda event: event.course)(Enrolled("c", 7)).tags == ("c",)
    with pytest.raises(EncodeError, match=r"course\.enrolled: tags cannot be read: ZeroDivisionError"):
        envelopes(lambda event: [event.student / 0])(Enrolled("c", 7))


@pytest.mark.parametrize("tags", ["teacher", ("course", "teacher"), (), (7,)])
def test_a_tag_that_is_no_field_is_refused(tags: object) -> None:
    with pytest.raises(ConfigurationError, match="tags="):
        envelopes(tags)


@pytest.mark.parametrize("value", ["a,b", "", "a\n", " a", "x" * 201, 1.5, True, b"x", "\ud800"])
def test_values_that_cannot_travel_are_refused(value: object) -> None:
    with pytest.raises(MessageError, match=r"course\.enrolled: tags"):
        envelopes(lambda event: [value])(Enrolled("c", 7))


def test_too_many_tags() -> None:
    assert len(check_tags([f"t{number}" for number in range(32)])) == 32
    with pytest.raises(EncodeError, match="33 tags"):
        check_tags([f"t{number}" for number in range(33)])
    with pytest.raises(EncodeError, match="is made of"):
        envelopes("student")(Enrolled("c", 1.5))  # type: ignore[arg-type]
    assert envelopes("student")(Enrolled("c", UUID(int=1))).tags == (f"student:{UUID(int=1)}",)


def test_tags_of_a_message_filled_in_by_hand_are_checked() -> None:
    message = Message(id="1", source="s", type="t", topic="t", time=0, data=b"{}", tags=("a,b",))
    with pytest.raises(EncodeError, match="comma"):
        check_message(message, Limits())


def test_foreign_tags_that_are_none_of_ours_stay_an_extension() -> None:
    message = Message(id="1", source="s", type="t", topic="t", time=0, data=b"{}", extensions={"tags": "a, b"})
    headers, body = to_binary(message, "ce_")
    assert from_binary(headers, body, "ce_", arrived=0) == message
    ours = msgspec.structs.replace(message, extensions=None, tags=("a", "b"))
    headers, body = to_binary(ours, "ce_")
    assert headers["ce_tags"] == "a,b"
    assert from_binary(headers, body, "ce_", arrived=0) == ours


def test_an_id_of_the_callers_takes_the_correlation_along() -> None:
    make = envelopes(None)
    stream = Stream("course", "other")
    fresh = make.in_stream(Enrolled("c1", 7), stream)
    assert (fresh.key, fresh.correlationid) == ("other", fresh.id)
    named = make.in_stream(Enrolled("c1", 7), stream, "mine")
    assert (named.id, named.correlationid, named.key) == ("mine", "mine", "other")
    with pytest.raises(EncodeError):
        make.in_stream(Enrolled("c1", 7), Stream("student", "s"))
    with pytest.raises(EncodeError, match="id"):
        make.in_stream(Enrolled("c1", 7), stream, "")
