"""What RabbitMQ takes and refuses, what others write into its queues, and what becomes of what cannot be read."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, cast

import aio_pika
import pytest
from cloudevents.core.bindings import rabbitmq as foreign
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from test_rabbitmq import drain

import servers
from eventmill import App, Message, Transaction
from eventmill.backends.connect import connect
from eventmill.backends.rabbitmq.backend import RabbitBackend
from eventmill.core.errors import (
    BackendUnavailableError,
    ConfigurationError,
    EncodeError,
    MessageTooLargeError,
    UnroutableError,
)
from eventmill.core.partition import partition_of
from eventmill.core.reading import Types
from eventmill.patterns.relay import RELAY
from eventmill.testing.conformance.apps import INSERT, Rest, Step, effects, running, until, waiting
from eventmill.testing.conformance.samples import TOPIC, message, partitions

PARTS = partitions(16)


def backend(url: str) -> RabbitBackend:
    return cast(RabbitBackend, connect(url))


async def write(url: str, *bodies: tuple[bytes, Mapping[str, Any], str | None], key: str = "3.order.placed") -> None:
    """As a client of somebody else's does: body, headers, content type."""
    connection = await aio_pika.connect(url)
    async with connection, connection.channel() as channel:
        exchange = await channel.get_exchange("eventmill.order", ensure=False)
        for body, headers, contenttype in bodies:
            sent = aio_pika.Message(body, headers=dict(headers), content_type=contenttype)
            await exchange.publish(sent, routing_key=key)


# Refused


def test_a_message_that_nobody_waits_for_is_refused(rabbitmq_url: str) -> None:
    async def main() -> None:
        async with backend(rabbitmq_url) as rabbit:
            await rabbit.declare({TOPIC: 16})
            await rabbit.admit("some", Types(frozenset({"order.paid"})), PARTS)
            with pytest.raises(UnroutableError, match=r"1 of 2 .* 'order\.placed' of topic 'order' .*unroutable=drop"):
                await rabbit.publish([message(1, type="order.paid"), message(2)])
            await rabbit.publish([message(3, type="order.paid")])
            assert [one.id for one in await drain(rabbit, "some", PARTS)] in (["m1", "m3"], ["m3", "m1"])
        async with backend(f"{rabbitmq_url}?unroutable=drop") as rabbit:
            await rabbit.publish([message(4)])

    asyncio.run(main())


def test_the_relay_keeps_what_nobody_waits_for(tmp_path: Path, rabbitmq_url: str) -> None:
    """Other keys go on; of its own key nothing overtakes it; it leaves when somebody waits for it."""

    def reader(*wanted: type) -> App:
        app = App(f"sqlite:///{tmp_path}/reader.db", broker=rabbitmq_url, name="reader")

        @app.setup
        async def tables(tx: Transaction) -> None:
            await tx.execute("CREATE TABLE IF NOT EXISTS effects (place INTEGER PRIMARY KEY, reader, key, number)")

        @app.on(*wanted, group="readers")
        async def note(event: Step | Rest, tx: Transaction) -> None:
            await tx.execute(INSERT, (type(event).__name__, event.key, event.number))

        return app

    async def main() -> None:
        sender = App(f"sqlite:///{tmp_path}/sender.db", broker=rabbitmq_url, name="sender")
        early = reader(Step)
        async with sender:
            async with early, running(sender, early):
                await sender.publish(Step("a", 1), Rest("a", 2), Step("b", 1), Step("b", 2))
                found = await until(early, lambda found: len([one for one in found if one.key == "b"]) == 2)

                async def kept() -> bool:
                    jobs = await sender.store.jobs(RELAY)
                    return any("UnroutableError" in error.error for job in jobs for error in job.errors)

                await waiting(kept)
                (job,) = await sender.store.jobs(RELAY)
                assert (job.message.type, job.lane) == ("conformance.rest", "conformance/a")
                await sender.publish(Step("a", 3))
                await asyncio.sleep(0.5)
                assert [one.number for one in await effects(early) if one.key == "a"] == [1]
            late = reader(Step, Rest)
            async with late:
                sender._stopped.clear()
                async with running(sender, late):
                    found = await until(late, lambda found: len(found) >= 5)
            assert [(one.reader, one.number) for one in found if one.key == "a"] == [
                ("Step", 1),
                ("Rest", 2),
                ("Step", 3),
            ]

    asyncio.run(main())


