"""Looks from outside of a unit, and what a transaction may know of groups: what projections stand on."""

from __future__ import annotations

import asyncio

from eventmill.core.document import ABSENT
from eventmill.core.message import Partition
from eventmill.testing.conformance.members import GROUP, Member
from eventmill.testing.conformance.samples import OTHER, TOPIC, message, partitions
from eventmill.testing.conformance.suite import Backend, Conformance, Stage, case

ONE = Partition(TOPIC, 0)


class LookCases(Conformance[Backend]):
    """Cursors, documents and rows as they were committed; cursors that stand still; what was trimmed."""

    @case()
    async def test_a_look_sees_what_is_committed(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            assert await store.document("one") is None
            async with store.transaction() as tx:
                tx.put("one", b"1", expected=ABSENT)
            found = await store.document("one")
            assert found is not None
            assert (found.version, found.data) == (1, b"1")

    @case()
    async def test_a_query_reads_rows(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            async with store.transaction() as tx:
                await tx.execute("CREATE TABLE looked (a INTEGER, b TEXT, PRIMARY KEY (b, a))")
                await tx.executemany("INSERT INTO looked VALUES (?, ?)", [(1, "x"), (2, "y")])
            rows = await store.query("SELECT a, b FROM looked WHERE a > ? ORDER BY a", (0,))
            assert rows == [(1, "x"), (2, "y")]
            assert rows.columns == ("a", "b")
            assert await store.query("SELECT b FROM looked WHERE a = :a", {"a": 2}) == [("y",)]

    @case()
    async def test_a_primary_key_is_told_in_its_order(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            async with store.transaction() as tx:
                await tx.execute("CREATE TABLE keyed (a INTEGER, b TEXT, PRIMARY KEY (b, a))")
                await tx.execute("CREATE TABLE bare (a INTEGER)")
            assert list(await store.primary_key("keyed")) == ["b", "a"]
            assert list(await store.primary_key("bare")) == []
            assert list(await store.primary_key("nowhere")) == []

    @case()
    async def test_cursors_are_told(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            await store.declare({TOPIC: 2})
            assert await store.cursors(GROUP) == {}
            await store.enroll(GROUP, None, partitions(2))
            assert await store.cursors(GROUP) == dict.fromkeys(partitions(2), 0)
            (position,) = await store.publish([message(1, "key")])
            ((partition, _),) = (await store.end()).items()
            member = Member(store, "a", partitions(2))
            await member.balance()
            await member.commit(partition, position)
            told = await store.cursors(GROUP)
            assert told[partition] == position
            async with store.transaction() as tx:
                assert await tx.cursors(GROUP) == told
                assert await tx.cursors("nobody") == {}

    @case()
    async def test_cursors_stand_still_for_a_transaction(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            await store.declare({TOPIC: 1})
            await store.enroll(GROUP, None, partitions(1))
            (position,) = await store.publish([message(1, "key")])
            member = Member(store, "a", partitions(1))
            await member.balance()
            async with store.transaction() as tx:
                before = await tx.cursors(GROUP)
                commit = asyncio.create_task(member.commit(ONE, position))
                await asyncio.sleep(0.05)
                assert await tx.cursors(GROUP) == before
                assert not commit.done()
            await commit
            assert (await store.cursors(GROUP))[ONE] == position

    @case()
    async def test_a_hurried_transaction_works_as_any_other(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            async with store.transaction() as tx:
                await tx.hurry(0.5)
                await tx.execute("CREATE TABLE hurried (a INTEGER)")
            assert await store.query("SELECT * FROM hurried") == []

    @case()
    async def test_what_was_trimmed_is_told_by_topic(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            await store.declare({TOPIC: 1, OTHER: 1})
            positions = await store.publish([message(number) for number in range(4)])
            await store.publish([message(9, topic=OTHER)])
            assert await store.trimmed([TOPIC, OTHER]) == {}
            await store.report("slow", {ONE: positions[1]})
            await store.trim(TOPIC, max_bytes=0)
            assert await store.trimmed([TOPIC, OTHER]) == {TOPIC: positions[1]}
            await store.trim(TOPIC, max_bytes=0, force=True)
            assert await store.trimmed([TOPIC, OTHER]) == {TOPIC: positions[3]}
            assert await store.trimmed([OTHER]) == {}
