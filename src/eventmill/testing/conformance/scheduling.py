"""Schedules: each moment fires once, whatever operators say and however many look after it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import msgspec

from eventmill.app import App
from eventmill.core.errors import ConfigurationError
from eventmill.patterns.tasks.context import TaskContext
from eventmill.patterns.tasks.schedules import Plan
from eventmill.patterns.tasks.timing import Timing
from eventmill.runtime.transaction import Transaction
from eventmill.testing.conformance.apps import INSERT, effects, running, waiting
from eventmill.testing.conformance.limiting import LimitCases
from eventmill.testing.conformance.mishaps import TaskMishapCases
from eventmill.testing.conformance.suite import Stage, case, refused
from eventmill.testing.conformance.taskflow import TaskFlowCases
from eventmill.testing.conformance.tasks import TaskCases, TasksOnStage

YEARLY = "0 0 1 1 *"


async def fires(app: App) -> list[int]:
    return sorted(number for _, _, number in await effects(app))


def scheduled(app: App, **timing: Any) -> None:
    """A task that notes, in seconds, the moment each fire of it was meant for."""

    @app.schedule(**timing)
    @app.task()
    async def tick(tx: Transaction, context: TaskContext) -> None:
        assert context.fire is not None
        await tx.execute(INSERT, ("tick", context.id, int(context.fire.timestamp() * 10) % 10**9))


async def plan_of(app: App) -> Plan:
    (plan,) = await app.tasks.schedules.list()
    return plan


class ScheduleCases(TasksOnStage):
    """What a schedule may be counted on for."""

    @case(shared=True)
    async def test_each_moment_fires_once_however_many_look(self, stage: Stage[Any]) -> None:
        async with self.opened(stage) as one, self.opened(stage) as two, self.opened(stage) as three:
            for app in (one, two, three):
                scheduled(app, every=0.2)
            async with running(one, two, three):
                await waiting(lambda: enough(one, 6))
            found = await fires(one)
            assert found == list(range(found[0], found[0] + 2 * len(found), 2)), "every one, and once"

    @case()
    async def test_operators_pause_edit_and_run_now(self, stage: Stage[Any]) -> None:
        async with self.opened(stage) as app:
            scheduled(app, cron=YEARLY)
            async with running(app):
                await waiting(lambda: registered(app))
                first = await plan_of(app)
                assert datetime.fromtimestamp(first.next / 1000, UTC).timetuple()[1:5] == (1, 1, 0, 0)
                schedules = app.tasks.schedules
                sent = await schedules.run_now("tick")
                await waiting(lambda: enough(app, 1))
                assert [key for _, key, _ in await effects(app)] == [sent]
                assert (await plan_of(app)).next == first.next
                await schedules.pause("tick")
                await schedules.edit("tick", Timing(every=0.1))
                await asyncio.sleep(0.7)
                assert len(await effects(app)) == 1
                await schedules.resume("tick")
                await waiting(lambda: enough(app, 3))
                await schedules.edit("tick", None)
                plan = await plan_of(app)
                assert (plan.timing, plan.next, plan.edited) == (first.timing, first.next, False)
                for name, timing in (
                    ("other", None),
                    ("tick", Timing(every=1, cron=YEARLY)),
                    ("tick", Timing(cron="x")),
                ):
                    with refused(ConfigurationError):
                        await schedules.edit(name, timing)

    @case()
    async def test_missed_moments_are_treated_as_declared(self, stage: Stage[Any]) -> None:
        for missed, expected in (("once", 1), ("skip", 0), ("all", 6)):
            async with self.opened(stage) as app:
                scheduled(app, every=1000.0, missed=missed, name=f"s_{missed}")
                schedules = app.tasks.schedules
                await app.open()
                now = int(datetime.now(UTC).timestamp() * 1000)
                await schedules._register(f"s_{missed}")
                async with app.transaction() as tx:
                    plan, version = await schedules._load(tx.unit, f"s_{missed}")
                    # The last of the missed moments may have come just now, which even `skip` takes for its time.
                    plan.next = (now // 1_000_000 - 5) * 1_000_000
                    plan.timing = Timing(every=1000.0, missed=plan.timing.missed, tolerance=0.0)
                    tx.put(f"tasks/conformance/schedule/s_{missed}", _encoded(plan), expected=version)
                await schedules.look()
                jobs = [job for job in await app.store.jobs() if job.message.type == "task.tick"]
                assert len(jobs) == expected, (missed, len(jobs))
                await schedules.look()
                assert len([job for job in await app.store.jobs() if job.message.type == "task.tick"]) == len(jobs)
                async with app.transaction() as tx:
                    tx.put(f"tasks/conformance/schedule/s_{missed}", None)
                for job in jobs:
                    assert await app.tasks.cancel(job.message.id) == "cancelled"

    @case(durable=True)
    async def test_another_declaration_counts_unless_it_was_edited(self, stage: Stage[Any]) -> None:
        for timing, edit, expected in (
            ({"cron": YEARLY}, None, Timing(cron=YEARLY)),
            ({"every": 500.0}, None, Timing(every=500.0)),
            ({"every": 500.0}, Timing(every=7.0), Timing(every=7.0)),
            ({"every": 900.0}, None, Timing(every=7.0)),
        ):
            async with self.opened(stage) as app:
                scheduled(app, **timing)
                await app.open()
                await app.tasks.schedules._register("tick")
                if edit is not None:
                    await app.tasks.schedules.edit("tick", edit)
                assert (await plan_of(app)).timing == expected

    @case()
    async def test_what_never_fires_is_refused(self, stage: Stage[Any]) -> None:
        async with self.opened(stage) as app:

            @app.task()
            async def tick(number: int) -> None: ...

            for wrong in (
                {},
                {"every": 1.0, "cron": YEARLY},
                {"every": 0.0},
                {"cron": "61 * * * *"},
                {"cron": YEARLY, "tz": "Mars/Olympus"},
                {"every": 1.0, "missed": "never"},
            ):
                with refused(ConfigurationError):
                    app.schedule(**wrong, arguments={"number": 1})(tick)
            with refused(ConfigurationError):
                app.schedule(every=1.0)(tick.function)  # type: ignore[arg-type]


def _encoded(plan: Plan) -> bytes:
    return msgspec.json.encode(plan)


async def enough(app: App, number: int) -> bool:
    return len(await effects(app)) >= number


async def registered(app: App) -> bool:
    return bool(await app.tasks.schedules.list())


class TaskConformance(TaskCases, TaskFlowCases, TaskMishapCases, ScheduleCases, LimitCases):
    """Tasks, their limits, and schedules. Bind it to a store; a binding defines `app`."""