def test_what_the_server_does_not_take(rabbitmq_url: str) -> None:
    """Over its limit: refused with figures, and nobody else's messages suffer."""

    async def main() -> None:
        async with backend(rabbitmq_url) as rabbit:
            await rabbit.declare({TOPIC: 16})
            await rabbit.admit("all", None, PARTS)
            large = message(1, "large", size=134_217_729)

            async def caller(number: int) -> None:
                for step in range(10):
                    await rabbit.publish([message(100 * number + step, f"key{number}")])

            small = [asyncio.create_task(caller(number)) for number in range(1, 5)]
            with pytest.raises(MessageTooLargeError, match=r"134,217,729 bytes; the server takes 134,217,728"):
                await rabbit.publish([large])
            await asyncio.gather(*small)
            with pytest.raises(MessageTooLargeError, match=r"134,217,728"):
                await rabbit.publish([message(50, "small"), large])
            await rabbit.publish([message(51, "small")])
            found = await drain(rabbit, "all", PARTS)
            for number in range(1, 5):  # some came twice, under their own ids
                of_key = dict.fromkeys(one.id for one in found if one.key == f"key{number}")
                assert list(of_key) == [f"m{100 * number + step}" for step in range(10)]
            assert "m51" in {one.id for one in found}

    asyncio.run(main())


def test_attributes_that_fill_no_frame(rabbitmq_url: str) -> None:
    async def main() -> None:
        async with backend(rabbitmq_url) as rabbit:
            await rabbit.declare({TOPIC: 16})
            await rabbit.admit("all", None, PARTS)
            large = Message(
                id="m1", source="s", type="order.placed", topic=TOPIC, time=0, data=b"1",
                extensions={f"x{number}": "y" * 4_000 for number in range(40)},
            )  # fmt: skip
            with pytest.raises(MessageTooLargeError, match=r"frame_max"):
                await rabbit.publish([large])
            with pytest.raises(EncodeError, match="key"):
                await rabbit.publish([message(1, "\ud800")])
            await rabbit.publish([message(2)])
            assert [one.id for one in await drain(rabbit, "all", PARTS)] == ["m2"]

    asyncio.run(main())


# Written by others


def test_a_foreign_client_writes_to_our_exchange(rabbitmq_url: str) -> None:
    event = CloudEvent(
        {"type": "order.placed", "source": "/elsewhere", "id": "e1", "subject": "order 12", "partitionkey": "käse",
         "datacontenttype": "application/json"},
        {"total": 12},
    )  # fmt: skip
    binary, structured = foreign.to_binary(event, JSONFormat()), foreign.to_structured(event, JSONFormat())

    async def main() -> None:
        async with backend(rabbitmq_url) as rabbit:
            await rabbit.declare({TOPIC: 16})
            await rabbit.admit("all", None, PARTS)
            key = f"{partition_of('käse', 'e1', 16)}.order.placed"
            await write(rabbitmq_url, (binary.body, binary.headers, binary.content_type), key=key)
            await write(rabbitmq_url, (structured.body, structured.headers, structured.content_type), key=key)
            newer = {f"cloudEvents:{name[3:]}": value for name, value in binary.headers.items()} | {"x-other": 5}
            await write(rabbitmq_url, (binary.body, newer, binary.content_type), key=key)
            found = await drain(rabbit, "all", PARTS)
            assert [(one.id, one.source, one.type, one.key, one.subject, json.loads(one.data)) for one in found] == [
                ("e1", "/elsewhere", "order.placed", "käse", "order 12", {"total": 12})
            ] * 3

    asyncio.run(main())


def test_a_foreign_client_reads_from_a_queue_bound_to_ours(rabbitmq_url: str) -> None:
    async def main() -> None:
        async with backend(rabbitmq_url) as rabbit:
            await rabbit.declare({TOPIC: 16})
            connection = await aio_pika.connect(rabbitmq_url)
            async with connection, connection.channel() as channel:
                queue = await channel.declare_queue("theirs", durable=True)
                await queue.bind("eventmill.order", routing_key="#")
                await rabbit.publish([message(1, "a")])
                got = await queue.get(timeout=10)
            headers = cast(dict[str, str], dict(got.headers))
            event = foreign.from_binary(foreign.RabbitMQMessage(headers, got.content_type, got.body), JSONFormat())
            assert (event.get_id(), event.get_type(), event.get_source()) == ("m1", "order.placed", "conformance")
            assert event.get_extension("partitionkey") == "a"
            assert (event.get_data(), got.message_id, got.delivery_mode) == (11, "m1", 2)

    asyncio.run(main())


