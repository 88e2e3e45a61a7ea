from __future__ import annotations

import enum
import subprocess
import sys
import uuid
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, ClassVar, TypedDict

import attrs
import msgspec
import pydantic
import pytest

from eventmill.core.codec import codec_of
from eventmill.core.errors import (
    ConfigurationError,
    DecodeError,
    EncodeError,
    MessageTooLargeError,
    UnknownEventError,
)
from eventmill.core.event import Event, event
from eventmill.core.registry import REGISTRY, Registry


class Colour(enum.Enum):
    RED = "red"


class Line(msgspec.Struct, frozen=True):
    sku: str
    price: Decimal


class StructOrder(msgspec.Struct):
    id: str
    at: datetime
    day: date
    ref: uuid.UUID
    colour: Colour
    blob: bytes
    lines: list[Line]
    note: str | None = None


@dataclass
class DataOrder:
    kinds: ClassVar[int] = 1
    id: str
    at: datetime
    day: date
    ref: uuid.UUID
    colour: Colour
    blob: bytes
    lines: list[Line] = field(default_factory=list)
    note: str | None = None


@attrs.define
class AttrsOrder:
    id: str
    at: datetime
    day: date
    ref: uuid.UUID
    colour: Colour
    blob: bytes
    lines: list[Line] = attrs.Factory(list)
    note: str | None = None


class PlainLine(pydantic.BaseModel):
    sku: str
    price: Decimal


class PydanticOrder(pydantic.BaseModel):
    id: str
    at: datetime
    day: date
    ref: uuid.UUID
    colour: Colour
    blob: bytes
    lines: list[PlainLine]
    note: str | None = None


class DictOrder(TypedDict):
    id: str
    at: datetime
    lines: list[Line]


class Tree(Event, name="test-registry.tree", key="id"):
    id: int
    children: tuple[Tree, ...] = ()


class Camel(Event, name="test-registry.camel", key="order_id", rename="camel", kw_only=True):
    note: str = ""
    order_id: str


COMMON: dict[str, Any] = {
    "id": "o-1",
    "at": datetime(2026, 1, 31, 12, 0, 0, 123456, tzinfo=UTC),
    "day": date(2026, 1, 31),
    "ref": uuid.UUID(int=7),
    "colour": Colour.RED,
    "blob": b"bytes",
}
LINES = [Line("a", Decimal("1.10")), Line("b", Decimal("12345678901234567890.12"))]


@pytest.mark.parametrize(
    "order",
    [
        StructOrder(**COMMON, lines=LINES),
        DataOrder(**COMMON, lines=LINES),
        AttrsOrder(**COMMON, lines=LINES),
        PydanticOrder(**COMMON, lines=[PlainLine(sku=line.sku, price=line.price) for line in LINES]),
    ],
    ids=lambda order: type(order).__name__,
)
def test_every_kind_of_class_comes_back_as_it_was(order: Any) -> None:
    kind = Registry().add(type(order), name="order.placed", key="id")
    assert kind.decode(kind.encode(order), 1) == order
    assert kind.key_of(order) == "o-1"
    assert (kind.name, kind.version, kind.topic) == ("order.placed", 1, "order")


def test_a_typed_dict_comes_back_as_a_dict() -> None:
    kind = Registry().add(DictOrder, name="order.placed", key="id")
    order: DictOrder = {"id": "o-1", "at": COMMON["at"], "lines": LINES}
    assert kind.decode(kind.encode(order), 1) == order
    assert kind.key_of(order) == "o-1"
    with pytest.raises(EncodeError, match=r"order.placed: key 'id' cannot be read"):
        kind.key_of({"at": 1})


def test_a_class_that_mentions_itself_is_compiled_when_it_exists() -> None:
    kind = REGISTRY.type_for(Tree)
    tree = Tree(id=1, children=(Tree(id=2),))
    assert kind.decode(kind.encode(tree), 1) == tree


def test_a_type_that_is_never_found_is_reported_with_the_remedy() -> None:
    class Hidden: ...

    @dataclass
    class Local:
        hidden: Hidden

    kind = Registry().add(Local, name="local")
    with pytest.raises(ConfigurationError, match=r"Local cannot be read from JSON: .*Hidden.*at module level"):
        kind.decode(b"{}", 1)


