"""From URLs to backends: what is refused, and what is said about it."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Sequence

import pytest

from eventmill import App, Event, Transaction
from eventmill.backends.connect import KINDS, connect, connect_store
from eventmill.backends.url import Url
from eventmill.core.errors import CapabilityError, ConfigurationError


class Wanted(Event, name="connect.wanted", key="key"):
    key: str


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("oracle://x/y", ("no backend for oracle", "kafka://host:9092")),
        ("orders.db", ("without a scheme",)),
        ("sqlite://orders.db", ("three slashes",)),
        ("sqlite:///a.db?sync=off", ("unknown option 'sync'", "busy_timeout", "synchronous")),
        ("sqlite:///a.db?synchronous=off", ("full, normal",)),
        ("sqlite:///a.db?busy_timeout=-1", ("busy_timeout", "above 0")),
        ("memory://?x=1", ("unknown option 'x'",)),
        ("amqp://u:hush@host/?colour=red", ("unknown option 'colour'",)),
        ("kafka://u:hush@host:9092?colour=red", ("unknown option 'colour'",)),
        ("sqlite:///a.db?synchronous=full&synchronous=normal", ("given 2 times",)),
    ],
)
def test_what_makes_no_sense_is_refused(url: str, words: Sequence[str]) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        connect(url)
    for word in words:
        assert word in str(refusal.value)
    assert "hush" not in str(refusal.value)


@pytest.mark.parametrize("url", ["kafka://host:9092", "amqp://host/"])
def test_what_only_carries_messages_is_no_store(url: str) -> None:
    with pytest.raises(CapabilityError, match=r"broker=.*sqlite:///file.db"):
        connect_store(url)


@pytest.mark.parametrize("scheme", [scheme for scheme, kind in KINDS.items() if kind.extra])
def test_a_missing_driver_is_named_with_the_line_that_installs_it(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for driver in ("psycopg", "confluent_kafka", "pamqp", "pamqp.frame"):
        monkeypatch.setitem(sys.modules, driver, None)
    loaded = [name for name in sys.modules if re.match(r"eventmill\.backends\.(postgres|kafka|rabbitmq)\b", name)]
    for name in loaded:
        # With the modules, the packages' attributes are put back: an import meanwhile leaves others there.
        package, _, attribute = name.rpartition(".")
        monkeypatch.setattr(sys.modules[package], attribute, sys.modules[name], raising=False)
    for name in loaded:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ConfigurationError, match=rf"pip install 'eventmill\[{KINDS[scheme].extra}\]'"):
        connect(f"{scheme}://host/")


def test_a_handler_that_needs_a_log_does_not_start_on_a_queue() -> None:
    app = App("memory://", broker="amqp://user:hush@127.0.0.1:1/", name="shop")

    @app.on(Wanted, replay=True)
    async def build_view(event: Wanted, tx: Transaction) -> None: ...

    with pytest.raises(CapabilityError) as refusal:
        asyncio.run(app.open())
    for word in ("shop.build_view", "replay=True", "a log", "amqp://", "kafka://"):
        assert word in str(refusal.value)
    assert "hush" not in str(refusal.value) + repr(app)


def test_secrets_are_not_shown() -> None:
    url = Url.parse("kafka://ann:hush@one:1,two:2/x?sasl_password=quiet&lease=3")
    assert str(url) == repr(url) == "kafka://ann:***@one:1,two:2/x?sasl_password=***&lease=3"
    assert url.password == "hush"
    assert url.hosts(9) == [("one", 1), ("two", 2)]
    assert Url.parse("amqp://[::1]/").hosts(5672) == [("[::1]", 5672)]
