"""Tasks that are declared, sent or deployed wrongly."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from eventmill import App, ConfigurationError, Limit, Unique, fixed, group
from eventmill.patterns.tasks import attempts
from eventmill.testing.conformance.apps import running, waiting


async def plain(number: int) -> None: ...


def yielding() -> Iterator[int]:
    yield 1


async def ayielding() -> AsyncIterator[int]:
    yield 1


@pytest.mark.parametrize(
    ("declare", "remedy"),
    [
        (lambda app: app.task(plain), "with parentheses"),
        (lambda app: app.task(retry=3)(plain), "give a policy"),
        (lambda app: app.task(timeout="30")(plain), "seconds as a number"),
        (lambda app: app.task(timeout=timedelta(minutes=1))(plain), "here 60"),
        (lambda app: app.task(keep=True)(plain), "seconds as a number"),
        (lambda app: app.task(keep=float("inf"))(plain), "seconds above 0"),
        (lambda app: app.task(unique=3)(plain), "names of arguments"),
        (lambda app: app.task(unique=Unique(by="text"))(plain), "there are: number"),
        (lambda app: app.task(limit=3)(plain), "Limit"),
        (lambda app: app.task(limit=Limit(rate=3))(plain), "number, seconds"),
        (lambda app: app.task(limit=Limit(rate=(3, 0.0001)))(plain), "0.001"),
        (lambda app: app.task(limit=Limit(concurrency=1.5))(plain), "whole number"),
        (lambda app: app.tasks.queue("mail", concurrency="3"), "whole number"),
        (lambda app: app.task()(yielding), "yields"),
        (lambda app: app.task()(ayielding), "yields"),
        (lambda app: app.task()(object()), "no function"),
        (lambda app: app.schedule(plain), "above @app.task"),
        (lambda app: app.schedule(every=timedelta(minutes=1))(app.task()(noting)), "here 60"),
        (lambda app: app.schedule(cron=5)(app.task()(noting)), "an expression"),
    ],
)
def test_what_is_declared_wrongly_is_refused_with_the_remedy(declare: Callable[[Any], Any], remedy: str) -> None:
    with pytest.raises(ConfigurationError, match=remedy):
        declare(App("memory://", name="wrong"))


async def noting() -> None: ...


@pytest.mark.parametrize("inside", [False, True])
def test_what_is_no_call_is_refused_with_the_remedy(inside: bool) -> None:
    async def case() -> None:
        async with App("memory://", name="wrong") as app:
            task, other = app.task()(plain), App("memory://", name="other").task()(plain)
            for wrong in (task, task(1), None):
                with pytest.raises(ConfigurationError, match=r"task\.job\(…\)|plain\.job\(…\)"):
                    await _send(app, wrong, inside=inside)
            for make in (
                lambda: group(task),
                lambda: group(task.job(1), other.job(1)),
                lambda: task.job(1).then(task),
                lambda: task.job(1).then(other.job(1)),
            ):
                with pytest.raises(ConfigurationError):
                    make()  # type: ignore[no-untyped-call]
            for after in ("1", timedelta(seconds=1), -1, float("nan")):
                with pytest.raises(ConfigurationError, match="after="):
                    await app.send(task.job(1), after=after)  # type: ignore[arg-type]
            with pytest.raises(ConfigurationError, match="datetime"):
                await app.send(task.job(1), at="2030-01-01")  # type: ignore[arg-type]
            for call in (app.tasks.pause, app.tasks.resume):
                with pytest.raises(ConfigurationError, match="there are: default"):
                    await call("nowhere")

    asyncio.run(asyncio.wait_for(case(), 30))


async def _send(app: App, wrong: Any, *, inside: bool) -> None:
    if not inside:
        await app.send(wrong)
        return
    async with app.transaction() as tx:
        tx.send(wrong)


def test_a_task_that_is_known_no_more_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Renamed, with calls waiting: they die, and then free what they held."""
    monkeypatch.setattr(attempts, "UNKNOWN", fixed(0.0, attempts=2))
    ran: list[str] = []

    async def case() -> None:
        app = App("memory://renamed", name="renamed")
        before = app.task(name="old", unique=True)(plain)
        member = app.task(name="member", limit=Limit(concurrency=1))(plain)

        @app.task()
        async def after(what: str) -> None:
            ran.append(what)

        async with app:
            await app.send(before.job(1))
            await app.send(group(member.job(1), member.job(2)).then(after.job("whole"), always=True))
            del app.tasks.by_type["task.old"], app.tasks.by_type["task.member"]
            async with running(app):
                await waiting(lambda: _dead(app, 3))
                assert ran == ["whole"], "the group has gone on without them"
            assert [each.key for each in await app.store.documents("tasks/renamed/unique")] == []
            assert "declare it by the old one, too" in (await app.store.jobs(state="dead"))[0].errors[-1].error

    asyncio.run(asyncio.wait_for(case(), 60))


def test_arguments_of_another_version_wait_for_who_knows_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deployed one process after another: an old worker meets a call of the new code."""
    monkeypatch.setattr(attempts, "UNKNOWN", replace(fixed(0.01, attempts=10_000), never=()))
    ran: list[int] = []

    async def case() -> None:
        app = App("memory://deployed", name="deployed")

        @app.task(name="sum", keep=60)
        async def newer(number: int, more: int) -> None:
            ran.append(number + more)

        @app.task(name="before")
        async def older(number: int) -> None: ...

        async with app:
            sent = await app.send(newer.job(1, 2))
            app.tasks.by_type["task.sum"] = older
            async with running(app):

                async def met() -> bool:
                    report = await app.tasks.report(sent)
                    return report is not None and report.attempt > 1 and "unknown argument `more`" in report.error

                await waiting(met)
                app.tasks.by_type["task.sum"] = newer
                assert (await app.tasks.result(sent, 30)).state == "done"
        assert ran == [3]

    asyncio.run(asyncio.wait_for(case(), 60))


async def _dead(app: App, number: int) -> bool:
    jobs = await app.store.jobs()
    return len(jobs) == number and all(job.state == "dead" for job in jobs)