def test_what_cannot_be_read_is_dead_lettered(tmp_path: Path, rabbitmq_url: str) -> None:
    good = {"ce-id": "good", "ce-source": "s", "ce-type": "order.placed", "ce-specversion": "1.0"}
    junk = [
        (b"not an event", {}, None),
        (b"{}", {**good, "ce-specversion": "9.9"}, "application/json"),
        (b"{", {}, "application/cloudevents+json"),
        (b"\xff", {"ce-id": bytearray(b"\xff"), "number": 7, "deep": {"a": [1]}}, "text/plain"),
        (b"", {name: value for name, value in good.items() if name != "ce-source"}, "application/json"),
    ]

    async def main() -> None:
        handled: list[str] = []
        app = App(f"sqlite:///{tmp_path}/app.db", broker=rabbitmq_url, name="app", topics={TOPIC: 16})

        @app.on("order.placed", group="readers")
        async def note(message: Message) -> None:
            handled.append(message.id)

        async with app, running(app):
            await write(rabbitmq_url, *junk, (b"1", good, None))

            async def done() -> bool:
                return bool(handled) and len(await app.store.jobs("readers", state="dead")) == len(junk)

            await waiting(done)
            await asyncio.sleep(0.3)
            dead = await app.store.jobs("readers")
            assert handled == ["good"]
            assert [job.message.data for job in dead] == [body for body, _, _ in junk]
            reasons = " ".join(job.errors[0].error for job in dead)
            for word in ("specversion", "9.9", "not a CloudEvent in JSON", "source: missing"):
                assert word in reasons, reasons
            # Nothing is left in the queues: it was taken over.
            assert (await app.broker.backlog("readers", dict.fromkeys(PARTS, 0), None)).messages == 0

    asyncio.run(main())


# Queues


def test_what_was_not_acknowledged_comes_again_in_order(rabbitmq_url: str) -> None:
    (part,) = partitions(1)

    async def take(rabbit: RabbitBackend, count: int, done: Callable[[int], bool]) -> list[str]:
        feed = rabbit.subscribe("all", None)
        ids: list[str] = []
        after, seen = {part: 40}, -1
        while len(ids) < count:
            page = await feed.read(after, limit=7)
            assert [one.position for one in page.messages] == list(
                range(after[part] + 1, after[part] + 1 + len(page.messages))
            )
            after.update(page.after)
            ids += [one.message.id for one in page.messages]
            feed.acknowledge(part, [one.position for one in page.messages if done(one.position)])
            if not page.messages:
                seen = await feed.changed(seen, 1.0)
        await feed.close()
        return ids

    async def main() -> None:
        async with backend(f"{rabbitmq_url}?prefetch=30") as rabbit:
            await rabbit.declare({TOPIC: 1})
            await rabbit.admit("all", None, [part])
            ids = [f"m{number}" for number in range(60)]
            await rabbit.publish([message(number) for number in range(60)])
            assert await take(rabbit, 30, lambda _: False) == ids[:30]
            # Every third is left open: the window moves on all the same, and acknowledgements do not wait for them.
            assert await take(rabbit, 60, lambda position: position % 3 > 0) == ids
            left = [id_ for position, id_ in enumerate(ids, 41) if position % 3 == 0]
            assert await take(rabbit, 20, lambda _: True) == left
            assert (await rabbit.backlog("all", {part: 0}, None)).messages == 0

    asyncio.run(main())


def test_prefixes_and_names_are_not_mixed_up(rabbitmq_url: str) -> None:
    async def main() -> None:
        async with backend(rabbitmq_url) as rabbit:
            await rabbit.declare({TOPIC: 16})
            await rabbit.admit("sub", Types(prefixes=frozenset({"order."})), PARTS)
            await rabbit.publish([message(1, type="order.placed"), message(2, type="order.placed.late")])
            await rabbit.publish([message(3, type="order")])  # lets itself be routed, and is not handed out
            feed = rabbit.subscribe("sub", Types(prefixes=frozenset({"order."})))
            after, found, seen = dict.fromkeys(PARTS, 0), set(), -1
            while sum(after.values()) < 3:
                page = await feed.read(after, limit=100)
                after.update(page.after)
                found |= {one.message.id for one in page.messages}
                seen = await feed.changed(seen, 1.0)
            assert found == {"m1", "m2"}
            await feed.close()

    asyncio.run(main())


def test_every_process_sees_the_topics_and_no_count_is_changed(rabbitmq_url: str) -> None:
    async def main() -> None:
        async with backend(rabbitmq_url) as one, backend(rabbitmq_url) as two:
            await one.declare({TOPIC: 4})
            await waiting(lambda: _has(two, {TOPIC: 4}), 5)
            with pytest.raises(ConfigurationError, match="topic 'order' has 4 partitions, not 8"):
                await two.declare({TOPIC: 8})
            results = await asyncio.gather(
                *(each.declare({"new": count}) for each, count in ((one, 3), (two, 5))), return_exceptions=True
            )
            assert len([result for result in results if isinstance(result, ConfigurationError)]) == 1
            async with backend(rabbitmq_url) as three:
                assert (await three.topics()).keys() == {TOPIC, "new"}

    asyncio.run(main())


