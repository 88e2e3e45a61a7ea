"""Limits: over all processes, by key or for a whole queue, and none is left waiting."""

from __future__ import annotations

import asyncio
from typing import Any

from eventmill.core.claims import Fence
from eventmill.core.errors import ConfigurationError, LeaseLostError
from eventmill.core.job import Job
from eventmill.core.retry import fixed
from eventmill.patterns.tasks.context import TaskContext
from eventmill.patterns.tasks.limit import Limit
from eventmill.testing.conformance.apps import running, waiting
from eventmill.testing.conformance.claiming import joined
from eventmill.testing.conformance.jobs import end, names, send, take
from eventmill.testing.conformance.members import GROUP, LEASE
from eventmill.testing.conformance.samples import job
from eventmill.testing.conformance.suite import Backend, Conformance, Stage, case, refused
from eventmill.testing.conformance.taskflow import settled
from eventmill.testing.conformance.tasks import TasksOnStage, none_left


class HoldingCases(Conformance[Backend]):
    """Jobs that are held in a lane until they are let go."""

    @case()
    async def test_held_jobs_are_let_go_one_by_one(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            member = await joined(store)
            await send(store, *(job(number, due=number) for number in range(1, 5)))
            for claimed in await take(member):
                unit = store.unit(claimed, member.fence)
                unit.hold(claimed, "x" if claimed.message.id != "m4" else "y")
                await (await unit.finish())
            assert await take(member) == []
            assert names(await store.jobs(GROUP, state="parked")) == ["m1", "m2", "m3", "m4"]
            unit = store.unit(None, member.fence)
            for lane in ("x", "x", "z"):
                unit.let_go(GROUP, lane)
            await (await unit.finish())
            freed = await take(member)
            assert [(each.message.id, each.lane, each.attempts) for each in freed] == [
                ("m1", None, 2),
                ("m2", None, 2),
            ]
            await end(member, freed[0])
            assert names(await store.jobs(GROUP, state="parked")) == ["m3", "m4"], "they are in no lane any more"

    @case()
    async def test_a_held_job_may_be_taken(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            member = await joined(store)
            await send(store, Job(queue=GROUP, message=job(1).message, reference="r1"))
            (claimed,) = await take(member)
            unit = store.unit(claimed, member.fence)
            unit.hold(claimed, "x")
            await (await unit.finish())
            taken = await store.take("r1", "c/1", lease=LEASE)
            assert taken is not None
            assert taken.lane is None
            unit = store.unit(claimed, member.fence)
            with refused(LeaseLostError):
                unit.hold(claimed, "x")
                await (await unit.finish())
            await unit.discard()
            unit = store.unit(taken, Fence(GROUP, "c/1"))
            unit.settle(taken)
            await (await unit.finish())
            assert list(await store.jobs()) == []


class LimitCases(TasksOnStage):
    """Limits of tasks and queues."""

    @case(shared=True)
    async def test_no_more_of_a_key_run_at_a_time(self, stage: Stage[Any]) -> None:
        now: dict[str, int] = {}
        most: dict[str, int] = {}
        attempts: set[tuple[str, str, int]] = set()
        async with self.opened(stage) as one, self.opened(stage) as two:
            for app in (one, two):

                @app.task(limit=Limit(concurrency=2, by="key"), retry=fixed(0.05))
                async def work(key: str, context: TaskContext) -> None:
                    now[key] = now.get(key, 0) + 1
                    most[key] = max(most.get(key, 0), now[key])
                    try:
                        await asyncio.sleep(0.01)
                        attempts.add((key, context.id, context.attempt))
                        if context.attempt == 1 and key == "a":
                            raise ValueError("at the second attempt it works")
                    finally:
                        now[key] -= 1

            await one.open()
            async with one.transaction() as tx:
                for number in range(36):
                    tx.send(work.job("abc"[number % 3]))
            async with running(one, two):
                await waiting(lambda: none_left(one))
            assert most == {"a": 2, "b": 2, "c": 2}
            firsts = {(key, id_) for key, id_, _ in attempts}
            wanted = {(*each, 1) for each in firsts} | {(*each, 2) for each in firsts if each[0] == "a"}
            assert len(firsts) == 36
            assert attempts == wanted, "waiting spends no attempt"
            assert list(await one.store.documents("tasks/conformance/limit/")) == []

    @case()
    async def test_a_queue_s_limit_is_changed_while_it_runs(self, stage: Stage[Any]) -> None:
        begun: list[int] = []
        ended: list[int] = []
        going = asyncio.Event()
        async with self.opened(stage) as app:
            app.tasks.queue("narrow", limit=Limit(concurrency=1))

            @app.task(queue="narrow")
            async def work(number: int) -> None:
                begun.append(number)
                await going.wait()
                ended.append(number)

            async def run(most: int, *, waiters: int) -> None:
                async def so() -> bool:
                    held = await app.store.jobs(app.tasks.store_queue("narrow"), state="parked")
                    return len(begun) >= most and len(held) >= waiters

                await waiting(so)
                assert len(begun) == most

            await app.open()
            async with app.transaction() as tx:
                for number in range(8):
                    tx.send(work.job(number))
            async with running(app):
                await run(1, waiters=7)
                await app.tasks.limit("narrow", Limit(concurrency=4))
                await run(4, waiters=4)
                await app.tasks.limit("narrow", Limit(concurrency=2))
                await app.tasks.limit("narrow", Limit(concurrency=5))
                await run(5, waiters=3)
                await app.tasks.limit("narrow", None)
                await app.send(work.job(8))
                await run(5, waiters=4)
                going.set()
                await waiting(lambda: none_left(app))
            assert sorted(ended) == list(range(9))
            with refused(ConfigurationError) as undeclared:
                await app.tasks.limit("narrow", Limit(rate=(1, 1.0)))
            assert "no limit of rate" in str(undeclared.error)
            with refused(ConfigurationError) as argument:
                await app.tasks.limit("narrow", Limit(concurrency=1, by="number"))
            assert "names an argument" in str(argument.error)

    @case()
    async def test_a_rate_is_changed_while_it_runs(self, stage: Stage[Any]) -> None:
        async with self.opened(stage) as app:
            app.tasks.queue("slow", limit=Limit(rate=(1, 3_600.0)))
            done: list[int] = []

            @app.task(queue="slow")
            async def work(number: int) -> None:
                done.append(number)

            await app.open()
            await app.tasks.limit("slow", Limit(rate=(20, 0.001)))
            async with app.transaction() as tx:
                for number in range(20):
                    tx.send(work.job(number))
            async with running(app):
                await waiting(lambda: asyncio.sleep(0, len(done) >= 20))
            assert sorted(done) == list(range(20))

    @case()
    async def test_a_rate_is_kept_in_every_stretch(self, stage: Stage[Any]) -> None:
        loop = asyncio.get_running_loop()
        begun: list[float] = []
        async with self.opened(stage) as app:
            app.tasks.queue("mail", limit=Limit(rate=(5, 0.5)))

            @app.task(queue="mail")
            async def work() -> None:
                begun.append(loop.time())

            await app.open()
            for _ in range(15):
                await app.send(work.job())
            async with running(app):
                await waiting(lambda: settled(app, 0))
            assert len(begun) == 15
            # What is granted at once may begin much later on a busy machine: only the whole stretch says something.
            assert begun[-1] - begun[0] > 0.5

    @case()
    async def test_what_waits_goes_on_when_another_is_cancelled(self, stage: Stage[Any]) -> None:
        first = asyncio.Event()
        done: list[int] = []
        async with self.opened(stage) as app:

            @app.task(limit=Limit(concurrency=1))
            async def work(number: int) -> None:
                if number == 0:
                    first.set()
                    await asyncio.sleep(3_600)
                done.append(number)

            await app.open()
            async with running(app):
                runs = await app.send(work.job(0))
                await asyncio.wait_for(first.wait(), 30)
                others = [await app.send(work.job(number)) for number in range(1, 4)]

                async def held() -> bool:
                    return len(await app.store.jobs(state="parked")) == 3

                await waiting(held)
                assert await app.tasks.cancel(others[0]) == "cancelled"
                assert await app.tasks.cancel(runs) == "cancelling"
                await waiting(lambda: none_left(app))
            assert sorted(done) == [2, 3]

    @case()
    async def test_limits_that_make_no_sense_are_refused(self, stage: Stage[Any]) -> None:
        async with self.opened(stage) as app:

            async def work(number: int) -> None: ...

            for wrong in (
                Limit(),
                Limit(concurrency=0),
                Limit(rate=(0, 1.0)),
                Limit(rate=(10_000, 60.0)),
                Limit(rate=(1, 0.0)),
                Limit(concurrency=1, by="other"),
            ):
                with refused(ConfigurationError):
                    app.task(limit=wrong)(work)
            with refused(ConfigurationError):
                app.tasks.queue("mail", limit=Limit(concurrency=1, by="number"))
