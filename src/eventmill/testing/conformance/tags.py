"""Conditions on tags: what others have appended meanwhile, and must not have."""

from __future__ import annotations

import asyncio

import msgspec

from eventmill.core.errors import TagConflictError
from eventmill.core.reading import Types
from eventmill.core.stream import Absence, Append, Query, Stream
from eventmill.testing.conformance.samples import TOPIC, everything, ids, message
from eventmill.testing.conformance.streams import A, B, append, events
from eventmill.testing.conformance.suite import Backend, Conformance, Stage, case, refused


def absence(*tags: str, after: int = 0, types: tuple[str, ...] = ()) -> Absence:
    return Absence([Query(frozenset(tags), frozenset(types))], after)


async def guarded(store: Backend, number: int, condition: Absence, *tags: str) -> int:
    """An event with tags, appended under a condition; returns its position."""
    async with store.transaction() as tx:
        stream = Stream(TOPIC, f"s{number}")
        entry = Append(stream, events(stream, number, tags=tags))
        tx.append_to(entry)
        tx.require(condition)
    return entry.appended.position


class TagCases(Conformance[Backend]):
    """Dynamic consistency boundaries."""

    @case()
    async def test_tags_are_kept(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            await append(store, A, 1, tags=("course:c1", "student:ü"))
            await store.publish([msgspec.structs.replace(message(2, "b"), tags=("course:c2",))])
            await store.publish([message(3)])
            assert [record.message.tags for record in await everything(store)] == [
                ("course:c1", "student:ü"),
                ("course:c2",),
                (),
            ]

    @case()
    async def test_an_event_with_these_tags_is_a_conflict(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            at = (await append(store, A, 1, tags=("course:c1", "student:s1"))).position
            await append(store, A, 2, tags=("course:c1",))
            for condition, found in (
                (absence("course:c1"), 2),
                (absence("course:c1", "student:s1"), 1),
                (absence("student:s1"), 1),
                (absence("course:c1", after=at), 2),
                (absence("course:c1", types=("order.placed", "order.other")), 2),
                (Absence([Query(frozenset({"x"})), Query(frozenset({"student:s1"}))], 0), 1),
            ):
                with refused(TagConflictError) as caught:
                    await guarded(store, 9, condition, "course:c1")
                assert (caught.error.expected, caught.error.actual) == (condition.after, found)
            assert ids(await everything(store)) == ["m1", "m2"]

    @case()
    async def test_what_does_not_match_is_no_conflict(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            await append(store, A, 1, tags=("course:c1", "student:s1"))
            last = (await append(store, A, 2, tags=("course:c2",))).position
            for number, condition in enumerate(
                (
                    absence("course:c3"),
                    absence("course:c1", after=1),
                    absence("course:c1", "course:c2"),
                    absence("course:c1", types=("order.other",)),
                    absence("course:c2", after=last),
                    absence("course:c"),
                )
            ):
                assert await guarded(store, number + 10, condition, f"t:{number}")

    @case()
    async def test_what_the_unit_appends_itself_is_not_looked_at(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            assert await guarded(store, 1, absence("seat:1"), "seat:1")
            with refused(TagConflictError):
                await guarded(store, 2, absence("seat:1"), "seat:1")
            assert ids(await everything(store)) == ["m1"]

    @case()
    async def test_a_condition_alone(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            await append(store, A, 1, tags=("x",))
            async with store.transaction() as tx:
                tx.require(absence("x", after=1))
            with refused(TagConflictError):
                async with store.transaction() as tx:
                    tx.require(absence("x"))

    @case()
    async def test_a_condition_beside_documents_and_statements(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            await append(store, A, 1, tags=("x",))
            async with store.transaction() as tx:
                await tx.execute("CREATE TABLE IF NOT EXISTS notes (id INTEGER PRIMARY KEY)")
            for after, kept in ((0, 0), (1, 1)):
                try:
                    async with store.transaction() as tx:
                        await tx.execute("INSERT INTO notes (id) VALUES (1)")
                        tx.put("d", b"", expected=0)
                        tx.append([message(2)])
                        tx.require(absence("x", after=after))
                except TagConflictError:
                    assert not kept
                async with store.transaction() as tx:
                    assert len(await tx.execute("SELECT id FROM notes")) == kept
                    assert (await tx.get("d") is not None) == bool(kept)

    @case()
    async def test_of_two_that_rule_each_other_out_one_commits(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            for turn in range(10):
                results = await asyncio.gather(
                    guarded(store, 2 * turn, absence(f"b{turn}"), f"a{turn}"),
                    guarded(store, 2 * turn + 1, absence(f"a{turn}"), f"b{turn}"),
                    return_exceptions=True,
                )
                assert sorted(type(each) is TagConflictError for each in results) == [False, True], results

    @case(shared=True)
    async def test_of_two_stores_one_commits(self, stage: Stage[Backend]) -> None:
        async with stage.open() as one, stage.open() as two:
            for turn in range(10):
                results = await asyncio.gather(
                    guarded(one, 2 * turn, absence(f"b{turn}"), f"a{turn}"),
                    guarded(two, 2 * turn + 1, absence(f"a{turn}"), f"b{turn}"),
                    return_exceptions=True,
                )
                assert sorted(type(each) is TagConflictError for each in results) == [False, True], results

    @case()
    async def test_disjoint_tags_all_commit(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            positions = await asyncio.gather(
                *(guarded(store, number, absence(f"seat:{number}"), f"seat:{number}") for number in range(64))
            )
            assert len(set(positions)) == 64

    @case(shared=True)
    async def test_ten_seats_by_tags(self, stage: Stage[Backend]) -> None:
        """A hundred want one of ten seats, each deciding on the events it has read by their tag."""
        query = Query(frozenset({"course:c1"}))

        async def book(store: Backend, number: int) -> bool:
            while True:
                found, after = await store.read_all(limit=1000, queries=[query])
                if len(found) >= 10:
                    return False
                try:
                    await guarded(store, number, Absence([query], after), "course:c1")
                except TagConflictError:
                    continue
                return True

        async with stage.open() as one, stage.open() as two:
            booked = await asyncio.gather(*(book((one, two)[number % 2], number) for number in range(100)))
            assert sum(booked) == 10
            found, _ = await one.read_all(limit=1000, queries=[query])
            assert sorted(ids(found)) == sorted(f"m{number}" for number, won in enumerate(booked) if won)

    @case()
    async def test_reading_by_tags(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            await append(store, A, 1, tags=("x", "y"))
            await append(store, A, 2, tags=("y",))
            await append(store, B, 3, tags=("x",))
            await append(store, B, 4)
            await store.publish([msgspec.structs.replace(message(5, type="order.other"), tags=("y", "z"))])

            async def read(*queries: Query, **options: object) -> list[str]:
                found, _ = await store.read_all(limit=100, queries=queries, **options)  # type: ignore[arg-type]
                return ids(found)

            x, y, both = Query(frozenset("x")), Query(frozenset("y")), Query(frozenset("xy"))
            assert await read(x) == ["m1", "m3"]
            assert await read(y) == ["m1", "m2", "m5"]
            assert await read(both) == ["m1"]
            assert await read(x, y) == ["m1", "m2", "m3", "m5"]
            assert await read(x, y, after=1) == ["m2", "m3", "m5"]
            assert await read(Query(frozenset("y"), frozenset({"order.other"}))) == ["m5"]
            assert await read(Query(types=frozenset({"order.other"})), both) == ["m1", "m5"]
            assert await read(y, types=Types(frozenset({"order.placed"}))) == ["m1", "m2"]
            assert await read(y, topics=["payment"]) == []
            assert await read(Query(frozenset("q"))) == []
            found, after = await store.read_all(limit=2, queries=[y])
            assert ids(found) == ["m1", "m2"]
            assert 2 <= after < 5
            found, after = await store.read_all(limit=2, queries=[y], after=after)
            assert (ids(found), after) == (["m5"], 5)

    @case(manual_clock=True)
    async def test_trimmed_tags_are_gone(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            await append(store, A, 1, tags=("x",))
            await stage.advance(100)
            last = await append(store, A, 2, tags=("x", "y"))
            await store.trim(TOPIC, older_than=50)
            found, _ = await store.read_all(limit=10, queries=[Query(frozenset("x"))])
            assert ids(found) == ["m2"]
            with refused(TagConflictError):
                await guarded(store, 3, absence("x"))
            assert await guarded(store, 4, absence("x", after=last.position), "x")
