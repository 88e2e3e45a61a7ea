"""Keys that go on for ever: what has no room beside them is in pages, and is found there as if it had never been moved."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from long_running import SETTINGS, in_loop, running, until, url

from eventmill import App, Collected, Event
from eventmill.core.message import Partition
from eventmill.core.window import session, sliding, tumbling
from eventmill.patterns.aggregation import past
from eventmill.patterns.aggregation.collect import Result, Rules, add, close, look
from eventmill.patterns.aggregation.groups import made_of, went_into
from eventmill.patterns.aggregation.record import Closed, Fine, Record, decode, encode

__all__ = ["url"]


class Feed:
    """Events one after another, as the aggregator takes them. moving: closed groups go to pages as soon as they may."""

    def __init__(self, rules: Rules, *, moving: bool) -> None:
        self.rules = rules
        self.moving = moving
        self.record = Record()
        self.pages: dict[int, list[Closed]] = {}
        self.epochs: list[str] = []
        self.closed: list[tuple[str, ...]] = []
        self.late: list[str] = []

    def take(self, event: Fine | None, now: int) -> None:
        self.record = decode(encode(self.record))
        asked = [] if event is None else past.asked_for(self.rules, self.record, [event])
        turned = [closed for page in asked for closed in self.pages[page.number]]
        self.record.closed = turned + self.record.closed
        result = Result()
        if event is None:
            look(self.rules, self.record, now, result)
        else:
            add(self.rules, self.record, event, now, result)
        for ended in result.ended:
            self.epochs.append(ended.group.epoch)
            self.closed.append((ended.reason, *(each.id for each in ended.group.events)))
            close(self.record, ended, now, "c", keep_events=False)
        self.late += [late.event.id for late in result.late]
        self.record.closed = self.record.closed[len(turned) :]
        if self.moving:
            for page, groups in past.moved(self.rules, self.record, now):
                self.pages[page.number] = groups


@settings(max_examples=300, deadline=None)
@given(
    times=st.lists(st.integers(0, 600), min_size=4, max_size=16),
    repeats=st.lists(st.tuples(st.integers(0, 15), st.integers(0, 15)), max_size=6),
    rules=st.sampled_from(
        [
            *({"window": tumbling(0.1), "late": late} for late in ("side", "new")),
            *({"window": tumbling(0.1), "late": late, "count": 2} for late in ("side", "new")),
            {"window": sliding(0.1, every=0.05), "late": "side"},
            *({"window": session(0.03), "late": late} for late in ("side", "new")),
            *({"count": 2, "late": late} for late in ("side", "new")),
        ]
    ),
)
def test_moved_groups_are_known_as_if_they_were_not(
    times: list[int], repeats: list[tuple[int, int]], rules: dict[str, Any]
) -> None:
    events = [Fine(f"m{number}", "test", "a", at * 1000, number, b"{}") for number, at in enumerate(times)]
    for what, where in repeats:
        events.insert(min(where, len(events)), events[what % len(events)])
    made = Rules(**rules, **({"time": "event"} if "window" in rules else {}))
    feeds = [Feed(made, moving=moving) for moving in (False, True)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(past, "LINKS", 1)
        patch.setattr(past, "GROUPS", 1)
        for feed in feeds:
            for now, event in enumerate(events):
                feed.take(event, now)
            feed.take(None, 10_000)
    whole, paged = feeds
    assert paged.closed == whole.closed
    assert paged.late == whole.late
    assert len(set(paged.epochs)) == len(paged.epochs), "the coarse event's id is made of it"
    assert len(set(whole.epochs)) == len(whole.epochs)


def test_by_the_clock_a_repeat_counts_in_no_other_window() -> None:
    feed = Feed(Rules(window=tumbling(0.1), time="processing", late="new"), moving=False)
    event = Fine("m1", "test", "a", 0, 1, b"{}")
    feed.take(event, 10)
    feed.take(event, 110)
    feed.take(None, 500)
    assert feed.closed == [("window", "m1")]


class PastSold(Event, name="pasttest.sold", key="shop"):
    shop: str


class PastSum(Event, name="pastcoarse.sum", key="shop"):
    shop: str
    events: int


@in_loop
async def test_a_record_does_not_grow_and_forgets_nothing(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(past, "LINKS", 10)
    app = App(url, name="shop", settings=SETTINGS)

    @app.aggregator("sums", key="shop", events=[PastSold], count=2)
    def sums(group: Collected) -> PastSum:
        return PastSum(group.key, len(group))

    def closed(number: int) -> Any:
        async def enough() -> bool:
            found = await app.aggregations("sums").show("a")
            return found is not None and found.groups == number and not found.open

        return enough

    async with running(app):
        sizes = []
        for batch in range(1, 6):
            for _ in range(10):
                await app.publish(*(PastSold("a") for _ in range(2)))
            await until(closed(10 * batch))
            (document,) = await app.store.documents("aggregation/shop.sums/a")
            sizes.append(len(document.data))
        assert max(sizes[2:]) < 2 * sizes[0], sizes
        count = (await app.store.topics())["pasttest"]
        page = await app.store.read({Partition("pasttest", number): 0 for number in range(count)}, limit=200)
        oldest = min(page.messages, key=lambda each: each.position).message
        await app.publish(oldest, PastSold("a"), PastSold("a"))
        await until(closed(51))  # with the repeat it would have been one more, which waits for another
        found = await app.aggregations("sums").show("a")
        assert found is not None
        assert len(found.closed) == 51, "also those that are in pages"
        made = await made_of(app.store, "shop.sums/a/1")
        assert made is not None
        assert oldest.id in {link.id for link in made.links}
        for key in ("a", None):
            (into,) = await went_into(app.store, oldest.id, key)
            assert into.coarse == ["shop.sums/a/1"]
        assert await app.store.documents("aggregation-past/")
    app = App(url, name="shop", settings=SETTINGS)
    app.aggregator("sums", key="shop", events=[PastSold], count=2, retention=0.001)(sums)
    async with app:
        await app.aggregations("sums").tidy()
        assert [each.key for each in await app.store.documents("aggregation-past/")] == []
