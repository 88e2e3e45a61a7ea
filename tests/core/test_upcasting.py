from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from eventmill.core.errors import ConfigurationError, DecodeError
from eventmill.core.event import Event, upcast
from eventmill.core.registry import REGISTRY, Registry


@dataclass
class Order:
    id: str
    cents: int


def test_a_chain_of_steps_leads_from_old_to_new() -> None:
    registry = Registry()
    kind = registry.add(Order, name="order.placed", version=3)
    registry.upcasters.add("order.placed", 1, lambda data: {"id": data["number"], "pounds": data["pounds"]})
    registry.upcasters.add("order.placed", 2, lambda data: {"id": str(data["id"]), "cents": data["pounds"] * 100})
    assert kind.decode(b'{"number":7,"pounds":2}', 1) == Order("7", 200)
    assert kind.decode(b'{"id":7,"pounds":2}', 2) == Order("7", 200)
    assert kind.decode(b'{"id":"7","cents":2}', 3) == Order("7", 2)


def test_a_missing_step_names_both_versions_and_the_remedy() -> None:
    registry = Registry()
    kind = registry.add(Order, name="order.placed", version=3)
    registry.upcasters.add("order.placed", 1, lambda data: data)
    with pytest.raises(DecodeError) as caught:
        kind.decode(b"{}", 1)
    assert str(caught.value) == (
        "order.placed was stored as version 1, the code wants version 3, and the step from version 2 is missing: "
        "write a function with @upcast('order.placed', from_version=2)"
    )


def test_a_newer_payload_than_the_code_is_refused() -> None:
    kind = Registry().add(Order, name="order.placed", version=2)
    with pytest.raises(DecodeError, match="stored as version 3, but this code knows version 2"):
        kind.decode(b'{"id":"1","cents":1}', 3)
    with pytest.raises(DecodeError, match="version 0 does not exist"):
        kind.decode(b'{"id":"1","cents":1}', 0)


def broken(data: dict[str, Any]) -> dict[str, Any]:
    return {"id": data["nothing"]}


def listing(data: dict[str, Any]) -> dict[str, Any]:
    return [data]  # type: ignore[return-value]


def unwritable(data: dict[str, Any]) -> dict[str, Any]:
    return {"id": object()}


@pytest.mark.parametrize(
    ("step", "data", "reason"),
    [
        (broken, b"{}", "upcaster .*broken of order.placed from version 1 failed: KeyError: 'nothing'"),
        (listing, b"{}", "listing of order.placed from version 1 returned list"),
        (unwritable, b"{}", "what JSON cannot hold"),
        (broken, b"[]", "order.placed version 1 cannot be read"),
        (broken, b"{", "order.placed version 1 cannot be read"),
        (broken, b'{"\xff":1}', "order.placed version 1 cannot be read"),
    ],
)
def test_a_step_that_fails_is_a_decode_error(step: Any, data: bytes, reason: str) -> None:
    registry = Registry()
    kind = registry.add(Order, name="order.placed", version=2)
    registry.upcasters.add("order.placed", 1, step)
    with pytest.raises(DecodeError, match=reason):
        kind.decode(data, 1)


def test_two_steps_from_one_version_are_refused_unless_reloaded() -> None:
    registry = Registry()
    registry.upcasters.add("order.placed", 1, broken)
    registry.upcasters.add("order.placed", 1, broken)
    with pytest.raises(ConfigurationError, match=r"two upcasters.*broken and .*listing"):
        registry.upcasters.add("order.placed", 1, listing)
    with pytest.raises(ConfigurationError, match="from_version=0"):
        registry.upcasters.add("order.placed", 0, broken)


class Shipped(Event, name="test-upcasting.shipped", version=2):
    id: str


@upcast("test-upcasting.shipped", from_version=1)
def rename(data: dict[str, Any]) -> dict[str, Any]:
    return {"id": data["number"]}


def test_the_decorator_serves_the_process_wide_registry() -> None:
    assert REGISTRY.type_for(Shipped).decode(b'{"number":"7"}', 1) == Shipped(id="7")
    assert rename({"number": "8"}) == {"id": "8"}
