"""Aggregators on every store: one coarse event a group, in the commit that closes it, and who it was made of."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any

import pytest
from long_running import SETTINGS, in_loop, running, until, url
from msgspec import structs

from eventmill import App, Collected, ConfigurationError, Event, Message, Transaction, sliding, tumbling
from eventmill.core.message import Partition
from eventmill.patterns.aggregation.groups import made_of, went_into

__all__ = ["url"]


class AggContact(Event, name="aggtest.contact", key="customer"):
    customer: str
    name: str = ""


class AggAccount(Event, name="aggtest.account", key="customer"):
    customer: str


class AggAddress(Event, name="aggtest.address", key="customer"):
    customer: str


class AggRegistered(Event, name="aggcoarse.registered", key="customer"):
    customer: str
    parts: list[str]
    complete: bool = True
    reason: str = ""


class AggGivenUp(Event, name="aggcoarse.givenup", key="customer"):
    customer: str
    parts: int


PARTS = (AggContact, AggAccount, AggAddress)


def make(url: str, function: Any = None, **options: Any) -> App:
    app = App(url, name="shop", settings=SETTINGS)
    if not {"events", "all_of"} & options.keys():
        options["events"] = PARTS

    def registered(group: Collected) -> AggRegistered:
        parts = [type(event).__name__ for event in group.events]
        return AggRegistered(group.key, parts, group.complete, str(group.reason))

    app.aggregator("registered", key="customer", **options)(function or registered)
    return app


async def published(app: App, kind: str) -> list[Message]:
    """All messages of a type, in the order of the log."""
    topic = kind.partition(".")[0]
    count = (await app.store.topics()).get(topic, 0)
    page = await app.store.read({Partition(topic, number): 0 for number in range(count)}, limit=10_000)
    return [each.message for each in sorted(page.messages, key=lambda r: r.position) if each.message.type == kind]


async def coarse(app: App, number: int, kind: str = "aggcoarse.registered") -> list[dict[str, Any]]:
    async def look() -> list[Message] | None:
        found = await published(app, kind)
        return found if len(found) >= number else None

    found: list[Message] = await until(look)
    assert len(found) == number
    return [json.loads(message.data) for message in found]


async def drained(app: App) -> None:
    async def look() -> bool:
        groups = [group for group in await app.store.groups() if group.name == "shop.registered"]
        if not groups:
            return False
        pending = await app.store.backlog("shop.registered", groups[0].cursors, groups[0].types)
        return not pending.messages

    await until(look)


@in_loop
async def test_shuffled_groups_make_one_event_each(url: str) -> None:
    app = make(url, all_of=PARTS)
    events = [kind(f"c{number}") for number in range(60) for kind in PARTS]
    random.Random(5).shuffle(events)
    async with running(app):
        for start in range(0, len(events), 20):
            await app.publish(*events[start : start + 20])
        found = await coarse(app, 60)
        assert {each["customer"] for each in found} == {f"c{number}" for number in range(60)}
        assert all(sorted(each["parts"]) == ["AggAccount", "AggAddress", "AggContact"] for each in found)
        messages = await published(app, "aggcoarse.registered")
        assert {message.id for message in messages} == {f"shop.registered/c{number}/1" for number in range(60)}
        assert all(len((message.extensions or {})["links"].split()) == 3 for message in messages)
        await drained(app)
        assert [record.open async for _, record in app.aggregations("registered").records()] == [[]] * 60


@in_loop
async def test_the_same_event_twice_counts_once(url: str) -> None:
    app = make(url, all_of=PARTS)
    async with app.transaction() as tx:
        tx.publish(AggContact("a"))
    (message,) = await published(app, "aggtest.contact")
    async with running(app):
        await app.publish(message, message, AggAccount("a"))
        await drained(app)
        record = await app.aggregations("registered").show("a")
        assert record is not None
        assert len(record.open[0].events) == 2
        await app.publish(AggAddress("a"), message)
        await app.publish(message)
        await coarse(app, 1)
        await drained(app)
        assert await published(app, "registered.late") == []
        assert len(await published(app, "aggcoarse.registered")) == 1


@in_loop
async def test_a_repeat_in_the_same_batch_is_known_after_the_group_was_closed(url: str) -> None:
    app = make(url, all_of=PARTS)
    async with app:
        await app.publish(*[kind("a") for kind in PARTS])
        (message,) = await published(app, "aggtest.contact")
        await app.publish(message, message)
    app = make(url, all_of=PARTS)
    async with running(app):
        await coarse(app, 1)
        await drained(app)
        record = await app.aggregations("registered").show("a")
        assert record is not None
        assert (record.open, len(record.closed), record.closed[0].late) == ([], 1, 0)


@in_loop
async def test_a_quiet_group_is_closed_at_its_deadline(url: str) -> None:
    app = make(url, all_of=PARTS, timeout=0.2)
    async with running(app):
        await app.publish(AggContact("a"), AggAccount("a"), AggContact("b"))
        found = await coarse(app, 2)
        assert {each["customer"]: (len(each["parts"]), each["complete"], each["reason"]) for each in found} == {
            "a": (2, False, "deadline"), "b": (1, False, "deadline")
        }  # fmt: skip


@in_loop
async def test_what_is_incomplete_may_be_nothing_or_a_failure(url: str) -> None:
    def given_up(group: Collected) -> AggGivenUp:
        return AggGivenUp(group.key, len(group))

    app = make(url, all_of=PARTS, timeout=0.1, incomplete=given_up)
    async with running(app):
        await app.publish(AggContact("a"))
        assert await coarse(app, 1, "aggcoarse.givenup") == [{"customer": "a", "parts": 1}]
        assert await published(app, "aggcoarse.registered") == []


@in_loop
async def test_nothing_is_published_where_that_was_declared(url: str) -> None:
    app = make(url, all_of=PARTS, timeout=0.1, incomplete="nothing")
    async with running(app):
        await app.publish(AggContact("a"))

        async def closed() -> bool:
            record = await app.aggregations("registered").show("a")
            return record is not None and [each.reason for each in record.closed] == ["deadline"]

        await until(closed)
        assert await published(app, "aggcoarse.registered") == []


@in_loop
async def test_an_idle_group_ends_and_a_busy_one_does_not(url: str) -> None:
    app = make(url, idle=0.4)
    async with running(app):
        for _ in range(4):
            await app.publish(AggContact("busy"))
            await asyncio.sleep(0.15)
        found = await coarse(app, 1)
        assert [len(each["parts"]) for each in found] == [4]
        assert found[0]["reason"] == "idle"


@in_loop
async def test_windows_of_processing_time_end_by_the_clock(url: str) -> None:
    app = make(url, window=tumbling(0.3), time="processing")
    async with running(app):
        await app.publish(*[AggContact("a") for _ in range(3)])
        found = await coarse(app, 1) if (await until(lambda: _any(app))) == 1 else await coarse(app, 2)
        assert sum(len(each["parts"]) for each in found) == 3


async def _any(app: App) -> int:
    found = await published(app, "aggcoarse.registered")
    total = sum(len(json.loads(each.data)["parts"]) for each in found)
    return len(found) if total == 3 else 0


@in_loop
async def test_windows_of_event_time_end_where_nothing_follows(url: str) -> None:
    app = make(url, window=sliding(0.4, every=0.2), time="event", grace=0.1)
    async with running(app):
        await app.publish(AggContact("a"))
        found = await coarse(app, 2)
        assert [each["reason"] for each in found] == ["window"] * 2


@in_loop
async def test_what_came_in_time_is_not_late_because_nobody_was_there(url: str) -> None:
    """The window's timer has come while no worker ran, and events of the window wait in the log: they come first."""
    app = make(url, window=tumbling(3600), time="event", grace=0.0)
    async with app:
        await app.publish(AggContact("a"))
        (first,) = await published(app, "aggtest.contact")
    # As if the window had ended a moment ago: both are of its last minute.
    end = (int(first.time // 3_600_000_000) + 1) * 3_600_000_000
    second = structs.replace(first, id="second", time=end - 30_000_000)
    third = structs.replace(first, id="third", time=end - 500_000)
    app = make(url, window=tumbling(3600), time="event", grace=0.0)
    async with running(app):
        await app.publish(third)
        await drained(app)
    app = make(url, window=tumbling(3600), time="event", grace=0.0)
    async with app:
        await asyncio.sleep(3.0)
        await app.publish(second)
    app = make(url, window=tumbling(3600), time="event", grace=0.0)
    async with running(app):
        (found,) = await coarse(app, 1)
        assert len(found["parts"]) == 3
        await drained(app)
        assert await published(app, "registered.late") == []


@in_loop
async def test_a_window_of_old_events_does_not_wait_for_the_clock(url: str) -> None:
    """The first event of an hour sets a timer an hour ahead; the last one, read a moment later, a nearer one."""
    app = make(url, window=tumbling(3600), time="event", grace=0.0)
    async with running(app):
        await app.publish(AggContact("a"))
        await drained(app)
        (first,) = await published(app, "aggtest.contact")
        end = (int(first.time // 3_600_000_000) + 1) * 3_600_000_000
        await app.publish(structs.replace(first, id="last", time=end - 300_000))
        (found,) = await coarse(app, 1)
        assert (len(found["parts"]), found["reason"]) == (2, "window")


@pytest.mark.parametrize("late", ["side", "amend", "new", "refuse"])
@in_loop
async def test_what_comes_too_late(url: str, late: Any) -> None:
    app = make(url, all_of=PARTS[:2], late=late)
    async with running(app):
        await app.publish(AggContact("a"), AggAccount("a"))
        await coarse(app, 1)
        await app.publish(AggContact("a", "late"))
        if late == "side":
            (told,) = await coarse(app, 1, "registered.late")
            assert (told["key"], told["type"], told["event"]["name"]) == ("a", "aggtest.contact", "late")
        elif late == "amend":
            found = await coarse(app, 2)
            assert [len(each["parts"]) for each in found] == [2, 3]
            ids = [message.id for message in await published(app, "aggcoarse.registered")]
            assert ids == ["shop.registered/a/1", "shop.registered/a/1+1"]
        elif late == "new":
            await app.publish(AggAccount("a"))
            await coarse(app, 2)
        else:

            async def dead() -> Any:
                return await app.store.jobs("shop.registered", state="dead")

            (job,) = await until(dead)
            assert "came after its group" in job.errors[-1].error
            await app.publish(AggContact("b"), AggAccount("b"))
            await coarse(app, 2)


@in_loop
async def test_a_group_is_closed_by_hand(url: str) -> None:
    app = make(url, all_of=PARTS)
    async with running(app):
        await app.publish(AggContact("a"))
        await drained(app)
        groups = app.aggregations("registered")
        with pytest.raises(ConfigurationError, match="no open group"):
            await groups.close("b", by="ada", why="it is enough")
        with pytest.raises(ConfigurationError, match="say who"):
            await groups.close("a", by="ada", why="")
        assert await groups.close("a", by="ada", why="it is enough") == 1
        (found,) = await coarse(app, 1)
        assert (found["parts"], found["reason"]) == (["AggContact"], "forced")
        record = await groups.show("a")
        assert record is not None
        assert record.closed[0].reason == "forced by ada: it is enough"


@in_loop
async def test_lineage_both_ways_after_the_payloads_are_gone(url: str) -> None:
    app = make(url, all_of=PARTS)
    async with running(app):
        await app.publish(*[kind(f"c{number}") for number in range(3) for kind in PARTS])
        await coarse(app, 3)
        await drained(app)
    async with app:
        fine = await published(app, "aggtest.contact")
        await app.store.trim("aggtest", older_than=0.0, force=True)
        assert await published(app, "aggtest.contact") == []
        made = await made_of(app.store, "shop.registered/c1/1")
        assert made is not None
        assert sorted(link.type for link in made.links) == ["aggtest.account", "aggtest.address", "aggtest.contact"]
        assert all(link.position for link in made.links)
        for message in fine:
            for key in (None, message.key):
                (into,) = await went_into(app.store, message.id, key)
                assert into.coarse == [f"shop.registered/{message.key}/1"]
        assert await went_into(app.store, "nothing") == []


@in_loop
async def test_what_was_closed_is_remembered_for_so_long(url: str) -> None:
    app = make(url, all_of=PARTS[:1], retention=0.2)
    async with running(app):
        await app.publish(AggContact("a"))
        await coarse(app, 1)
        await drained(app)
        groups = app.aggregations("registered")
        assert await groups.show("a") is not None
        await asyncio.sleep(0.3)
        await groups.tidy()
        assert await groups.show("a") is None
        assert await app.store.documents("aggregation-closed/") == []


@in_loop
async def test_two_processes_share_the_keys(url: str) -> None:
    """And a group whose events came to both, one after the other, is whole."""
    one = make(url, all_of=PARTS)
    async with running(one):
        await one.publish(*[AggContact(f"c{number}") for number in range(40)])
        await drained(one)
        two = make(url, all_of=PARTS)
        async with running(two):
            await one.publish(*[AggAccount(f"c{number}") for number in range(40)])
            await asyncio.sleep(0.3)
            await one.publish(*[AggAddress(f"c{number}") for number in range(40)])
            found = await coarse(one, 40)
            assert all(len(each["parts"]) == 3 for each in found)


@in_loop
async def test_a_function_that_fails_is_retried_and_keeps_its_events(url: str) -> None:
    calls = 0

    def registered(group: Collected) -> AggRegistered:
        nonlocal calls
        calls += 1
        if calls < 3:
            raise RuntimeError("not yet")
        contact = group.last(AggContact)
        return AggRegistered(group.key, [contact.name if contact else "", *map(str, group.of(AggAccount))])

    app = make(url, registered, all_of=PARTS[:2])
    async with running(app):
        await app.publish(AggContact("a", "first"), AggContact("a", "last"), AggAccount("a"))
        (found,) = await coarse(app, 1)
        assert found["parts"] == ["last", "AggAccount(customer='a')"]


@in_loop
async def test_a_group_that_cannot_be_built_holds_up_no_other(url: str) -> None:
    healed: list[bool] = []

    def registered(group: Collected) -> AggRegistered:
        if group.key == "key3" and not healed:
            raise RuntimeError("not yet")
        return AggRegistered(group.key, [str(group.reason)])

    app = make(url, registered, idle=0.2)
    async with running(app):
        await app.publish(*(AggContact(f"key{number}") for number in range(6)))
        found = await coarse(app, 5)
        assert sorted(each["customer"] for each in found) == [f"key{number}" for number in (0, 1, 2, 4, 5)]
        healed.append(True)
        await coarse(app, 6)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"all_of": ()}, "which events"),
        ({"events": PARTS}, "when a group is complete"),
        ({"window": tumbling(1)}, "say time="),
        ({"count": 2, "time": "event"}, "are for window="),
        ({"count": 0}, "count=0"),
        ({"count": 5, "limit": 3}, "above limit"),
        ({"count": 2, "timeout": 0}, "timeout=0"),
        ({"count": 2, "late": "drop"}, "choose 'side'"),
        ({"count": 2, "incomplete": "half"}, "'partial', 'nothing'"),
        ({"window": sliding(2, every=1), "time": "event", "late": "amend"}, "several at once"),
    ],
)
def test_what_makes_no_sense_is_refused_when_it_is_declared(options: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        make("memory://", **options)


def test_a_key_that_is_no_field_is_refused() -> None:
    app = App("memory://", name="shop")

    def build(group: Collected) -> AggRegistered:
        return AggRegistered(group.key, [])

    with pytest.raises(ConfigurationError, match="no field 'nobody'"):
        app.aggregator("registered", key="nobody", all_of=PARTS)(build)

    async def slow(group: Collected, tx: Transaction) -> None: ...

    with pytest.raises(ConfigurationError, match="plain `def`"):
        app.aggregator("other", key="customer", all_of=PARTS)(slow)
