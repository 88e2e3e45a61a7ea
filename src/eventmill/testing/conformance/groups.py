"""Groups: spreading, leases, fencing, cursors."""

from __future__ import annotations

import asyncio

from eventmill.core.errors import LeaseLostError
from eventmill.core.message import Partition
from eventmill.core.reading import Types
from eventmill.core.tracker import Tracker
from eventmill.testing.conformance.members import GROUP, LEASE, Member, settle
from eventmill.testing.conformance.samples import TOPIC, everything, ids, job, message, partitions
from eventmill.testing.conformance.suite import Backend, Conformance, Stage, case, refused
from eventmill.testing.conformance.units import INSERT, create, orders

ONE = Partition(TOPIC, 0)


def shares(*members: Member) -> list[int]:
    return sorted(len(member.cursors) for member in members)


class GroupCases(Conformance[Backend]):
    """Members come, go and die; each partition has one holder at most."""

    @case()
    async def test_a_new_group_begins_before_the_earliest_message(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            await store.publish([message(number) for number in range(3)])
            member = Member(store, "a/1", partitions(2))
            balance = await member.balance()
            assert {cursor.partition for cursor in balance.acquired} == set(partitions(2))
            for cursor in balance.acquired:
                assert (cursor.position, list(cursor.ahead), cursor.abandoned) == (0, [], False)
                assert balance.held[cursor.partition] == cursor.token

    @case()
    async def test_partitions_are_spread_fairly(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            members: list[Member] = []
            for number in range(1, 6):
                members.append(Member(store, f"a/{number}", partitions(16)))
                await settle(*members)
                held = [part for member in members for part in member.cursors]
                assert sorted(held) == partitions(16)
                assert shares(*members)[-1] - shares(*members)[0] <= 1
            while len(members) > 1:
                await members.pop(0).leave()
                await settle(*members)
                held = [part for member in members for part in member.cursors]
                assert sorted(held) == partitions(16)
                assert shares(*members)[-1] - shares(*members)[0] <= 1

    @case()
    async def test_members_keep_what_they_can(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            one, two, three = (Member(store, f"a/{number}", partitions(12)) for number in range(3))
            await settle(one, two)
            before = {member.name: dict(member.cursors) for member in (one, two)}
            await settle(one, two, three)
            for member in (one, two):
                kept = {part: before[member.name].get(part) for part in member.cursors}
                assert kept == member.cursors
            assert len(three.cursors) == 4
            await three.leave()
            before = {member.name: dict(member.cursors) for member in (one, two)}
            await settle(one, two)
            for member in (one, two):
                assert before[member.name].items() <= member.cursors.items()

    @case()
    async def test_more_members_than_partitions(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            members = [Member(store, f"a/{number}", partitions(2)) for number in range(3)]
            await settle(*members)
            assert shares(*members) == [0, 1, 1]

    @case()
    async def test_groups_are_independent(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            one = Member(store, "a/1", partitions(4), "one")
            two = Member(store, "a/2", partitions(4), "two")
            await settle(one, two)
            assert shares(one, two) == [4, 4]

    @case(shared=True)
    async def test_members_of_two_backends_spread(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store, stage.open() as other:
            one, two = Member(store, "a/1", partitions(8)), Member(other, "b/1", partitions(8))
            await settle(one, two)
            assert shares(one, two) == [4, 4]
            assert sorted([*one.cursors, *two.cursors]) == partitions(8)

    @case()
    async def test_the_token_grows_with_each_holder(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            tokens = []
            for number in range(4):
                member = Member(store, f"a/{number}", [ONE])
                await member.balance()
                tokens.append(member.cursors[ONE].token)
                await store.release(GROUP, member.name, [ONE] if number % 2 else None)
                if number % 2:
                    await member.leave()
            assert tokens == sorted(set(tokens))

    @case()
    async def test_generation_changes_with_the_members(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            one, two = Member(store, "a/1", partitions(4)), Member(store, "a/2", partitions(4))
            await one.balance()
            first = await store.generation(GROUP)
            await one.balance()
            assert await store.generation(GROUP) == first
            await two.balance()
            second = await store.generation(GROUP)
            assert second != first
            await two.leave()
            assert await store.generation(GROUP) not in (first, second)

    # Leases

    @case(manual_clock=True)
    async def test_a_silent_member_loses_its_partitions(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            one, two = Member(store, "a/1", [ONE]), Member(store, "b/1", [ONE])
            await one.balance()
            await stage.advance(LEASE * 0.9)
            assert not (await two.balance()).acquired
            await stage.advance(LEASE * 0.2)
            (cursor,) = (await two.balance()).acquired
            assert cursor.abandoned
            assert cursor.token > one.cursors[ONE].token
            await two.leave()
            three = Member(store, "c/1", [ONE])
            (cursor,) = (await three.balance()).acquired
            assert not cursor.abandoned

    @case(manual_clock=True)
    async def test_heartbeats_keep_everything(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            one, two = Member(store, "a/1", [ONE]), Member(store, "b/1", [ONE])
            await one.balance()
            token = one.cursors[ONE].token
            for _ in range(5):
                await stage.advance(LEASE * 0.7)
                store.beat([one.name], LEASE)
                assert not (await two.balance()).acquired
            assert (await one.balance()).held == {ONE: token}
            await one.commit(ONE, 1)

    @case(manual_clock=True)
    async def test_heartbeats_come_from_any_thread(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            one, two = Member(store, "a/1", [ONE]), Member(store, "b/1", [ONE])
            await one.balance()
            await stage.advance(LEASE * 0.7)
            await asyncio.to_thread(store.beat, [one.name, "unknown/1"], LEASE)
            await stage.advance(LEASE * 0.7)
            assert not (await two.balance()).acquired

    @case(manual_clock=True)
    async def test_a_clock_set_back_strands_nobody(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            one, two = Member(store, "a/1", [ONE]), Member(store, "b/1", [ONE])
            await stage.advance(3600)
            await one.balance()
            await stage.advance(-3600)
            assert (await two.balance()).acquired

    @case()
    async def test_burying_frees_at_once(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            parts = partitions(4)
            dead = [Member(store, "a/1", parts), Member(store, "a/2", parts, "others")]
            alive = [Member(store, "ab/1", parts), Member(store, "ab/1", parts, "others")]
            await settle(*dead, *alive)
            assert shares(*dead, *alive) == [2, 2, 2, 2]
            await store.bury("a")
            await settle(*alive)
            assert shares(*alive) == [4, 4]
            gained = [cursor for member in alive for part, cursor in member.cursors.items() if cursor.abandoned]
            assert len(gained) == 4
            with refused(LeaseLostError):
                await dead[0].commit(next(iter(dead[0].cursors)), 1)

    # Fencing

    @case(manual_clock=True)
    async def test_a_paused_member_commits_nothing(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            await create(store)
            await store.declare({TOPIC: 1})
            (position,) = await store.publish([message(1)])
            one, two = Member(store, "a/1", [ONE]), Member(store, "b/1", [ONE])
            await one.balance()
            early = store.unit(one.cursors[ONE], one.fence)
            early.append([message(2)])
            await stage.advance(LEASE * 1.5)
            await two.balance()
            late = store.unit(one.cursors[ONE], one.fence)
            late.append([message(3)])
            for unit in (early, late):
                with refused(LeaseLostError):
                    tracker = Tracker(0)
                    tracker.start(position)
                    unit.send([job(4)])
                    unit.mark(one.cursors[ONE], tracker, position)
                    await unit.execute(INSERT, (1, 10))
                    await (await unit.finish())
                await unit.discard()
            assert await orders(store) == []
            assert ids(await everything(store)) == ["m1"]
            assert list(await store.jobs()) == []
            assert [dict(group.cursors) for group in await store.groups()] == [{ONE: 0}]
            await two.commit(ONE, position)
            assert [dict(group.cursors) for group in await store.groups()] == [{ONE: position}]

    @case()
    async def test_what_was_given_back_is_fenced_off(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            one = Member(store, "a/1", [ONE])
            await one.balance()
            cursor = one.cursors[ONE]
            await store.release(GROUP, one.name, [ONE])
            with refused(LeaseLostError):
                await one.commit(ONE, 1)
            await one.balance()
            # The same member under a new token: what began under the old one is refused still.
            assert one.cursors[ONE].token > cursor.token
            unit = store.unit(cursor, one.fence)
            with refused(LeaseLostError):
                unit.mark(cursor, Tracker(0), 1)
                await (await unit.finish())
            await unit.discard()
            await one.commit(ONE, 1)

    @case()
    async def test_a_mark_for_a_lost_partition_refuses_the_unit(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            one = Member(store, "a/1", partitions(2))
            await one.balance()
            kept, lost = (one.cursors[part] for part in partitions(2))
            await store.release(GROUP, one.name, [lost.partition])
            unit = store.unit(kept, one.fence)
            with refused(LeaseLostError):
                unit.append([message(1)])
                for cursor in (kept, lost):
                    tracker = Tracker(0)
                    tracker.start(1)
                    unit.mark(cursor, tracker, 1)
                await (await unit.finish())
            await unit.discard()
            assert await everything(store) == []
            assert [set(group.cursors.values()) for group in await store.groups()] == [{0}]

    # Cursors

    @case()
    async def test_the_cursor_goes_on_with_the_next_holder(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            one = Member(store, "a/1", [ONE])
            await one.balance()
            await one.commit(ONE, 1, 2, 5, 7, started=[3], looked=9)
            await one.leave()
            two = Member(store, "b/1", [ONE])
            (cursor,) = (await two.balance()).acquired
            assert (cursor.position, list(cursor.ahead)) == (2, [5, 7])
            await two.commit(ONE, 3, looked=9)
            await two.leave()
            (cursor,) = (await Member(store, "c/1", [ONE]).balance()).acquired
            assert (cursor.position, list(cursor.ahead)) == (9, [])

    @case(durable=True)
    async def test_the_cursor_outlives_closing(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            one = Member(store, "a/1", [ONE])
            await one.balance()
            await one.commit(ONE, 1, 3, started=[2], looked=4)
            await one.leave()
        async with stage.open() as store:
            (cursor,) = (await Member(store, "b/1", [ONE]).balance()).acquired
            assert (cursor.position, list(cursor.ahead)) == (1, [3])

    @case()
    async def test_cursor_and_effects_are_one_commit(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            await create(store)
            one = Member(store, "a/1", [ONE])
            await one.balance()
            cursor = one.cursors[ONE]
            tracker = Tracker(0)
            tracker.start(1)
            tracker.scanned(1)
            unit = store.unit(cursor, one.fence)
            await unit.execute(INSERT, (1, 10))
            unit.append([message(1)])
            unit.mark(cursor, tracker, 1)
            await unit.discard()
            assert tracker.in_flight == 1
            unit = store.unit(cursor, one.fence)
            await unit.execute(INSERT, (2, 20))
            unit.append([message(2)])
            unit.mark(cursor, tracker, 1)
            await (await unit.finish())
            assert await orders(store) == [(2, 20)]
            assert ids(await everything(store)) == ["m2"]
            (group,) = await store.groups()
            assert dict(group.cursors) == {ONE: 1}

    @case()
    async def test_enrolling_again_keeps_cursors_and_adds_partitions(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            one = Member(store, "a/1", [ONE])
            await one.balance()
            await one.commit(ONE, 1)
            types = Types(frozenset({"order.placed"}), frozenset({"payment."}))
            await store.enroll(GROUP, types, partitions(2))
            (group,) = await store.groups()
            assert group.types == types
            assert dict(group.cursors) == {ONE: 1, Partition(TOPIC, 1): 0}

    # What an operator sees

    @case(manual_clock=True)
    async def test_groups_show_members_and_jobs(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            one, two = Member(store, "a/1", partitions(4)), Member(store, "b/1", partitions(4))
            await settle(one, two)
            async with store.transaction() as tx:
                tx.send([job(1, "x"), job(2, "x"), job(3, "x"), job(4, "y"), job(5, queue="other")])
            (claimed, *_) = await store.claim(GROUP, one.name, limit=1, lease=LEASE)
            unit = store.unit(claimed, one.fence)
            unit.settle(claimed, dead=True)
            await (await unit.finish())
            (group,) = await store.groups()
            assert (group.name, dict(group.members)) == (GROUP, {"a/1": 2, "b/1": 2})
            assert (group.retrying, group.parked, group.dead) == (1, 2, 1)
            await stage.advance(LEASE * 0.7)
            store.beat(["b/1"], LEASE)
            await stage.advance(LEASE * 0.7)
            (group,) = await store.groups()
            assert set(group.members) == {"b/1"}

    @case()
    async def test_a_forgotten_group_is_gone(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            await store.declare({TOPIC: 1})
            await store.publish([message(1)])
            for group in (GROUP, "others"):
                await Member(store, "a/1", [ONE], group).balance()
                async with store.transaction() as tx:
                    tx.send([job(1, "x", queue=group), job(2, "x", queue=group)])
                    tx.receive(group, message(1))
            await store.forget("others")
            assert [group.name for group in await store.groups()] == [GROUP]
            assert {found.queue for found in await store.jobs()} == {GROUP}
            assert set(await store.received("others", ["m1"])) == set()
            assert set(await store.received(GROUP, ["m1"])) == {("m1", "conformance")}
            assert (await store.trim(TOPIC, max_bytes=0)).held_by == GROUP
            await store.forget(GROUP)
            assert (await store.trim(TOPIC, max_bytes=0)).messages == 1

    @case()
    async def test_trimming_spares_what_a_group_has_not_passed(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            await store.declare({TOPIC: 1})
            positions = await store.publish([message(number) for number in range(6)])
            one = Member(store, "a/1", [ONE])
            await one.balance()
            await one.commit(ONE, *positions[:3])
            trimmed = await store.trim(TOPIC, max_bytes=0)
            assert (trimmed.messages, trimmed.held_by, trimmed.held_at) == (3, GROUP, positions[2])
            assert ids(await everything(store)) == ["m3", "m4", "m5"]
            assert (await store.trim(TOPIC, max_bytes=0, force=True)).messages == 3
