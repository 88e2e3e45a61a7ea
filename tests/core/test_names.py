from __future__ import annotations

import pytest

from eventmill.core.errors import ConfigurationError
from eventmill.core.names import check_name, is_json, topic_of


@pytest.mark.parametrize("name", ["order", "order.placed", "a-b.c_d.0", "x" * 200])
def test_names_that_keep_the_rule(name: str) -> None:
    assert check_name(name, "name") == name


@pytest.mark.parametrize("name", ["", ".", "a.", ".a", "a..b", "Order", "a b", "é", "a/b", "a\n", "x" * 201, None, 7])
def test_names_that_break_the_rule_are_refused_with_the_field(name: object) -> None:
    with pytest.raises(ConfigurationError, match=r"^topic="):
        check_name(name, "topic")


@pytest.mark.parametrize(("name", "topic"), [("order.placed", "order"), ("tick", "tick"), ("a.b.c", "a"), (".x", ".x")])
def test_a_topic_is_the_name_up_to_its_first_dot(name: str, topic: str) -> None:
    assert topic_of(name) == topic


def test_media_types_of_json() -> None:
    assert is_json("application/json; charset=utf-8")
    assert is_json("Application/Vnd.Shop+JSON")
    assert not is_json("text/plain")
    assert not is_json("application/jsonp")
