"""Jobs: due, in lanes, claimed, settled, dead."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec

from eventmill.core.errors import LeaseLostError
from eventmill.core.job import Job
from eventmill.core.message import Partition
from eventmill.core.reading import Pending
from eventmill.testing.conformance.members import GROUP, LEASE, Member
from eventmill.testing.conformance.samples import TOPIC, everything, failure, job, message
from eventmill.testing.conformance.suite import Backend, Conformance, Stage, case, refused
from eventmill.testing.conformance.units import INSERT, create, orders

ONE = Partition(TOPIC, 0)


async def send(store: Backend, *jobs: Job) -> None:
    async with store.transaction() as tx:
        tx.send(jobs)


async def take(member: Member, limit: int = 10) -> Sequence[Job]:
    return await member.store.claim(GROUP, member.name, limit=limit, lease=LEASE)


async def end(member: Member, claimed: Job, *, retry_at: int | None = None, dead: bool = False) -> None:
    unit = member.store.unit(claimed, member.fence)
    unit.settle(claimed, retry_at=retry_at, dead=dead)
    await (await unit.finish())


def names(jobs: Sequence[Job]) -> list[str]:
    return [found.message.id for found in jobs]


class JobCases(Conformance[Backend]):
    """A job runs until it is settled, and its lane behind it waits."""

    async def member(self, store: Backend, name: str = "a/1") -> Member:
        member = Member(store, name, [ONE])
        await member.balance()
        return member

    @case()
    async def test_a_job_is_claimed_with_all_it_carries(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            member = await self.member(store)
            sent = Job(
                queue=GROUP,
                message=message(1, "a"),
                lane="order/a",
                attempts=2,
                position=17,
                partition=Partition(TOPIC, 3),
                recorded_at=1_700_000_000_123,
                errors=[failure(1, 5), failure(2, 6)],
            )
            await send(store, sent)
            (found,) = await store.jobs()
            assert found.id > 0
            assert found.state == "due"
            (claimed,) = await take(member)
            assert claimed.id == found.id
            assert claimed.attempts == 3
            assert not claimed.crashed
            for name in ("queue", "message", "lane", "position", "partition", "recorded_at", "errors"):
                assert getattr(claimed, name) == getattr(sent, name), name
            assert await take(member) == []
            await end(member, claimed)
            assert list(await store.jobs()) == []

    @case(manual_clock=True)
    async def test_jobs_wait_until_they_are_due(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            member = await self.member(store)
            assert await store.next_due(GROUP) is None
            later, sooner = stage.now + 60_000, stage.now + 30_000
            await send(store, job(1, due=later), job(2, due=sooner), job(3, queue="others"))
            assert await store.next_due(GROUP) == sooner
            assert await take(member) == []
            await stage.advance(30)
            store.beat([member.name], LEASE)
            assert names(await take(member)) == ["m2"]
            assert await store.next_due(GROUP) == later
            await stage.advance(30)
            store.beat([member.name], LEASE)
            assert names(await take(member)) == ["m1"]
            assert await store.next_due(GROUP) is None

    @case(manual_clock=True)
    async def test_what_is_due_and_waits_is_counted(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            member = await self.member(store)
            assert await store.overdue(GROUP) == Pending(0, None)
            low = msgspec.structs.replace(job(3, due=stage.now + 20_000), priority=-3)
            high = msgspec.structs.replace(job(4, due=stage.now + 10_000), priority=5)
            await send(store, job(1, due=stage.now + 60_000), job(2, queue="others"), low, high)
            await send(store, job(5, "x", due=stage.now + 15_000), job(6, "x", due=stage.now + 5_000))
            assert await store.overdue(GROUP) == Pending(0, None)
            await stage.advance(20)
            # Not the one that waits behind its lane, nor the one of which the time has not come.
            assert await store.overdue(GROUP) == Pending(3, high.due)
            store.beat([member.name], LEASE)
            assert len(await take(member)) == 3
            assert await store.overdue(GROUP) == Pending(0, None)

    @case()
    async def test_jobs_are_claimed_in_order_and_within_the_limit(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            member = await self.member(store)
            await send(store, *(job(number, due=100 - number) for number in range(5)))
            assert names(await take(member, limit=3)) == ["m4", "m3", "m2"]
            assert names(await take(member, limit=3)) == ["m1", "m0"]

    @case()
    async def test_a_job_goes_to_one_of_many(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            members = [await self.member(store, f"a/{number}") for number in range(4)]
            await send(store, *(job(number) for number in range(20)))
            taken = await asyncio.gather(*(take(member, limit=3) for member in members for _ in range(3)))
            found = sorted(claimed.id for batch in taken for claimed in batch)
            assert len(found) == 20
            assert len(set(found)) == 20

    # Lanes

    @case()
    async def test_a_lane_runs_one_after_another(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            member = await self.member(store)
            await send(store, job(1, "x"), job(2, "x"), job(3, "y"))
            await send(store, job(4, "x"), job(5), job(6), job(7, "x", queue="others"))
            assert names(await store.jobs(GROUP, state="parked")) == ["m2", "m4"]
            assert set(await store.occupied(GROUP, ["x", "y", "z"])) == {"x", "y"}
            assert set(await store.occupied("others", ["x", "y"])) == {"x"}
            first = await take(member)
            assert names(first) == ["m1", "m3", "m5", "m6"]
            for claimed in first:
                await end(member, claimed)
            for expected in ("m2", "m4"):
                (claimed,) = await take(member)
                assert claimed.message.id == expected
                assert await take(member) == []
                await end(member, claimed)
            assert set(await store.occupied(GROUP, ["x", "y", "z"])) == set()

    @case(manual_clock=True)
    async def test_a_retry_keeps_its_lane(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            member = await self.member(store)
            await send(store, job(1, "x"), job(2, "x"))
            (claimed,) = await take(member)
            history = [failure(1, stage.now)]
            await end(member, msgspec.structs.replace(claimed, errors=history), retry_at=stage.now + 5_000)
            assert await take(member) == []
            assert await store.next_due(GROUP) == stage.now + 5_000
            await stage.advance(5)
            (claimed,) = await take(member)
            assert (claimed.message.id, claimed.attempts, claimed.errors) == ("m1", 2, history)
            assert not claimed.crashed
            await end(member, claimed)
            assert names(await take(member)) == ["m2"]

    @case()
    async def test_a_job_follows_another_in_one_unit(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            await create(store)
            member = await self.member(store)
            await send(store, job(1, "x"))
            (claimed,) = await take(member)
            unit = store.unit(claimed, member.fence)
            await unit.execute(INSERT, (1, 10))
            unit.append([message(9)])
            unit.send([job(2, "y")])
            unit.settle(claimed)
            await (await unit.finish())
            assert names(await take(member)) == ["m2"]
            assert await orders(store) == [(1, 10)]
            assert len(await everything(store)) == 1

    # Dead letters

    @case(manual_clock=True)
    async def test_a_dead_job_holds_its_lane_until_replayed(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            member = await self.member(store)
            dead = await self._dead(stage, member)
            assert await take(member) == []
            (found,) = await store.jobs(GROUP, state="dead")
            assert (found.id, found.errors) == (dead.id, dead.errors)
            assert await store.next_due(GROUP) is None
            others = [parked.id for parked in await store.jobs(state="parked")]
            assert await store.replay([dead.id, *others, 987_654]) == 1
            (claimed,) = await take(member)
            assert (claimed.id, claimed.attempts, claimed.errors) == (dead.id, 1, dead.errors)
            assert await store.replay([dead.id]) == 0
            await end(member, claimed)
            for expected in ("m2", "m3"):
                (claimed,) = await take(member)
                assert claimed.message.id == expected
                await end(member, claimed)

    @case(manual_clock=True)
    async def test_skipping_lets_the_lane_go(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            member = await self.member(store)
            dead = await self._dead(stage, member)
            others = [parked.id for parked in await store.jobs(state="parked")]
            assert await store.skip([*others, dead.id]) == 1
            assert list(await store.jobs(state="dead")) == []
            (claimed,) = await take(member)
            assert claimed.message.id == "m2"
            assert names(await store.jobs(state="parked")) == ["m3"]

    async def _dead(self, stage: Stage[Backend], member: Member) -> Job:
        """A dead job with two of its lane behind it."""
        store = member.store
        async with store.transaction() as tx:
            tx.send([job(1, "x"), job(2, "x"), job(3, "x")])
        (claimed,) = await take(member)
        claimed = msgspec.structs.replace(claimed, errors=[failure(1, stage.now)])
        await end(member, claimed, dead=True)
        return claimed

    @case()
    async def test_a_dead_job_may_leave_its_lane(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            member = await self.member(store)
            await send(store, job(1, "x"), job(2, "x"))
            (claimed,) = await take(member)
            await end(member, msgspec.structs.replace(claimed, lane=None), dead=True)
            assert names(await store.jobs(state="dead")) == ["m1"]
            assert names(await take(member)) == ["m2"]

    @case()
    async def test_a_job_may_be_sent_dead(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            member = await self.member(store)
            await send(store, msgspec.structs.replace(job(1, "x"), state="dead"), job(2, "x"))
            assert names(await store.jobs(state="dead")) == ["m1"]
            assert names(await store.jobs(state="parked")) == ["m2"]
            assert await take(member) == []

    # Fencing

    @case(manual_clock=True)
    async def test_a_vanished_claim_comes_back_alone(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            one = await self.member(store, "a/1")
            await send(store, job(1), job(2))
            assert len(await take(one)) == 2
            await stage.advance(LEASE * 1.5)
            two = await self.member(store, "b/1")
            await send(store, job(3))
            batches = [await take(two) for _ in range(3)]
            crashed = [batch for batch in batches if any(claimed.crashed for claimed in batch)]
            assert sorted(names(batch) for batch in crashed) == [["m1"], ["m2"]]
            assert all(batch[0].attempts == 2 for batch in crashed)
            assert [names(batch) for batch in batches if batch not in crashed] == [["m3"]]
            await end(two, crashed[0][0])
            assert len(await store.jobs()) == 2

    @case(manual_clock=True)
    async def test_a_claim_lasts_as_long_as_heartbeats_come(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            one, two = await self.member(store, "a/1"), await self.member(store, "b/1")
            await send(store, job(1))
            (claimed,) = await take(one)
            for _ in range(5):
                await stage.advance(LEASE * 0.7)
                store.beat([one.name, two.name], LEASE)
                await two.balance()
                assert await take(two) == []
            await end(one, claimed)

    @case(manual_clock=True)
    async def test_a_claim_outside_of_any_group_ends_with_its_lease(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            await send(store, job(1, queue="tasks"))
            assert names(await store.claim("tasks", "a/1", limit=1, lease=LEASE)) == ["m1"]
            await stage.advance(LEASE * 0.7)
            assert await store.claim("tasks", "b/1", limit=1, lease=LEASE) == []
            await stage.advance(LEASE * 0.7)
            (claimed,) = await store.claim("tasks", "b/1", limit=1, lease=LEASE)
            assert claimed.crashed

    @case(manual_clock=True)
    async def test_a_paused_worker_settles_nothing(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            await create(store)
            one = await self.member(store, "a/1")
            await send(store, job(1, "x"), job(2, "x"))
            (stale,) = await take(one)
            await stage.advance(LEASE * 1.5)
            two = await self.member(store, "b/1")
            (taken,) = await take(two)
            for retry_at, dead in ((None, False), (0, False), (None, True)):
                unit = store.unit(stale, one.fence)
                with refused(LeaseLostError):
                    unit.append([message(9)])
                    unit.settle(stale, retry_at=retry_at, dead=dead)
                    await unit.execute(INSERT, (1, 10))
                    await (await unit.finish())
                await unit.discard()
            assert await orders(store) == []
            assert await everything(store) == []
            await end(two, taken)
            assert names(await take(two)) == ["m2"]

    @case()
    async def test_a_settled_job_is_not_settled_again(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            member = await self.member(store)
            await send(store, job(1))
            (claimed,) = await take(member)
            await end(member, claimed, retry_at=0)
            with refused(LeaseLostError):
                await end(member, claimed)
            (claimed,) = await take(member)
            await end(member, claimed)
            with refused(LeaseLostError):
                await end(member, claimed)

    @case()
    async def test_burying_frees_claimed_jobs_at_once(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            one = await self.member(store, "a/1")
            await send(store, job(1))
            (stale,) = await take(one)
            await store.bury("a")
            two = await self.member(store, "b/1")
            (claimed,) = await take(two)
            assert (claimed.crashed, claimed.attempts) == (True, 2)
            with refused(LeaseLostError):
                await end(one, stale)

    @case()
    async def test_leaving_gives_jobs_back_with_their_attempt(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            one, two = await self.member(store, "a/1"), await self.member(store, "b/1")
            await send(store, job(1), job(2))
            (stale, *_) = await take(one)
            await one.leave()
            claimed = await take(two)
            assert names(claimed) == ["m1", "m2"]
            assert [(one_.attempts, one_.crashed) for one_ in claimed] == [(1, False), (1, False)]
            with refused(LeaseLostError):
                await end(one, stale)

    # What an operator sees

    @case()
    async def test_jobs_are_listed_in_pages(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            await send(store, *(job(number, "x" if number % 2 else None) for number in range(10)))
            await send(store, job(10, queue="others"))
            first = await store.jobs(GROUP, limit=4)
            assert names(first) == ["m0", "m1", "m2", "m3"]
            rest = await store.jobs(GROUP, limit=100, after_id=first[-1].id)
            assert names(rest) == [f"m{number}" for number in range(4, 10)]
            assert names(await store.jobs(state="parked")) == ["m3", "m5", "m7", "m9"]
            assert len(await store.jobs()) == 11

    @case(durable=True)
    async def test_jobs_outlive_closing(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            await send(store, job(1, "x"), job(2, "x"))
            before = await store.jobs()
        async with stage.open() as store:
            assert list(await store.jobs()) == list(before)

    @case(manual_clock=True)
    async def test_pruning_drops_what_is_old(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            member = await self.member(store)
            for number in range(2):
                async with store.transaction() as tx:
                    tx.receive(GROUP, message(number))
                await send(store, job(10 * number, f"lane{number}"), job(10 * number + 1, f"lane{number}"))
                (claimed,) = await take(member)
                await end(member, claimed, dead=True)
                await stage.advance(100)
                await member.balance()
            assert await store.prune(inbox_older_than=1000, dead_older_than=1000) == 0
            assert await store.prune(inbox_older_than=150, dead_older_than=1000) == 1
            assert set(await store.received(GROUP, ["m0", "m1"])) == {("m1", "conformance")}
            assert await store.prune(inbox_older_than=1000, dead_older_than=150) == 1
            assert names(await store.jobs(state="dead")) == ["m10"]
            # What was parked behind it goes on.
            assert names(await take(member)) == ["m1"]
