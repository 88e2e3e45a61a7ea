"""Commands that look at a broker: by its own URL, and through an App."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from cli_calls import Call, parsed
from cli_seeds import message
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType  # type: ignore[attr-defined]

from eventmill.backends.connect import connect
from eventmill.backends.kafka.backend import KafkaBackend
from eventmill.backends.url import Url
from eventmill.cli.target import load_app
from eventmill.core.errors import ConfigurationError

APP = """
from eventmill import App, Event

app = App("sqlite:///ovens.db", broker={broker!r}, name="ovens")

class OvenLit(Event, name="oven.lit", key="oven"):
    oven: str

@app.on(OvenLit)
async def warm(event: OvenLit) -> None: ...
"""


def filled(url: str, count: int) -> None:
    async def main() -> None:
        broker = connect(url)
        async with broker:
            await broker.declare({"bread": 2})
            await broker.publish([message(number, f"k{number}") for number in range(count)])

    asyncio.run(main())


def test_topics_and_tail_read_kafka_by_its_url(call: Call, kafka_url: str, kafka_prefix: str) -> None:
    url = f"{kafka_url}?prefix={kafka_prefix}"
    filled(url, 5)
    (topic,) = parsed(call("topics", url, "--json"))
    assert (topic["topic"], topic["partitions"], topic["messages"]) == ("bread", 2, 5)
    records = [json.loads(line) for line in call("tail", url, "--json").stdout.splitlines()]
    assert {record["id"] for record in records} == {f"m{number}" for number in range(5)}
    assert "retention of its own" in call("topics", "trim", url, "bread", "--older-than", "1s", code=78).stderr


@pytest.mark.parametrize("command", [["groups"], ["dead"], ["outbox"]])
def test_what_is_in_the_store_is_not_looked_for_in_a_broker(call: Call, command: list[str]) -> None:
    refused = call(*command, "kafka://127.0.0.1:1", code=78).stderr
    assert "is a broker: groups, failed messages and the outbox are in the service's store" in refused


def test_a_queue_has_nothing_to_tail(call: Call, rabbitmq_url: str) -> None:
    assert "no log to read there" in call("tail", rabbitmq_url, code=78).stderr


def keep(server: str, topic: str, **settings: str) -> None:
    """Change a topic's configuration, as an operator does."""
    resource = ConfigResource(
        ResourceType.TOPIC,
        topic,
        incremental_configs=[
            ConfigEntry(name.replace("_", "."), value, incremental_operation=AlterConfigOpType.SET)
            for name, value in settings.items()
        ],
    )
    admin = AdminClient({"bootstrap.servers": urlsplit(server).netloc})
    for future in admin.incremental_alter_configs([resource]).values():
        future.result(20)
    until = time.monotonic() + 20
    while time.monotonic() < until:
        (shown,) = admin.describe_configs([ConfigResource(ResourceType.TOPIC, topic)]).values()
        if all(shown.result(20)[name.replace("_", ".")].value == value for name, value in settings.items()):
            return
        time.sleep(0.05)
    raise TimeoutError(f"{topic} does not have {settings}")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"retention_ms": "604800000"}, None),
        ({"retention_ms": "691200000"}, "for 8 days, but the inbox forgets what was handled after 7 days"),
        ({"retention_ms": "-1"}, "keeps messages for ever"),
        ({"cleanup_policy": "compact"}, "keeps messages for ever"),
    ],
)
def test_a_topic_that_keeps_messages_longer_than_the_inbox_remembers(
    folder: Path, call: Call, kafka_url: str, kafka_prefix: str, caplog: pytest.LogCaptureFixture,
    settings: dict[str, str], said: str | None,
) -> None:  # fmt: skip
    (folder / "ovens.py").write_text(APP.format(broker=f"{kafka_url}?prefix={kafka_prefix}"))

    async def open_it() -> None:
        async with load_app("ovens"):
            pass

    asyncio.run(open_it())  # makes the topic
    keep(kafka_url, f"{kafka_prefix}oven", **settings)
    caplog.clear()
    asyncio.run(open_it())
    warned = [record.getMessage() for record in caplog.records if "inbox" in record.getMessage()]
    findings = {each["about"]: each for each in parsed(call("doctor", "ovens", "--json"))["findings"]}
    if said is None:
        assert warned == []
        assert "inbox" not in findings
    else:
        assert said in warned[0]
        assert "Settings(inbox_retention=" in warned[0]
        assert said in findings["inbox"]["text"]
        assert findings["inbox"]["level"] == "warning"


def test_the_doctor_examines_an_app_on_a_queue(folder: Path, call: Call, rabbitmq_url: str) -> None:
    (folder / "ovens.py").write_text(APP.format(broker=rabbitmq_url))

    async def open_it() -> None:
        async with load_app("ovens"):
            pass

    asyncio.run(open_it())
    findings = {each["about"] for each in parsed(call("doctor", "ovens", "--json"))["findings"]}
    assert "dead" in findings


def test_topics_of_a_trial_are_removed_together(kafka_url: str, kafka_prefix: str) -> None:
    """Only under a prefix, so that nobody else's are."""
    mine, other = f"{kafka_url}?prefix={kafka_prefix}mine.", f"{kafka_url}?prefix={kafka_prefix}other."
    filled(mine, 1)
    filled(other, 1)

    async def main() -> None:
        async with KafkaBackend(Url.parse(mine)) as backend:
            await backend.remove()
            async with asyncio.timeout(20):
                while await backend.topics():
                    await asyncio.sleep(0.1)
        async with KafkaBackend(Url.parse(other)) as backend:
            assert dict(await backend.topics()) == {"bread": 2}
        async with KafkaBackend(Url.parse(kafka_url)) as backend:
            with pytest.raises(ConfigurationError, match="give prefix="):
                await backend.remove()

    asyncio.run(main())
