"""Tasks that go wrong in ways of their own: none of it ends the worker, or leaves others waiting."""

from __future__ import annotations

from typing import Any

from eventmill.core.outcome import Snooze
from eventmill.core.retry import NO_RETRY
from eventmill.patterns.tasks.call import group
from eventmill.runtime.transaction import Transaction
from eventmill.testing.conformance.apps import INSERT, effects, running, waiting
from eventmill.testing.conformance.suite import Stage, case
from eventmill.testing.conformance.taskflow import settled
from eventmill.testing.conformance.tasks import TasksOnStage


class SilentError(Exception):
    """Cannot say what it is."""

    def __str__(self) -> str:
        raise ValueError("no text")


class TaskMishapCases(TasksOnStage):
    """Exceptions that cannot be told or stored, values that are none, groups within groups."""

    @case()
    async def test_whatever_is_raised_becomes_a_dead_letter(self, stage: Stage[Any]) -> None:
        async with self.opened(stage) as app:

            @app.task(retry=NO_RETRY)
            async def odd(number: int, tx: Transaction) -> object:
                match number:
                    case 0:
                        raise SilentError
                    case 1:
                        raise ValueError("half a pair: \ud800, and \x00")
                    case 2:
                        return Snooze("5")  # type: ignore[arg-type]
                    case 3:
                        raise SystemExit(1)
                await tx.execute(INSERT, ("odd", "", number))
                return None

            @app.task(retry=NO_RETRY)
            def stopping() -> None:
                raise StopIteration(7)

            await app.open()
            for number in range(5):
                await app.send(odd.job(number))
            await app.send(stopping.job())
            async with running(app):
                await waiting(lambda: settled(app, 5))
            assert [effect.number for effect in await effects(app)] == [4]
            told = sorted(job.errors[-1].error for job in await app.store.jobs(state="dead"))
            assert [text.partition(" (")[0] for text in told] == [
                "ConfigurationError: Snooze: seconds='5'; give seconds as a number",
                "RuntimeError: StopIteration: 7",
                "SilentError: its text cannot be told: ValueError in its __str__",
                "SystemExit: 1",
                "ValueError: half a pair: \\ud800, and \\x00",
            ]

    @case()
    async def test_a_group_may_be_of_groups(self, stage: Stage[Any]) -> None:
        async with self.opened(stage) as app:

            @app.task()
            async def note(what: str, number: int, tx: Transaction) -> None:
                await tx.execute(INSERT, (what, "", number))

            def parts(first: int) -> list[Any]:
                return [note.job("part", number) for number in range(first, first + 3)]

            await app.open()
            inner = [group(*parts(10 * number)).then(note.job("inner", number)) for number in range(3)]
            await app.send(group(*inner, note.job("part", 99), group(group(*parts(50)))).then(note.job("whole", 1)))
            async with running(app):
                await waiting(lambda: settled(app, 0))
            found = [(effect.reader, effect.number) for effect in await effects(app)]
            assert found[-1] == ("whole", 1), "after all of them, and once"
            assert sorted(found[:-1]) == [("inner", number) for number in range(3)] + sorted(
                ("part", number) for first in (0, 10, 20, 50) for number in range(first, first + 3)
            ) + [("part", 99)]
            assert not [each.key for each in await app.store.documents("") if "/group/" in each.key]