def test_events_take_msgspecs_own_class_keywords() -> None:
    kind = REGISTRY.named("test-registry.camel")
    assert kind is not None
    assert kind.encode(Camel(order_id="7")) == b'{"note":"","orderId":"7"}'
    assert kind.decode(b'{"orderId":"7"}', 1) == Camel(order_id="7")
    assert kind.key_of(Camel(order_id="7")) == "7"
    with pytest.raises(AttributeError):
        Camel(order_id="7").order_id = "8"  # type: ignore[misc]


def test_event_keywords_without_a_name_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="need name= beside them"):

        class Nameless(Event, key="id"):
            id: str


def test_a_base_without_a_name_is_not_registered() -> None:
    class Base(Event):
        id: str

    with pytest.raises(UnknownEventError, match=r"Base has no name on the wire: .*@event"):
        REGISTRY.of(Base(id="1"))


def test_names_are_not_inherited() -> None:
    class Child(Camel):
        extra: int = 0

    with pytest.raises(UnknownEventError, match=r"its base is 'test-registry.camel', but names are not inherited"):
        REGISTRY.type_for(Child)


def test_a_plain_dict_is_pointed_to_named() -> None:
    with pytest.raises(UnknownEventError, match=r"publish named\("):
        Registry().of({"id": 1})


def test_a_name_used_twice_names_both_classes() -> None:
    registry = Registry()
    registry.add(StructOrder, name="order.placed")
    with pytest.raises(ConfigurationError, match=r"order.placed.*test_registry.StructOrder.*test_registry.DataOrder"):
        registry.add(DataOrder, name="order.placed")
    assert registry.names() == ["order.placed"]
    assert registry.type_for(StructOrder).name == "order.placed"


def test_a_class_has_one_name() -> None:
    registry = Registry()
    registry.add(StructOrder, name="order.placed")
    with pytest.raises(ConfigurationError, match=r"StructOrder is registered as 'order.placed' already"):
        registry.add(StructOrder, name="order.other")
    assert registry.named("order.other") is None


def test_a_reloaded_class_takes_the_place_of_the_former() -> None:
    def load() -> type:
        @dataclass
        class Reloaded:
            id: str

        return Reloaded

    registry = Registry()
    former, latter = load(), load()
    registry.add(former, name="reloaded")
    registry.add(former, name="reloaded")
    kind = registry.add(latter, name="reloaded", key="id")
    assert registry.named("reloaded") is kind
    assert type(kind.decode(b'{"id":"1"}', 1)) is latter
    assert registry.type_for(former).name == "reloaded"


def test_a_key_that_is_no_field_lists_the_fields() -> None:
    with pytest.raises(
        ConfigurationError, match=r"order.placed: key='ident' is not a field; its fields are id, at, day"
    ):
        Registry().add(DataOrder, name="order.placed", key="ident")


@pytest.mark.parametrize(
    ("wrong", "field"), [({"name": "Order"}, "name"), ({"version": 0}, "version"), ({"topic": "a b"}, "topic")]
)
def test_wrong_declarations_are_refused_with_the_field(wrong: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{field}="):
        Registry().add(DataOrder, **{"name": "order.placed", **wrong})


@dataclass
class Keyed:
    key: Any


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("é", "é"),
        (7, "7"),
        (-7, "-7"),
        (uuid.UUID(int=1), str(uuid.UUID(int=1))),
        (Colour.RED, "red"),
        ("k" * 500,) * 2,
    ],
)
def test_keys_become_text(key: object, text: str) -> None:
    kind = Registry().add(Keyed, name="keyed", key="key")
    assert kind.key_of(Keyed(key)) == text


@pytest.mark.parametrize("key", [None, "", True, 1.5, b"k", ["k"], "a\0", "\udc00", "\0"])
def test_keys_that_are_no_text_are_refused_with_the_field(key: object) -> None:
    kind = Registry().add(Keyed, name="keyed", key="key")
    with pytest.raises(EncodeError, match="keyed: key 'key'"):
        kind.key_of(Keyed(key))