async def _has(rabbit: RabbitBackend, topics: dict[str, int]) -> bool:
    return dict(await rabbit.topics()) == topics


def test_a_group_that_is_dismissed_leaves_nothing(rabbitmq_url: str) -> None:
    async def main() -> None:
        async with backend(rabbitmq_url) as rabbit:
            await rabbit.declare({TOPIC: 16})
            await rabbit.admit("all", None, PARTS)
            await rabbit.publish([message(1)])
            await rabbit.dismiss("all")
            assert (await rabbit.backlog("all", dict.fromkeys(PARTS, 0), None)).messages == 0
            with pytest.raises(UnroutableError):
                await rabbit.publish([message(2)])
            await rabbit.admit("all", None, PARTS)
            await rabbit.publish([message(3)])

    asyncio.run(main())


def test_a_queue_of_another_kind_is_named(rabbitmq_url: str) -> None:
    async def main() -> None:
        async with backend(rabbitmq_url) as rabbit:
            await rabbit.declare({TOPIC: 16})
            connection = await aio_pika.connect(rabbitmq_url)
            async with connection, connection.channel() as channel:
                await channel.declare_queue("eventmill.all/order/0", durable=True)
            with pytest.raises(ConfigurationError, match=r"eventmill\.all/order/0"):
                await rabbit.admit("all", None, PARTS)

    asyncio.run(main())


# The way there


def attempt(url: str) -> Coroutine[Any, Any, None]:
    async def main() -> None:
        async with backend(url):
            pass

    return main()


def test_tls(rabbitmq_server: str) -> None:
    url, certificate = servers.address("rabbitmq_tls"), servers.address("certificate")
    asyncio.run(attempt(f"{url}?cafile={certificate}"))
    asyncio.run(attempt(f"{url}?verify=none"))
    with pytest.raises(BackendUnavailableError, match="CERTIFICATE_VERIFY_FAILED"):
        asyncio.run(attempt(f"{url}?connect_timeout=1"))


def test_who_may_not_come_in_is_told_at_once(rabbitmq_url: str) -> None:
    with pytest.raises(ConfigurationError, match="user or password") as caught:
        asyncio.run(attempt(rabbitmq_url.replace("mill-secret", "wrong-word")))
    assert "wrong-word" not in str(caught.value)
    with pytest.raises(ConfigurationError, match="vhost"):
        asyncio.run(attempt(rabbitmq_url.rpartition("/")[0] + "/nowhere"))


def test_an_absent_server_is_waited_for_so_long() -> None:
    with pytest.raises(BackendUnavailableError, match=r"amqp://u:\*\*\*@127.0.0.1:9/.* within 0.5 s"):
        asyncio.run(attempt("amqp://u:hidden@127.0.0.1:9/?connect_timeout=0.5"))


def test_the_command_line_gives_up_with_69(tmp_path: Path) -> None:
    (tmp_path / "late.py").write_text(
        "from eventmill import App, Message\n"
        "app = App('sqlite:///late.db', broker='amqp://u:hidden@127.0.0.1:9/?connect_timeout=0.5')\n"
        "@app.on('order.placed')\n"
        "async def note(message: Message) -> None: ...\n"
    )
    command = [sys.executable, "-m", "eventmill", "run", "late:app"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 69, done.stderr
    assert "connect_timeout" in done.stderr
    assert "hidden" not in done.stderr + done.stdout


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("prefech=3", "unknown option 'prefech'"),
        ("unroutable=maybe", "choose from refuse, drop"),
        ("cafile=x.pem", "amqps"),
        ("prefetch=0", "from 1 to"),
        ("heartbeat=no", "seconds"),
        ("prefix=amq.x", "prefix"),
    ],
)
def test_options_are_checked(query: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        connect(f"amqp://guest:hidden@localhost/?{query}")


def test_secrets_are_not_shown() -> None:
    assert "hidden" not in repr(connect("amqp://guest:hidden@localhost/?prefetch=3"))


def test_queues_from_before_an_upgrade_go_on(rabbitmq_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """Made by RabbitMQ 3, they lack what is asked for on 4, and cannot be given it: the operator is told the remedy."""

    async def main() -> None:
        async with backend(rabbitmq_url) as before:
            await before.declare({TOPIC: 16})
            await before.admit("all", None, PARTS)
        async with backend(rabbitmq_url) as after:
            (await after._link.connection(1)).version = "4.1.0"
            await after.admit("all", None, PARTS)
            await after.publish([message(1)])
            assert [one.id for one in await drain(after, "all", PARTS)] == ["m1"]
        assert "delivery-limit -1" in caplog.text

    asyncio.run(main())
