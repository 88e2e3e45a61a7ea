"""Appends to streams: versions, conflicts, repeats, closed streams."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec

from eventmill.core.errors import EventmillError, StreamClosedError, WrongExpectedVersionError
from eventmill.core.message import Message
from eventmill.core.stream import ANY, Append, Appended, Stream, closing
from eventmill.testing.conformance.samples import TOPIC, everything, ids, job, message
from eventmill.testing.conformance.suite import Backend, Conformance, Stage, case, refused

A, B, C = Stream(TOPIC, "a"), Stream(TOPIC, "b"), Stream(TOPIC, "c")
ALONE = "CREATE TABLE IF NOT EXISTS notes (id INTEGER PRIMARY KEY)"


def events(stream: Stream, *numbers: int, tags: tuple[str, ...] = ()) -> list[Message]:
    """Messages of a stream; the numbers become their ids."""
    return [msgspec.structs.replace(message(number, stream.key, topic=stream.topic), tags=tags) for number in numbers]


async def append(
    store: Backend,
    stream: Stream,
    *numbers: int,
    expected: int = ANY,
    repeatable: bool = False,
    tags: tuple[str, ...] = (),
    reopens: bool = False,
) -> Appended:
    """One append in a unit of its own."""
    async with store.transaction() as tx:
        entry = Append(stream, events(stream, *numbers, tags=tags), expected, repeatable, reopens)
        tx.append_to(entry)
    return entry.appended


async def close(store: Backend, stream: Stream, word: str | None) -> None:
    """Close a stream, or open it again (None)."""
    async with store.transaction() as tx:
        tx.put(closing(stream), None if word is None else word.encode(), expected=None)
        tx.append_to(Append(stream, (), reopens=True))


async def stored(store: Backend, stream: Stream) -> list[str]:
    """The ids of a stream's events; their versions are looked at, too."""
    found = await store.read_stream(stream, limit=1000)
    versions = [event.message.sequence for event in found]
    assert versions == list(range(versions[0] or 0, (versions[0] or 0) + len(versions))) if versions else True
    assert all((event.message.topic, event.message.key) == stream for event in found)
    return ids(found)


