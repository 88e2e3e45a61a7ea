"""Tasks that are unique, cancelled, paused, chained, grouped, and that leave results."""

from __future__ import annotations

import asyncio
from typing import Any

from eventmill.app import App
from eventmill.core.errors import ConfigurationError, DuplicateTaskError
from eventmill.core.retry import NO_RETRY, fixed
from eventmill.patterns.tasks.call import group
from eventmill.patterns.tasks.context import TaskContext
from eventmill.patterns.tasks.unique import Unique
from eventmill.runtime.transaction import Transaction
from eventmill.testing.conformance.apps import INSERT, effects, running, waiting
from eventmill.testing.conformance.suite import Stage, case, refused
from eventmill.testing.conformance.tasks import TasksOnStage, count_dead, none_left

LATER = 3_600.0


async def written(app: App) -> list[int]:
    return sorted(number for _, _, number in await effects(app))


async def documents(app: App) -> list[str]:
    return [each.key for each in await app.store.documents("")]


class TaskFlowCases(TasksOnStage):
    """More than one task at a time, and what is said to them."""

    # Unique

    @case()
    async def test_a_unique_task_is_there_once_until_it_is_done(self, stage: Stage[Any]) -> None:
        async with self.opened(stage) as app:

            @app.task(unique="number")
            async def book(number: int, tx: Transaction, text: str = "") -> None:
                await tx.execute(INSERT, ("book", text, number))

            await app.open()
            first = await app.send(book.job(1), after=LATER)
            assert await app.send(book.job(1, text="other")) == first
            other = await app.send(book.job(2), after=LATER)
            assert other != first
            async with app.transaction() as tx:
                assert await app.send(book.job(1)) == first
                tx.send(book.job(1))
                tx.send(book.job(3))
                tx.send(book.job(3))
            with refused(ZeroDivisionError):
                async with app.transaction() as tx:
                    tx.send(book.job(4))
                    raise ZeroDivisionError
            assert len(await app.store.jobs()) == 3
            for id_ in (first, other):
                assert await app.tasks.run_now(id_)
            async with running(app):
                await waiting(lambda: none_left(app))
                await app.send(book.job(1))
                await waiting(lambda: none_left(app))
            assert await written(app) == [1, 1, 2, 3]
            assert await documents(app) == []

    @case()
    async def test_repeats_are_refused_where_the_task_says_so(self, stage: Stage[Any]) -> None:
        async with self.opened(stage) as app:

            @app.task(unique=Unique(repeat="refuse"), retry=NO_RETRY)
            async def book(number: int, tx: Transaction) -> None:
                raise ValueError("no")

            await app.open()
            first = await app.send(book.job(1))
            with refused(DuplicateTaskError) as caught:
                await app.send(book.job(1))
            assert caught.error.existing == first
            with refused(DuplicateTaskError):
                async with app.transaction() as tx:
                    await tx.execute(INSERT, ("sender", "", 9))
                    tx.send(book.job(1))
            assert await written(app) == []
            async with running(app):
                await waiting(lambda: count_dead(app, 1))
            assert await app.send(book.job(1)) != first, "a dead one does not stand in the way"
            for wrong in ("total", "tx"):
                with refused(ConfigurationError):
                    app.task(unique=wrong, name=f"wrong_{wrong}")(book.function)

    @case()
    async def test_one_more_may_wait_while_a_unique_task_runs(self, stage: Stage[Any]) -> None:
        begun, go = asyncio.Event(), asyncio.Event()
        async with self.opened(stage) as app:

            @app.task(unique=Unique(until="begun"))
            async def tidy() -> None:
                begun.set()
                await go.wait()

            await app.open()
            first = await app.send(tidy.job())
            assert await app.send(tidy.job()) == first
            async with running(app):
                await begun.wait()
                second = await app.send(tidy.job(), after=LATER)
                assert second != first
                assert await app.send(tidy.job()) == second
                assert await app.tasks.cancel(second) == "cancelled"
                go.set()
                await waiting(lambda: none_left(app))
            assert await documents(app) == []

    @case(shared=True)
    async def test_of_many_senders_at_once_one_wins(self, stage: Stage[Any]) -> None:
        async with self.opened(stage) as one, self.opened(stage) as two:
            sent = []
            for app in (one, two):

                @app.task(unique=True)
                async def book(number: int) -> None: ...

                await app.open()
                sent.append(book)
            ids = await asyncio.gather(
                *(app.send(book.job(1)) for _ in range(10) for app, book in zip((one, two), sent, strict=True))
            )
            assert len(set(ids)) == 1
            assert len(await one.store.jobs()) == 1

    # Cancelling

    @case()
    async def test_a_task_is_cancelled_in_every_state(self, stage: Stage[Any]) -> None:
        begun = asyncio.Event()
        ends: list[str] = []
        async with self.opened(stage) as app:

            @app.task(retry=fixed(LATER), keep=60)
            async def work(kind: str, tx: Transaction) -> None:
                if kind == "fails":
                    await tx.execute(INSERT, (kind, "", 1))
                    raise ValueError("no")
                begun.set()
                try:
                    await asyncio.sleep(LATER)
                finally:
                    ends.append(kind)

            await app.open()
            waits = await app.send(work.job("waits"), after=LATER)
            fails = await app.send(work.job("fails"))
            assert await app.tasks.cancel(waits) == "cancelled"
            assert await app.tasks.cancel(waits) == "unknown"
            async with running(app):

                async def failed() -> bool:
                    report = await app.tasks.report(fails)
                    return report is not None and report.attempt == 1 and report.state == "waiting"

                await waiting(failed)
                assert await app.tasks.cancel(fails) == "cancelled"
                runs = await app.send(work.job("runs"))
                await asyncio.wait_for(begun.wait(), 30)
                assert await app.tasks.cancel(runs) == "cancelling"
                assert (await app.tasks.result(runs, 30)).state == "cancelled"
                assert ends == ["runs"]
                last = await app.send(work.job("fails"))
                await waiting(failed_again(app, last))
            assert await effects(app) == []
            for id_ in (waits, fails, runs):
                report = await app.tasks.report(id_)
                assert report is not None
                assert report.state == "cancelled"
            assert not [key for key in await documents(app) if "/control/cancel/" in key]

    # Queues

    @case()
    async def test_a_queue_is_paused_resumed_and_scaled(self, stage: Stage[Any]) -> None:
        at_once: list[int] = [0, 0]
        async with self.opened(stage) as app:
            app.tasks.queue("narrow", concurrency=1)

            @app.task(queue="narrow")
            async def work() -> None:
                at_once[0] += 1
                at_once[1] = max(at_once)
                await asyncio.sleep(0.02)
                at_once[0] -= 1

            await app.tasks.pause("narrow")
            for _ in range(5):
                await app.send(work.job())
            async with running(app):
                await asyncio.sleep(0.3)
                assert len(await app.store.jobs()) == 5, "nothing begins while it is paused"
                await app.tasks.resume("narrow")
                await waiting(lambda: none_left(app))
                assert at_once[1] == 1
                await app.tasks.scale("narrow", concurrency=4)
                await asyncio.sleep(1.1)
                async with app.transaction() as tx:
                    for _ in range(40):
                        tx.send(work.job())
                await waiting(lambda: none_left(app))
                assert 2 <= at_once[1] <= 4
            for wrong in (0, -1):
                with refused(ConfigurationError):
                    await app.tasks.scale("narrow", concurrency=wrong)

    # Results

    @case()
    async def test_results_and_progress_are_kept_for_a_while(self, stage: Stage[Any]) -> None:
        go = asyncio.Event()
        async with self.opened(stage) as app:

            @app.task(keep=1.0, retry=NO_RETRY)
            async def add(numbers: list[int], context: TaskContext) -> dict[str, int]:
                context.progress(1, 2, "adding")
                await go.wait()
                return {"sum": sum(numbers)}

            @app.task(retry=NO_RETRY)
            async def silent(context: TaskContext) -> None:
                context.progress(1)

            @app.task(keep=60, retry=NO_RETRY)
            async def unwritable() -> object:
                return object()

            await app.open()
            sent = await app.send(add.job([1, 2]))
            report = await app.tasks.report(sent)
            assert report is not None
            assert (report.state, report.task) == ("waiting", "add")
            async with running(app):

                async def told() -> bool:
                    report = await app.tasks.report(sent)
                    return report is not None and (report.state, report.done, report.total) == ("running", 1, 2)

                await waiting(told)
                go.set()
                report = await app.tasks.result(sent, 30)
                assert (report.state, report.result) == ("done", {"sum": 3})
                await app.send(silent.job())
                bad = await app.send(unwritable.job())
                assert "JSON" in (await app.tasks.result(bad, 30)).error

                async def forgotten() -> bool:
                    return await app.tasks.report(sent) is None

                await waiting(forgotten)
            dead = await app.store.jobs(state="dead")
            assert any("keep=" in job.errors[0].error for job in dead)

    # What follows

    @case()
    async def test_a_chain_goes_on_with_each_end(self, stage: Stage[Any]) -> None:
        async with self.opened(stage) as app:

            @app.task(retry=fixed(0.01))
            async def step(number: int, tx: Transaction, context: TaskContext) -> None:
                await tx.execute(INSERT, ("step", "", number))
                if context.attempt == 1:
                    raise ValueError("at the second attempt it works")

            await app.open()
            await app.send(step.job(1).then(step.job(2)).then(step.job(3)))
            async with running(app):
                await waiting(lambda: none_left(app))
            assert [number for _, _, number in await effects(app)] == [1, 2, 3]

    @case()
    async def test_the_end_of_a_group_starts_the_next_once(self, stage: Stage[Any]) -> None:
        async with self.opened(stage) as app:

            @app.task(retry=fixed(0.01))
            async def part(number: int, tx: Transaction, context: TaskContext) -> None:
                await tx.execute(INSERT, ("part", "", number))
                if context.attempt == 1 and number % 3 == 0:
                    raise ValueError("at the second attempt it works")

            @app.task()
            async def whole(number: int, tx: Transaction) -> None:
                rows = await tx.execute("SELECT count(*) FROM effects WHERE reader = 'part'")
                await tx.execute(INSERT, ("whole", str(rows[0][0]), number))

            await app.open()
            inner = group(part.job(20), part.job(21))
            async with app.transaction() as tx:
                tx.send(group(*(part.job(number) for number in range(20))).then(inner).then(whole.job(100)))
            chains = [part.job(30 + number).then(part.job(40 + number)) for number in range(3)]
            async with running(app):
                await waiting(lambda: none_left(app))
                await app.send(group(*chains).then(whole.job(101)))
                await waiting(lambda: none_left(app))
            found = [effect for effect in await effects(app) if effect.reader == "whole"]
            assert found == [("whole", "22", 100), ("whole", "28", 101)]
            assert await documents(app) == []

    @case()
    async def test_a_group_waits_for_its_dead_or_goes_on_without(self, stage: Stage[Any]) -> None:
        healed: list[bool] = []
        async with self.opened(stage) as app:

            @app.task(retry=NO_RETRY)
            async def part(number: int) -> None:
                if number == 0 and not healed:
                    raise ValueError("not healed")

            @app.task()
            async def whole(number: int, tx: Transaction) -> None:
                await tx.execute(INSERT, ("whole", "", number))

            await app.open()
            parts = [part.job(number) for number in range(3)]
            await app.send(group(*parts).then(whole.job(1)))
            await app.send(group(*parts).then(whole.job(2), always=True))
            async with running(app):
                await waiting(lambda: settled(app, 2))
                assert await written(app) == [2]
                healed.append(True)
                await app.store.replay([job.id for job in await app.store.jobs(state="dead")])
                await waiting(lambda: settled(app, 0))
            assert await written(app) == [1, 2]
            assert not [key for key in await documents(app) if "/group/" in key]


def failed_again(app: App, identity: str) -> Any:
    async def failed() -> bool:
        report = await app.tasks.report(identity)
        return report is not None and report.attempt == 1 and report.state == "waiting"

    return failed


async def settled(app: App, dead: int) -> bool:
    """Nothing is left but so many dead ones, and what expires later."""
    jobs = [job for job in await app.store.jobs() if job.message.type != "task.eventmill.expire"]
    return len(jobs) == dead and all(job.state == "dead" for job in jobs)
