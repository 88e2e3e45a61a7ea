"""The program that is killed while it aggregates: three parts of each customer, shuffled, some of them twice; the groups
of a few customers lack a part, and are closed at their deadline.

    python aggregation_program.py URL

Whatever was done before a crash is found and not done again: it can be started any number of times.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys

import msgspec

from eventmill import App, Collected, Event, Settings
from eventmill.core.message import Message, Partition
from eventmill.testing import crash

CUSTOMERS = 60
LACKING = 10
ROUND = 30


class CrashPart(Event, name="crashpart.came", key="customer"):
    customer: str
    part: int


class CrashWhole(Event, name="crashwhole.made", key="customer"):
    customer: str
    parts: list[int]
    complete: bool


def make(url: str) -> App:
    app = App(url, name="shop", settings=Settings(lease=0.6), topics={"crashpart": 4, "crashwhole": 4})

    @app.aggregator(
        "whole", key="customer", events=[CrashPart], until=lambda group: len({e.part for e in group.events}) == 3,
        timeout=1.0, late="side",
    )  # fmt: skip
    def whole(group: Collected) -> CrashWhole:
        return CrashWhole(group.key, [event.part for event in group.events], group.complete)

    return app


def parts() -> list[Message]:
    """The same messages in every life."""
    found = [
        Message(
            id=f"part-{customer}-{part}", source="test", type="crashpart.came", topic="crashpart", time=part,
            key=f"c{customer}", data=msgspec.json.encode({"customer": f"c{customer}", "part": part}),
        )
        for customer in range(CUSTOMERS)
        for part in range(2 if customer < LACKING else 3)
    ]  # fmt: skip
    chance = random.Random(3)
    found += chance.sample(found, 20)
    chance.shuffle(found)
    return found


async def published(app: App, topic: str) -> list[Message]:
    count = (await app.store.topics()).get(topic, 0)
    page = await app.store.read({Partition(topic, number): 0 for number in range(count)}, limit=10_000)
    return [each.message for each in sorted(page.messages, key=lambda record: record.position)]


async def main(url: str) -> None:
    async with make(url) as app:
        wanted = parts()
        there = len(await published(app, "crashpart"))
        running = asyncio.create_task(app.run())
        while there < len(wanted):  # one call is stored whole, or not at all
            await app.publish(*wanted[there : there + ROUND])
            there += len(wanted[there : there + ROUND])
            await asyncio.sleep(0.01)
        while len(await published(app, "crashwhole")) < CUSTOMERS:
            await asyncio.sleep(0.02)
            if running.done():
                running.result()
                raise RuntimeError("the app ended before it was told to")
        await asyncio.sleep(0.3)
        app.stop()
        await running


async def check(url: str) -> None:
    """One coarse event for each group, whose parts are what came, each once; and the links say the same."""
    async with make(url) as app:
        found = await published(app, "crashwhole")
        ids = [message.id for message in found]
        assert len(ids) == len(set(ids)) == CUSTOMERS, ids
        # A killed process may let a deadline pass before all parts were in: never a part twice, or lost.
        late = [json.loads(message.data) for message in await published(app, "whole")]
        for message in found:
            event = json.loads(message.data)
            assert sorted(event["parts"]) == sorted(set(event["parts"]))
            links = {link.partition("@")[0] for link in (message.extensions or {})["links"].split()}
            assert links == {f"part-{event['customer'][1:]}-{part}" for part in event["parts"]}
            missing = set(range(2 if int(event["customer"][1:]) < LACKING else 3)) - set(event["parts"])
            told = {int(each["event"]["part"]) for each in late if each["key"] == event["customer"]}
            assert missing == told, (event, told)
        assert not await app.store.jobs(state="dead")


if __name__ == "__main__":
    crash.arm()
    asyncio.run(main(sys.argv[1]))