class AppendCases(Conformance[Backend]):
    """Expected versions. The units of a case go both ways: alone, and with statements of the user's beside."""

    @case()
    async def test_versions_count_from_one(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            assert await store.version(A) == 0
            first = await append(store, A, 1, 2, expected=0)
            assert (first.version, list(first.positions), first.repeated) == (2, [1, 2], False)
            second = await append(store, A, 3, expected=2)
            assert (second.version, second.position) == (3, 3)
            third = await append(store, A, 4)
            assert third.version == await store.version(A) == 4
            assert await stored(store, A) == ["m1", "m2", "m3", "m4"]

    @case()
    async def test_a_conflict_tells_both_versions(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            await append(store, A, 1, 2)
            for expected in (0, 1, 3, 99):
                with refused(WrongExpectedVersionError) as caught:
                    await append(store, A, 3, expected=expected)
                assert (caught.error.expected, caught.error.actual) == (expected, 2)
                assert "order/a" in str(caught.error)
            with refused(WrongExpectedVersionError) as caught:
                await append(store, B, 3, expected=1)
            assert (caught.error.expected, caught.error.actual) == (1, 0)
            assert ids(await everything(store)) == ["m1", "m2"]

    @case()
    async def test_a_conflict_undoes_its_whole_unit(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            async with store.transaction() as tx:
                await tx.execute(ALONE)
            with refused(WrongExpectedVersionError):
                async with store.transaction() as tx:
                    await tx.execute("INSERT INTO notes (id) VALUES (1)")
                    tx.append([message(1)])
                    tx.send([job(1, "a")])
                    tx.put("d", b"", expected=None)
                    tx.append_to(Append(A, events(A, 2), 5))
            async with store.transaction() as tx:
                assert await tx.execute("SELECT id FROM notes") == []
                assert await tx.get("d") is None
            assert await everything(store) == []
            assert await store.jobs() == []
            assert (await append(store, A, 3, expected=0)).version == 1

    @case()
    async def test_what_is_published_moves_the_version(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            await store.publish([message(1, "a"), message(2, "b"), message(3)])
            with refused(WrongExpectedVersionError):
                await append(store, A, 4, expected=0)
            assert (await append(store, A, 5, expected=1)).version == 2
            await store.publish([message(6, "a")])
            assert (await append(store, A, 7, expected=3)).version == 4
            assert await stored(store, A) == ["m1", "m5", "m6", "m7"]

    @case()
    async def test_a_number_of_another_log_is_no_version(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            await store.publish([msgspec.structs.replace(message(1, "a"), sequence=40)])
            assert (await append(store, A, 2, expected=1)).version == 2
            found = await store.read_stream(A, limit=10)
            assert [event.message.sequence for event in found] == [1, 2]
            assert (await everything(store))[0].message.sequence == 40

    @case()
    async def test_several_streams_together(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            await append(store, A, 1)
            async with store.transaction() as tx:
                for entry in (Append(A, events(A, 2, 3), 1), Append(B, events(B, 4), 0), Append(C, (), 0)):
                    tx.append_to(entry)
            assert ids(await everything(store)) == ["m1", "m2", "m3", "m4"]
            with refused(WrongExpectedVersionError) as caught:
                async with store.transaction() as tx:
                    tx.append_to(Append(A, events(A, 5), 3))
                    tx.append_to(Append(B, events(B, 6), 0))
            assert (caught.error.expected, caught.error.actual) == (0, 1)
            assert ids(await everything(store)) == ["m1", "m2", "m3", "m4"]

    @case()
    async def test_a_condition_on_a_stream_that_is_not_written(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            await append(store, A, 1, 2)
            condition = await append(store, A, expected=2)
            assert (condition.version, list(condition.positions), condition.position) == (2, [], 0)
            async with store.transaction() as tx:
                tx.append_to(Append(B, events(B, 3), 0))
                tx.append_to(Append(A, (), 2))
            with refused(WrongExpectedVersionError):
                async with store.transaction() as tx:
                    tx.append_to(Append(B, events(B, 4), 1))
                    tx.append_to(Append(A, (), 1))
            assert await append(store, C, expected=0)
            assert await store.version(C) == 0
            assert await store.streams(TOPIC, limit=10) == [(A, 2), (B, 1)]
            assert await stored(store, B) == ["m3"]

    @case()
    async def test_the_order_within_a_unit_is_kept(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            entries = [Append(A, events(A, 2), 1), Append(A, events(A, 4), 3), Append(B, events(B, 5), 0)]
            async with store.transaction() as tx:
                tx.append([message(1, "a")])
                tx.append_to(entries[0])
                tx.append([message(3, "a")])
                tx.append_to(entries[1])
                tx.append_to(entries[2])
            assert ids(await everything(store)) == ["m1", "m2", "m3", "m4", "m5"]
            assert await stored(store, A) == ["m1", "m2", "m3", "m4"]
            assert [(entry.appended.version, list(entry.appended.positions)) for entry in entries] == [
                (2, [2]),
                (4, [4]),
                (1, [5]),
            ]
            with refused(WrongExpectedVersionError) as caught:
                async with store.transaction() as tx:
                    tx.append_to(Append(A, events(A, 6), 4))
                    tx.append_to(Append(A, events(A, 7), 4))
            assert (caught.error.expected, caught.error.actual) == (4, 5)

    # Repeats

    @case()
    async def test_a_repeat_returns_the_first_positions(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            await append(store, B, 1)
            first = await append(store, A, 2, 3, expected=0, repeatable=True)
            await append(store, A, 4)
            for expected in (0, ANY, 3, 99):
                again = await append(store, A, 2, 3, expected=expected, repeatable=True)
                assert (list(again.positions), again.version, again.repeated) == (list(first.positions), 2, True)
            assert ids(await everything(store)) == ["m1", "m2", "m3", "m4"]
            assert await store.version(A) == 3

    @case()
    async def test_a_repeat_among_other_work(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            await append(store, A, 1, 2, repeatable=True)
            async with store.transaction() as tx:
                await tx.execute(ALONE)
                tx.append([message(3, "a")])
                again = Append(A, events(A, 1, 2), 0, repeatable=True)
                tx.append_to(again)
                last = Append(A, events(A, 4), 3)
                tx.append_to(last)
            assert again.appended.repeated
            assert (list(again.appended.positions), again.appended.version) == ([1, 2], 2)
            assert (last.appended.version, list(last.appended.positions)) == (4, [4])
            assert await stored(store, A) == ["m1", "m2", "m3", "m4"]

    @case()
    async def test_a_part_of_a_repeat_is_a_conflict(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            await append(store, A, 1, 2, repeatable=True)
            await append(store, A, 3, repeatable=True)
            for numbers in ((1, 9), (2, 1), (1, 3), (9, 1)):
                with refused(WrongExpectedVersionError) as caught:
                    await append(store, A, *numbers, repeatable=True)
                assert caught.error.actual == 3
            assert (await append(store, A, 2, 3, repeatable=True)).version == 3
            # The same ids in another stream are others.
            assert (await append(store, B, 1, 2, repeatable=True)).version == 2
            assert ids(await everything(store)) == ["m1", "m2", "m3", "m1", "m2"]

    @case()
    async def test_concurrent_repeats_store_once(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            found = await asyncio.gather(
                *(append(store, A, 1, 2, expected=0, repeatable=True) for _ in range(16)), return_exceptions=True
            )
            assert all(isinstance(each, Appended) for each in found), found
            assert {tuple(each.positions) for each in found if isinstance(each, Appended)} == {(1, 2)}
            assert sum(not each.repeated for each in found if isinstance(each, Appended)) == 1
            assert await stored(store, A) == ["m1", "m2"]

    # Closed streams

    @case()
    async def test_a_closed_stream_takes_nothing(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            await append(store, A, 1)
            await close(store, A, "archived")
            for expected in (ANY, 1, 0):
                with refused(StreamClosedError) as caught:
                    await append(store, A, 2, expected=expected)
                assert "archived" in str(caught.error)
            with refused(StreamClosedError):
                async with store.transaction() as tx:
                    await tx.execute(ALONE)
                    tx.append_to(Append(B, events(B, 3)))
                    tx.append_to(Append(A, events(A, 4)))
            assert (await append(store, A, 5, expected=1, reopens=True)).version == 2
            await close(store, A, None)
            assert (await append(store, A, 6, expected=2)).version == 3
            await close(store, A, "tombstoned")
            with refused(StreamClosedError) as caught:
                await append(store, A, 7)
            assert "tombstoned" in str(caught.error)
            assert await stored(store, A) == ["m1", "m5", "m6"]
            assert await append(store, B, 8)

    @case()
    async def test_closing_and_the_last_event_are_one(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            await append(store, A, 1)
            async with store.transaction() as tx:
                tx.append_to(Append(A, events(A, 2), 1))
                tx.put(closing(A), b"tombstoned", expected=0)
            with refused(StreamClosedError):
                await append(store, A, 3)
            with refused(EventmillError):
                async with store.transaction() as tx:
                    tx.append_to(Append(B, events(B, 4), 7))
                    tx.put(closing(B), b"tombstoned", expected=0)
            assert (await append(store, B, 5)).version == 1
            assert await stored(store, A) == ["m1", "m2"]

    # Many at a time

    @case()
    async def test_one_of_many_conflicts_and_the_others_succeed(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            streams = [Stream(TOPIC, f"key{number}") for number in range(64)]
            await append(store, streams[17], 1000)
            found = await asyncio.gather(
                *(append(store, stream, number, expected=0) for number, stream in enumerate(streams)),
                return_exceptions=True,
            )
            failed = [number for number, each in enumerate(found) if not isinstance(each, Appended)]
            assert failed == [17]
            assert isinstance(found[17], WrongExpectedVersionError)
            assert sorted(ids(await everything(store))) == sorted(
                ["m1000", *(f"m{number}" for number in range(64) if number != 17)]
            )
            positions = [each.position for each in found if isinstance(each, Appended)]
            assert len(set(positions)) == 63
            for stream, each in zip(streams, found, strict=True):
                if isinstance(each, Appended):
                    assert [event.position for event in await store.read_stream(stream, limit=9)] == [each.position]

    @case()
    async def test_ten_seats(self, stage: Stage[Backend]) -> None:
        """A hundred want one of ten seats, each deciding on the version it has read."""

        async def book(store: Backend, number: int) -> bool:
            while True:
                version = await store.version(A)
                if version >= 10:
                    return False
                try:
                    await append(store, A, number, expected=version)
                except WrongExpectedVersionError:
                    continue
                return True

        async with stage.open() as store:
            booked = await asyncio.gather(*(book(store, number) for number in range(100)))
            assert sum(booked) == 10
            winners = [f"m{number}" for number, won in enumerate(booked) if won]
            assert sorted(await stored(store, A)) == sorted(winners)

    @case(shared=True)
    async def test_ten_seats_in_two_stores(self, stage: Stage[Backend]) -> None:
        async def book(store: Backend, number: int) -> bool:
            async with store.transaction() as tx:
                await tx.execute("SELECT 1")
            for _ in range(200):
                found: Sequence[object] = await store.read_stream(A, limit=1000)
                if len(found) >= 10:
                    return False
                try:
                    await append(store, A, number, expected=len(found))
                except WrongExpectedVersionError:
                    continue
                return True
            raise AssertionError("never got through")

        async with stage.open() as one, stage.open() as two:
            booked = await asyncio.gather(*(book((one, two)[number % 2], number) for number in range(40)))
            assert sum(booked) == 10
            assert len(await stored(one, A)) == len(await stored(two, A)) == 10
