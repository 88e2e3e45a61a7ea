"""Reading by stream, and all of a store by position."""

from __future__ import annotations

import asyncio

from eventmill.core.message import Message
from eventmill.core.reading import Types
from eventmill.core.stream import Append, Stream
from eventmill.core.stream import stored as bared
from eventmill.testing.conformance.samples import OTHER, TOPIC, everything, ids, message
from eventmill.testing.conformance.streams import A, B, C, append, events, stored
from eventmill.testing.conformance.suite import Backend, Conformance, Stage, case


async def all_of(store: Backend, limit: int = 7, types: Types | None = None) -> list[str]:
    """The ids of everything in the store, page by page."""
    after, found = 0, list[str]()
    while True:
        page, looked = await store.read_all(after=after, limit=limit, types=types)
        assert len(page) <= limit
        assert all(after < event.position <= looked for event in page)
        positions = [event.position for event in page]
        assert positions == sorted(positions)
        found += ids(page)
        if looked == after:
            return found
        after = looked


class StreamReadCases(Conformance[Backend]):
    """What was appended, in every direction."""

    @case()
    async def test_forward_backward_and_between(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            for number in range(1, 11):
                await append(store, A, number)
                await append(store, B, 100 + number)

            async def read(**options: int | bool | None) -> list[int]:
                found = await store.read_stream(A, **{"limit": 100, **options})  # type: ignore[arg-type]
                assert ids(found) == [f"m{event.message.sequence}" for event in found]
                if not options.get("backward"):
                    bare = await store.events(A, **{"limit": 100, **options})  # type: ignore[arg-type]
                    assert bare == [bared(event) for event in found]
                return [event.message.sequence or 0 for event in found]

            assert await read() == list(range(1, 11))
            assert await read(limit=3) == [1, 2, 3]
            assert await read(after=7) == [8, 9, 10]
            assert await read(after=10) == []
            assert await read(upto=4) == [1, 2, 3, 4]
            assert await read(after=3, upto=5) == [4, 5]
            assert await read(after=5, upto=5) == []
            assert await read(backward=True) == list(range(10, 0, -1))
            assert await read(backward=True, limit=2) == [10, 9]
            assert await read(backward=True, after=7) == [10, 9, 8]
            assert await read(backward=True, upto=4, limit=2) == [4, 3]
            assert await read(limit=0) == []
            assert await store.read_stream(C, limit=10) == []

    @case()
    async def test_an_event_comes_back_whole(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            whole = Message(
                id="é", source="conformance", type="order.placed", topic=TOPIC, time=1_700_000_000_123_456,
                data=b'{"a":1}', key="k/ü", version=3, subject="s", correlationid="c", causationid="d",
                traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", extensions={"tenant": "t"},
                tags=("course:c1",),
            )  # fmt: skip
            stream = Stream(TOPIC, "k/ü")
            async with store.transaction() as tx:
                entry = Append(stream, [whole], 0)
                tx.append_to(entry)
            (found,) = await store.read_stream(stream, limit=1)
            (same,), _ = await store.read_all(limit=1)
            (read,) = await everything(store)
            assert found == same == read
            assert await store.events(stream, limit=1) == [bared(found)]
            for name in Message.__struct_fields__:
                if name != "sequence":
                    assert getattr(found.message, name) == getattr(whole, name), name
            assert (found.position, found.message.sequence) == (entry.appended.position, 1)
            assert abs(found.recorded_at - stage.now) < 60_000

    @case()
    async def test_streams_of_a_topic(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            keys = ["a", "aa", "b", "ä", "z"]
            for number, key in enumerate(keys):
                stream = Stream(TOPIC, key)
                await append(store, stream, *range(10 * number, 10 * number + number + 1))
            other = Stream(OTHER, "other")
            await append(store, other, 100)
            await store.publish([message(101)])
            everyone = [(Stream(TOPIC, key), keys.index(key) + 1) for key in sorted(keys)]
            assert await store.streams(TOPIC, limit=100) == everyone
            assert await store.streams(TOPIC, limit=2) == everyone[:2]
            assert await store.streams(TOPIC, after="aa", limit=2) == everyone[2:4]
            assert await store.streams(TOPIC, after="ä", limit=10) == []
            assert await store.streams(OTHER, limit=10) == [(other, 1)]
            assert await store.streams("nothing", limit=10) == []

    @case(manual_clock=True)
    async def test_after_trimming_versions_go_on(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            await append(store, A, 1, 2, 3, repeatable=True)
            await append(store, B, 4)
            await stage.advance(100)
            await append(store, A, 5)
            await store.trim(TOPIC, older_than=50)
            assert await stored(store, A) == ["m5"]
            assert await stored(store, B) == []
            assert (await store.version(A), await store.version(B)) == (4, 1)
            assert await store.streams(TOPIC, limit=10) == [(A, 4), (B, 1)]
            assert [event.message.sequence for event in await store.read_stream(A, after=1, limit=9)] == [4]
            assert (await append(store, B, 6, expected=1)).version == 2
            assert (await append(store, A, 7, expected=4)).version == 5
            # What was trimmed is not known any more.
            assert (await append(store, A, 1, 2, 3, expected=5, repeatable=True)).version == 8
            assert await all_of(store) == ["m5", "m6", "m7", "m1", "m2", "m3"]

    @case()
    async def test_everything_by_position(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            assert await store.read_all(limit=10) == ((), 0) or await store.read_all(limit=10) == ([], 0)
            for number in range(40):
                topic = (TOPIC, OTHER)[number % 2]
                kind = ("order.placed", "order.paid", "other")[number % 3]
                await store.publish([message(number, f"k{number % 5}", topic=topic, type=kind)])
            assert await all_of(store) == [f"m{number}" for number in range(40)]

            async def some(types: Types | None = None, topics: list[str] | None = None) -> list[int]:
                found, looked = await store.read_all(limit=100, types=types, topics=topics)
                assert looked == 40
                return [int(event.message.id[1:]) for event in found]

            assert await some(topics=[OTHER]) == list(range(1, 40, 2))
            assert await some(topics=[OTHER, TOPIC, "nothing"]) == list(range(40))
            assert await some(topics=[]) == []
            assert await some(types=Types(frozenset({"other"}))) == list(range(2, 40, 3))
            assert await some(types=Types(prefixes=frozenset({"order."}))) == [n for n in range(40) if n % 3 != 2]
            assert await some(types=Types(frozenset({"other"})), topics=[TOPIC]) == list(range(2, 40, 6))
            assert await all_of(store, limit=3, types=Types(frozenset({"other"}))) == [f"m{n}" for n in range(2, 40, 3)]
            big, looked = await store.read_all(limit=100, max_bytes=5)
            assert len(big) >= 1
            assert looked == big[-1].position < 40

    @case(shared=True)
    async def test_a_reader_never_skips(self, stage: Stage[Backend]) -> None:
        """Several stores write at once, alone and in transactions that stay open for a while."""
        writers, each = 8, 30

        async def write(store: Backend, writer: int) -> None:
            stream = Stream(TOPIC, f"w{writer}")
            for number in range(each):
                if number % 7 == 3:
                    async with store.transaction() as tx:
                        await tx.execute("SELECT 1")
                        tx.append_to(Append(stream, events(stream, writer * 1000 + number), number))
                        await asyncio.sleep(0.003 * (writer % 3))
                else:
                    await append(store, stream, writer * 1000 + number, expected=number)

        async with stage.open() as one, stage.open() as two, stage.open() as reader:
            work = asyncio.gather(*(write((one, two)[writer % 2], writer) for writer in range(writers)))
            after, seen = 0, list[str]()
            while not work.done() or len(seen) < writers * each:
                page, looked = await reader.read_all(after=after, limit=50)
                assert looked >= after
                after = looked
                seen += ids(page)
                if not page:
                    assert not work.done() or len(seen) < writers * each
                    await asyncio.sleep(0.001)
            await work
            assert sorted(seen) == sorted(f"m{w * 1000 + number}" for w in range(writers) for number in range(each))
            for writer in range(writers):
                mine = [int(id_[1:]) - writer * 1000 for id_ in seen if int(id_[1:]) // 1000 == writer]
                assert mine == list(range(each))
