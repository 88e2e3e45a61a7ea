"""Claims by priority, by reference, after crashes, and many ended together; and what a unit says of itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from eventmill.core.claims import Fence
from eventmill.core.document import ABSENT, Document
from eventmill.core.errors import LeaseLostError
from eventmill.core.job import AGEING
from eventmill.testing.conformance.jobs import ONE, end, names, send, take
from eventmill.testing.conformance.members import GROUP, LEASE, Member
from eventmill.testing.conformance.samples import job, message
from eventmill.testing.conformance.suite import Backend, Conformance, Stage, case, refused
from eventmill.testing.conformance.units import SELECT, create


async def joined(store: Backend, name: str = "a/1") -> Member:
    member = Member(store, name, [ONE])
    await member.balance()
    return member


class ClaimingCases(Conformance[Backend]):
    """What workers of tasks ask of a store."""

    @case(manual_clock=True)
    async def test_priority_is_worth_some_waiting(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            member = await joined(store)
            now = stage.now
            later = [msgspec.structs.replace(job(number), due=now + 10, priority=9) for number in (8, 9)]
            await send(
                store,
                *later,
                msgspec.structs.replace(job(1), due=now - 1, priority=-1),
                msgspec.structs.replace(job(2), due=now, priority=1),
                msgspec.structs.replace(job(3), due=now - AGEING * 3, priority=-1),
                msgspec.structs.replace(job(4), due=now),
            )
            assert await store.next_due(GROUP) == now - AGEING * 3
            assert names(await take(member, limit=2)) == ["m3", "m2"]
            assert names(await take(member)) == ["m4", "m1"]
            assert await store.next_due(GROUP) == now + 10
            assert await take(member) == []

    @case(manual_clock=True)
    async def test_only_after_several_crashes_a_job_comes_alone(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            await send(store, job(1), job(2))
            for life in range(3):
                name = f"a{life}/1"
                claimed = await store.claim(GROUP, name, limit=10, lease=LEASE, alone=2)
                assert [each.crashed for each in claimed] == ([life] * 2 if life < 2 else [2])
                await stage.advance(LEASE * 1.5)
            member = await joined(store, "b/1")
            claimed = await store.claim(GROUP, member.name, limit=10, lease=LEASE, alone=4)
            assert sorted((each.message.id, each.crashed, each.attempts) for each in claimed) == [
                ("m1", 3, 4),
                ("m2", 2, 3),
            ]
            for each in claimed:
                await end(member, each, retry_at=stage.now)
            assert [each.crashed for each in await take(member)] == [0, 0]

    @case()
    async def test_many_jobs_end_in_one_unit(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            member = await joined(store)
            await send(store, *(job(number, "x" if number < 2 else None) for number in range(8)))
            done, retried, dead, *others = await take(member)
            unit = store.unit(None, member.fence)
            unit.settle(done)
            unit.settle(msgspec.structs.replace(retried, attempts=7), retry_at=0)
            unit.settle(dead, dead=True)
            for other in others:
                unit.settle(other)
            await (await unit.finish())
            assert names(await store.jobs(state="dead")) == ["m3"]
            claimed = await take(member)
            assert sorted((each.message.id, each.attempts) for each in claimed) == [("m1", 1), ("m2", 8)]
            unit = store.unit(None, member.fence)
            with refused(LeaseLostError):
                for each in (*claimed, done):
                    unit.settle(each)
                await (await unit.finish())
            await unit.discard()
            assert len(await store.jobs()) == 3, "all or nothing"

    @case()
    async def test_a_job_is_found_and_taken_by_its_reference(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            member = await joined(store)
            referred = [msgspec.structs.replace(job(number), reference=f"r{number}") for number in range(3)]
            await send(store, referred[0], msgspec.structs.replace(referred[1], due=stage.now + 10**6), referred[2])
            assert await store.find("r9") is None
            found = await store.find("r1")
            assert found is not None
            assert (found.message.id, found.state, found.reference) == ("m1", "due", "r1")
            assert await store.take("r9", "c/1", lease=LEASE) is None
            taken = await store.take("r1", "c/1", lease=LEASE)
            assert taken is not None
            assert taken.attempts == 0
            assert await store.take("r1", "c/2", lease=LEASE) is None, "it is claimed"
            (running,) = await store.jobs(GROUP, state="running")
            assert running.id == taken.id
            unit = store.unit(taken, Fence(GROUP, "c/1"))
            unit.settle(taken, retry_at=-1)
            await (await unit.finish())
            assert names(await take(member)) == ["m1", "m0", "m2"]

    @case()
    async def test_documents_are_listed_by_the_beginning_of_their_keys(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            async with store.transaction() as tx:
                for key in ("a/1", "a/2", "a/3", "a", "b/1", "a%/4", "A/5"):
                    tx.put(key, key.encode(), expected=ABSENT)
            assert [found.key for found in await store.documents("a/")] == ["a/1", "a/2", "a/3"]
            assert await store.documents("a/", limit=1, after="a/1") == [Document("a/2", 1, b"a/2")]
            assert [found.key for found in await store.documents("")] == [
                "A/5",
                "a",
                "a%/4",
                "a/1",
                "a/2",
                "a/3",
                "b/1",
            ]
            assert list(await store.documents("c")) == []

    @case()
    async def test_a_unit_knows_whether_it_was_touched(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            await create(store)
            touches: list[Callable[[Any], None]] = [
                lambda unit: unit.append([message(1)]),
                lambda unit: unit.send([job(1)]),
                lambda unit: unit.put("a", b"", expected=None),
                lambda unit: unit.receive(GROUP, message(2)),
            ]
            for touch in touches:
                unit = store.unit()
                assert unit.untouched
                touch(unit)
                assert not unit.untouched
                await unit.discard()
            unit = store.unit(None, Fence(GROUP, "a/1"))
            await unit.execute(SELECT)
            assert not unit.untouched
            await unit.discard()
