"""`def` tasks with a timeout: stopped by killing the process they run in."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import isolated_work
import pytest
from isolated_work import app, forever, quiet, spin, work

from eventmill import App, ConfigurationError, SyncTransaction
from eventmill.patterns.tasks.results import Report
from eventmill.runtime.processes import Processes
from eventmill.testing.conformance.apps import running


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def run(case: Coroutine[Any, Any, None]) -> None:
    async def whole() -> None:
        app._stopped = asyncio.Event()
        app._opening = None
        try:
            async with running(app):
                await case
        finally:
            await app.close()

    asyncio.run(asyncio.wait_for(whole(), 60))


async def ended(call: Any) -> Report:
    return await app.tasks.result(await app.send(call), 30)


def test_results_outcomes_and_errors_come_back() -> None:
    async def case() -> None:
        first, second = [await ended(work.job("result")) for _ in range(2)]
        assert first.result["attempt"] == 1
        assert first.result["key"] == f"work:{first.id}"
        assert first.result["pid"] == second.result["pid"] != os.getpid(), "a process takes one call after another"
        outcomes = await ended(work.job("outcomes"))
        assert outcomes.state == "dead"
        error = await ended(work.job("error"))
        assert error.error.startswith("OwnError: my own")
        dead = [job for job in await app.store.jobs(state="dead") if job.reference == error.id]
        assert "in work" in dead[0].errors[-1].trace, "where it was raised, in the other process"
        assert len(dead[0].errors) == 3
        coded = await ended(work.job("coded"))
        assert coded.error.startswith("CodedError: odd (7)"), "its own words, though it cannot be made anew here"
        sent = await app.send(quiet.job())
        while await app.tasks.report(sent) is not None:
            await asyncio.sleep(0.01)
        assert not [job for job in await app.store.jobs(state="dead") if job.reference == sent]
        dies = await ended(work.job("dies"))
        assert "the process running it ended with code -9" in dies.error
        assert (await ended(work.job("result"))).state == "done", "another process was started"

    run(case())


def test_what_takes_too_long_is_killed(tmp_path: Path) -> None:
    async def case() -> None:
        report = await ended(spin.job(str(tmp_path / "pids")))
        assert "TimeoutError" in report.error
        pids = [int(line) for line in (tmp_path / "pids").read_text().split()]
        assert len(pids) == 2, "an attempt each"
        assert not any(alive(pid) for pid in pids)

    run(case())


def test_cancelling_kills_it(tmp_path: Path) -> None:
    async def case() -> None:
        sent = await app.send(forever.job(str(tmp_path / "pids")))
        while not (tmp_path / "pids").exists():
            await asyncio.sleep(0.01)
        assert await app.tasks.cancel(sent) == "cancelling"
        assert (await app.tasks.result(sent, 30)).state == "cancelled"
        assert not alive(int((tmp_path / "pids").read_text()))

    run(case())


def test_no_process_is_left_behind(tmp_path: Path) -> None:
    async def case() -> None:
        processes = Processes()
        call = asyncio.create_task(
            processes.call(
                forever.place,
                b'{"pids": "%s"}' % str(tmp_path / "p").encode(),
                {"group": "x", "attempt": 1, "idempotency_key": "", "position": None},
                None,
                None,
            )
        )
        while not (tmp_path / "p").exists():
            await asyncio.sleep(0.01)
        call.cancel()
        await asyncio.wait([call])
        await processes.close()
        assert not alive(int((tmp_path / "p").read_text()))

    asyncio.run(asyncio.wait_for(case(), 30))


def test_what_cannot_be_imported_is_refused() -> None:
    other = App("memory://", name="other")

    def local(number: int) -> None: ...

    with pytest.raises(ConfigurationError, match="module level"):
        other.task(timeout=1)(local)
    with pytest.raises(ConfigurationError, match="transaction"):
        other.task(timeout=1)(needs_a_transaction)
    assert isolated_work.work.isolated


def needs_a_transaction(tx: SyncTransaction) -> None: ...
