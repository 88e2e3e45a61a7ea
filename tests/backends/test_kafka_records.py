"""What is on the wire, who else may read and write it, and what cannot be carried or read."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Sequence
from typing import Any
from urllib.parse import urlsplit

import pytest
from cloudevents.core.bindings.kafka import (
    KafkaMessage,
    from_binary_event,
    to_binary_event,
    to_structured_event,
)
from cloudevents.core.v1.event import CloudEvent
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource

from eventmill import App, Event, Message, Transaction
from eventmill.backends.kafka.backend import KafkaBackend
from eventmill.backends.kafka.record import UNREADABLE, to_record
from eventmill.backends.url import Url
from eventmill.core import cloudevents
from eventmill.core.errors import BackendError, MessageTooLargeError
from eventmill.core.message import Partition, Recorded
from eventmill.core.reading import Types

ORDER = Partition("parcel", 0)


class Placed(Event, name="parcel.placed", key="customer"):
    customer: str
    number: int
    padding: str = ""


@pytest.fixture
def url(kafka_server: str, kafka_prefix: str) -> str:
    return f"{kafka_server}?prefix={kafka_prefix}"


def servers(url: str) -> dict[str, Any]:
    return {"bootstrap.servers": urlsplit(url).netloc}


def message(number: int, key: str | None = "a", **fields: Any) -> Message:
    given = {
        "id": f"m{number}",
        "source": "test",
        "type": "parcel.placed",
        "topic": "parcel",
        "time": 1_700_000_000_000_000,
    }
    return Message(**{**given, "data": b"{}", "key": key, **fields})


@contextlib.asynccontextmanager
async def opened(url: str, partitions: int = 1) -> AsyncIterator[KafkaBackend]:
    async with KafkaBackend(Url.parse(url)) as backend:
        await backend.declare({"parcel": partitions})
        yield backend


async def everything(backend: KafkaBackend, types: Types | None = None) -> Sequence[Recorded]:
    at = dict.fromkeys([Partition("parcel", number) for number in range((await backend.topics())["parcel"])], 0)
    return (await backend.read(at, limit=1_000, types=types)).messages


def produce(url: str, topic: str, *messages: KafkaMessage | tuple[bytes | None, bytes, dict[str, bytes]]) -> None:
    producer = Producer(servers(url))
    for each in messages:
        key, value, headers = (each.key, each.value, each.headers) if isinstance(each, KafkaMessage) else each
        producer.produce(topic, value, key, headers=headers, partition=0)
    assert producer.flush(20) == 0


async def until(condition: Any, seconds: float = 30) -> None:
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(0.02)


# On the wire


def test_headers_are_those_of_the_core() -> None:
    full = message(
        1, "käse", version=3, sequence=7, subject="s", correlationid="c", causationid="d", traceparent="t",
        extensions={"tenant": "nørd", "id": "never"}, tags=("course:c1", "straße:7"),
    )  # fmt: skip
    for each in (full, message(2, None)):
        record = to_record(each)
        headers, body = cloudevents.to_binary(each, "ce_")
        assert (dict(record.headers), record.value, record.key) == (headers, body, each.key)
        assert len(record.headers) == len(headers)
        exact = sum(len(name) + len(text.encode()) for name, text in headers.items()) + len(body)
        assert exact < record.size < exact + 128 + 28 * len(headers)


def test_a_cloudevents_client_reads_what_we_publish(url: str, kafka_prefix: str) -> None:
    async def publish() -> None:
        async with opened(url) as backend:
            await backend.publish([message(1, data=b'{"total": 3}', sequence=4, tags=("course:c1", "x"))])

    asyncio.run(publish())
    consumer = Consumer({**servers(url), "group.id": f"{kafka_prefix}foreign"})
    consumer.assign([TopicPartition(f"{kafka_prefix}parcel", 0, 0)])
    record = consumer.poll(20)
    consumer.close()
    assert record is not None
    assert record.error() is None
    event = from_binary_event(KafkaMessage(dict(record.headers()), record.key(), record.value()))
    identity = (event.get_id(), event.get_source(), event.get_type(), event.get_data())
    assert identity == ("m1", "test", "parcel.placed", {"total": 3})
    assert event.get_extension("partitionkey") == "a"
    assert event.get_extension("tags") == "course:c1,x"
    assert record.key() == b"a"


def test_we_read_what_a_cloudevents_client_writes(url: str, kafka_prefix: str) -> None:
    attributes = {
        "specversion": "1.0",
        "type": "parcel.placed",
        "source": "theirs",
        "tenant": "north",
        "tags": "course:c1,x",
    }
    binary = to_binary_event(CloudEvent({**attributes, "id": "b"}, {"total": 1}), key_mapper=lambda event: "k1")
    structured = to_structured_event(CloudEvent({**attributes, "id": "s"}, {"total": 2}), key_mapper=lambda event: "k2")

    async def read() -> None:
        async with opened(url) as backend:
            await asyncio.to_thread(produce, url, f"{kafka_prefix}parcel", binary, structured)
            found = await everything(backend)
            assert [(one.message.id, one.message.key) for one in found] == [("b", "k1"), ("s", "k2")]
            assert [one.message.extensions for one in found] == [{"tenant": "north"}] * 2
            assert [one.message.tags for one in found] == [("course:c1", "x")] * 2
            assert [one.unreadable for one in found] == [None, None]
            assert len(await everything(backend, Types(frozenset({"parcel.placed"})))) == 2
            assert not await everything(backend, Types(frozenset({"parcel.paid"})))

    asyncio.run(read())


def test_a_key_that_is_no_text_still_keeps_its_messages_in_order(url: str, kafka_prefix: str) -> None:
    headers = {"ce_specversion": b"1.0", "ce_id": b"1", "ce_source": b"s", "ce_type": b"parcel.placed"}

    async def read() -> None:
        async with opened(url) as backend:
            await asyncio.to_thread(produce, url, f"{kafka_prefix}parcel", (b"\xff\x00\x01", b"{}", headers))
            (found,) = await everything(backend)
            assert found.message.key == "%FF%00%01"

    asyncio.run(read())


# What cannot be read


def test_what_is_no_cloudevent_is_a_dead_letter_of_the_groups_that_read_it(
    url: str, kafka_prefix: str, tmp_path: Any
) -> None:
    broken = {"ce_specversion": b"1.0", "ce_type": b"parcel.placed", "ce_source": b"s"}  # it has no id
    other = {**broken, "ce_type": b"parcel.paid"}
    good = {**broken, "ce_id": b"1"}
    seen: list[int] = []

    async def run() -> None:
        async with opened(url):
            pass
        app = App(f"sqlite:///{tmp_path}/shop.db", broker=url, topics={"parcel": 1})

        @app.on(Placed, group="readers")
        async def read(event: Placed, tx: Transaction) -> None:
            seen.append(event.number)

        await asyncio.to_thread(
            produce, url, f"{kafka_prefix}parcel",
            (b"k", b"junk", {}), (b"k", b"{}", broken), (b"k", b"{}", other),
            (b"k", b'{"customer": "k", "number": 1}', good), (None, b"", {"ce_type": b"\xff"}),
        )  # fmt: skip
        async with app:
            task = asyncio.create_task(app.run())

            async def handled() -> bool:
                return seen == [1] and len(await app.store.jobs("readers", state="dead")) == 2

            await until(handled)
            await asyncio.sleep(0.3)
            app.stop()
            await task
            dead = await app.store.jobs("readers")
            assert [(job.message.type, job.message.data, job.lane, job.state) for job in dead] == [
                (UNREADABLE, b"junk", None, "dead"),
                (UNREADABLE, b"{}", None, "dead"),
            ]
            assert "neither ce_ headers" in dead[0].errors[0].error
            assert "id: missing" in dead[1].errors[0].error
            assert dead[1].message.id == "parcel/0@1"

    asyncio.run(run())
    assert seen == [1]


# What cannot be carried


def limit(url: str, topic: str, size: int) -> None:
    entry = ConfigEntry("max.message.bytes", str(size), incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=[entry])
    admin = AdminClient(servers(url))
    for future in admin.incremental_alter_configs([resource]).values():
        future.result(20)


def test_a_message_over_the_limit_is_refused_with_both_figures(url: str) -> None:
    async def run() -> None:
        async with opened(url) as backend:
            with pytest.raises(MessageTooLargeError, match=r"2,000,\d+ bytes.* 1,048,588 "):
                await backend.publish([message(1), message(2, data=b"x" * 2_000_000), message(3)])
            await backend.publish([message(4)])
            assert [one.message.id for one in await everything(backend)] == ["m4"]

    asyncio.run(run())


def test_a_topic_with_a_small_limit_takes_many_small_messages(url: str, kafka_prefix: str) -> None:
    async def run() -> None:
        async with opened(url) as backend:
            await backend.publish([message(0)])
            await asyncio.to_thread(limit, url, f"{kafka_prefix}parcel", 5_000)
            backend._open.cluster.forget_limits()
            await backend.publish([message(number, data=b"x" * 3_000) for number in range(1, 100)])
            with pytest.raises(MessageTooLargeError):
                await backend.publish([message(100, data=b"x" * 5_000)])
            assert [one.message.id for one in await everything(backend)] == [f"m{number}" for number in range(100)]

    asyncio.run(run())


def test_nothing_passes_a_message_that_only_the_broker_refuses(url: str, kafka_prefix: str) -> None:
    """Its limit was lowered since we asked for it."""

    async def run() -> None:
        async with opened(url) as backend:
            await backend.publish([message(0)])
            await asyncio.to_thread(limit, url, f"{kafka_prefix}parcel", 5_000)
            sizes = [10] * 50 + [20_000] + [10] * 50
            for _ in range(2):
                with pytest.raises(MessageTooLargeError):
                    await backend.publish([message(n, data=b"x" * size) for n, size in enumerate(sizes, 1)])
            found = [one.message.id for one in await everything(backend)]
            assert found == [f"m{number}" for number in range(len(found))]
            assert len(found) <= 51
            await backend.publish([message(200)])
            assert (await everything(backend))[-1].message.id == "m200"

    asyncio.run(run())


def test_a_message_over_the_limit_is_a_dead_letter_of_the_relay(url: str, kafka_prefix: str, tmp_path: Any) -> None:
    async def run() -> None:
        async with opened(url, 4) as backend:
            await backend.publish([message(0)])
            await asyncio.to_thread(limit, url, f"{kafka_prefix}parcel", 20_000)
            async with App(f"sqlite:///{tmp_path}/shop.db", broker=url, topics={"parcel": 4}) as app:
                events = [Placed(f"c{n % 5}", n, "x" * 30_000 if n == 7 else "") for n in range(50)]
                await app.publish(*events)
                task = asyncio.create_task(app.run())

                async def relayed() -> bool:
                    dead = await app.store.jobs("relay", state="dead")
                    return len(await everything(backend)) == 1 + 50 - 9 and len(dead) == 1

                await until(relayed)
                parked = await app.store.jobs("relay", state="parked")
                (dead,) = await app.store.jobs("relay", state="dead")
                assert "MessageTooLargeError" in dead.errors[0].error
                assert len(parked) == 8, "the later ones of its key wait behind it"
                await app.store.skip([dead.id])
                await until(lambda: _count(backend, 1 + 49))
                app.stop()
                await task
                keys: dict[str | None, list[int | None]] = {}
                for one in await everything(backend):
                    keys.setdefault(one.message.key, []).append(one.message.sequence)
                del keys["a"]
                assert all(numbers == sorted(numbers, key=lambda number: number or 0) for numbers in keys.values())
                assert len(keys["c2"]) == 9

    asyncio.run(run())


async def _count(backend: KafkaBackend, count: int) -> bool:
    return len(await everything(backend)) == count


# What is not there any more


def test_what_retention_removed_is_said_loudly(url: str, kafka_prefix: str, caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        async with opened(url) as backend:
            await backend.publish([message(number) for number in range(20)])
            place = TopicPartition(f"{kafka_prefix}parcel", 0, 12)
            admin = AdminClient(servers(url))
            assert await backend.trimmed(["parcel"]) == {}
            for future in admin.delete_records([place]).values():
                await asyncio.to_thread(future.result, 20)
            assert await backend.trimmed(["parcel", "nowhere"]) == {"parcel": 12}
            for start, lost in ((0, False), (5, True)):
                caplog.clear()
                feed = backend.subscribe("readers", None)
                at, found, seen = {ORDER: start}, [], -1
                while len(found) < 8:
                    seen = await asyncio.wait_for(feed.changed(seen, 20), 20)
                    page = await feed.read(at, limit=100)
                    found += page.messages
                    at.update(page.after)
                await feed.close()
                assert [one.message.id for one in found] == [f"m{number}" for number in range(12, 20)]
                said = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
                assert said == (
                    ["readers: 7 messages of parcel/0 are lost to it: the topic's retention removed them before they were "
                     "handled; going on at position 12"] if lost else []
                )  # fmt: skip

    asyncio.run(run())


def test_a_topic_that_was_made_anew_is_not_skipped_over(url: str) -> None:
    async def run() -> None:
        async with opened(url) as backend:
            await backend.publish([message(1)])
            feed = backend.subscribe("readers", None)

            async def read_on() -> None:
                seen = -1
                while True:
                    await feed.read({ORDER: 1000}, limit=10)
                    seen = await feed.changed(seen, 1)

            with pytest.raises(BackendError, match="stands at 1000, but the topic ends at 1"):
                await asyncio.wait_for(read_on(), 20)
            await feed.close()

    asyncio.run(run())


def test_a_feed_goes_wherever_it_is_sent(url: str) -> None:
    """Back and forth over two partitions: never a message of where it was before, none left out."""

    async def run() -> None:
        async with opened(url, 2) as backend:
            await backend.publish([message(number, f"k{number}") for number in range(2_000)])
            ends = await backend.end()
            feed = backend.subscribe("readers", None)
            for round_ in range(24):
                at = {part: (round_ * 7919 * (part.number + 1)) % end for part, end in ends.items()}
                if round_ % 3 == 0:
                    del at[Partition("parcel", round_ % 2)]
                expected = {part: position + 1 for part, position in at.items()}
                seen, pages = -1, 0
                while pages < 3 and any(at[part] < ends[part] for part in at):
                    page = await feed.read(at, limit=50)
                    for one in page.messages:
                        assert one.position == expected[one.partition]
                        expected[one.partition] += 1
                    at.update(page.after)
                    pages += bool(page.messages)
                    if not page.after:
                        seen = await asyncio.wait_for(feed.changed(seen, 10), 15)
            await feed.close()

    asyncio.run(run())


# For people


def test_how_far_a_group_is_shows_in_kafka(url: str, kafka_prefix: str, tmp_path: Any) -> None:
    def shown() -> dict[int, int]:
        consumer = Consumer({**servers(url), "group.id": f"{kafka_prefix}readers"})
        places = consumer.committed(
            [TopicPartition(f"{kafka_prefix}parcel", number) for number in range(2)], timeout=20
        )
        consumer.close()
        return {place.partition: place.offset for place in places}

    async def run() -> None:
        async with opened(url, 2) as backend:
            app = App(f"sqlite:///{tmp_path}/shop.db", broker=url, topics={"parcel": 2})

            @app.on(Placed, group="readers")
            async def read(event: Placed) -> None: ...

            async with app:
                await app.publish(*[Placed(f"c{number}", number) for number in range(40)])
                task = asyncio.create_task(app.run())

                async def told() -> bool:
                    ends = await backend.end()
                    return sum(ends.values()) == 40 and await asyncio.to_thread(shown) == {
                        part.number: end for part, end in ends.items()
                    }

                await until(told)
                app.stop()
                await task
            await backend.dismiss("readers")
            assert set((await asyncio.to_thread(shown)).values()) == {-1001}
            await backend.dismiss("readers")

    asyncio.run(run())