@pytest.mark.parametrize("key", ["k" * 501, "é" * 251])
def test_long_keys_are_refused_with_both_figures(key: str) -> None:
    kind = Registry().add(Keyed, name="keyed", key="key")
    with pytest.raises(MessageTooLargeError, match=r"keyed: key 'key' is 50[12] bytes; the limit is 500"):
        kind.key_of(Keyed(key))


def test_a_key_may_be_a_function() -> None:
    def customer(event: Keyed) -> object:
        return event.key["customer"]

    kind = Registry().add(Keyed, name="keyed", key=customer)
    assert kind.key_of(Keyed({"customer": 7})) == "7"
    with pytest.raises(EncodeError, match="keyed: key 'customer' cannot be read: KeyError"):
        kind.key_of(Keyed({}))
    assert Registry().add(Keyed, name="keyed").key_of(Keyed("k")) is None


def test_what_json_cannot_hold_is_an_encode_error_with_the_name() -> None:
    kind = Registry().add(Keyed, name="keyed")
    circle: list[Any] = []
    circle.append(circle)
    for value in (object(), "\ud800", circle):
        with pytest.raises(EncodeError, match=r"^keyed cannot be written as JSON"):
            kind.encode(Keyed(value))


def test_an_event_that_nobody_could_read_is_refused_with_the_field() -> None:
    kind = Registry().add(StructOrder, name="order.placed")
    with pytest.raises(EncodeError, match=r"order\.placed: what was written could not be read again: .*\$\.id"):
        kind.encode(StructOrder(7, datetime.now(UTC), date.today(), uuid.uuid4(), Colour.RED, b"", []))  # type: ignore[arg-type]


@pytest.mark.parametrize("cls", [StructOrder, DataOrder, AttrsOrder, PydanticOrder, DictOrder])
@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b'{"id": 7}', b"\xff", b'{"id": "\xff"}', b"[" * 100_000])
def test_unreadable_data_is_a_decode_error_with_name_and_version(cls: type, data: bytes) -> None:
    kind = Registry().add(cls, name="order.placed")
    with pytest.raises(DecodeError, match=r"^order.placed version 1 cannot be read"):
        kind.decode(data, 1)


def test_the_path_of_a_wrong_type_is_told() -> None:
    kind = Registry().add(DictOrder, name="order.placed")
    with pytest.raises(DecodeError, match=r"Expected `str`, got `int` - at `\$.lines\[0\].sku`"):
        kind.decode(b'{"id":"1","at":"2026-01-31T12:00:00Z","lines":[{"sku":1,"price":"1"}]}', 1)


def test_decorators_in_the_wrong_order_are_refused() -> None:
    @dataclass
    class Parent:
        id: str

    class Undecorated(Parent):
        more: str = ""

    for cls in (Undecorated, object, int):
        with pytest.raises(ConfigurationError, match=r"above \(outside of\) @dataclass"):
            event(name="test-registry.wrong")(cls)
    assert REGISTRY.named("test-registry.wrong") is None


def test_pydantic_aliases_that_do_not_meet_are_refused() -> None:
    class Alias(pydantic.BaseModel):
        order_id: str = pydantic.Field(alias="orderId")

    kind = Registry().add(Alias, name="alias", key="order_id")
    assert kind.encode(Alias(orderId="7")) == b'{"orderId":"7"}'
    assert kind.decode(b'{"orderId":"7"}', 1) == Alias(orderId="7")

    class OneWay(pydantic.BaseModel):
        order_id: str = pydantic.Field(serialization_alias="orderId")

    with pytest.raises(ConfigurationError, match="'order_id' is written as 'orderId' but read as 'order_id'"):
        codec_of(OneWay)


def test_pydantic_dataclasses_are_refused() -> None:
    @pydantic.dataclasses.dataclass
    class Order:
        id: str

    with pytest.raises(ConfigurationError, match="is a pydantic dataclass"):
        codec_of(Order)


def test_optional_libraries_are_not_imported() -> None:
    code = (
        "import sys\n"
        "from dataclasses import dataclass\n"
        "from eventmill.core.event import event\n"
        "import eventmill.core.envelope, eventmill.core.cloudevents\n"
        "@event(name='a')\n@dataclass\nclass A:\n    id: str\n"
        "sys.exit(any(name.partition('.')[0] in ('pydantic', 'attr', 'attrs') for name in sys.modules))\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
