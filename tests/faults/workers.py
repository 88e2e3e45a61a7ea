"""Starting and hurting worker processes, and looking at what they leave."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import mill

import eventmill
from eventmill import outbox

PATIENCE = 90.0
"""Seconds after which something that should have happened counts as never happening."""

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(eventmill.__file__).parents[1])}


class Mill:
    """A folder with the mill's file, and its workers."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.file = place / "mill.db"
        self.workers: list[subprocess.Popen[bytes]] = []
        self.begun_at: dict[int, float] = {}
        self.given: dict[str, list[int]] = {}

    def start(self, *, attempts: int = 3, grace: float = 20.0) -> subprocess.Popen[bytes]:
        with (self.place / "output.txt").open("ab") as output:
            worker = subprocess.Popen(
                [sys.executable, mill.__file__, str(self.place), str(attempts), str(grace)],
                stdout=output,
                stderr=output,
                env=ENVIRONMENT,
            )
        self.workers.append(worker)
        self.begun_at[worker.pid] = time.monotonic()
        return worker

    def give(self, *tasks: mill.Task) -> None:
        """Publish tasks in one transaction of a plain connection."""
        with contextlib.closing(sqlite3.connect(self.file, timeout=PATIENCE)) as connection:
            connection.execute("PRAGMA wal_autocheckpoint = 0")
            connection.execute("BEGIN IMMEDIATE")
            outbox.add(connection, *tasks, source="test")
            connection.commit()
        for task in tasks:
            self.given.setdefault(task.lane, []).append(task.number)

    def query(self, sql: str, *parameters: object) -> list[tuple[object, ...]]:
        with contextlib.closing(sqlite3.connect(self.file, timeout=PATIENCE)) as connection:
            connection.execute("PRAGMA wal_autocheckpoint = 0")
            return connection.execute(sql, parameters).fetchall()

    def done(self) -> int:
        return int(str(self.query("SELECT count(*) FROM done")[0][0]))

    def begun(self) -> list[int]:
        """The numbers of the misbehaving tasks, once for each beginning."""
        file = self.place / "begun"
        return [int(line.split()[0]) for line in file.read_text().splitlines()] if file.exists() else []

    def until(self, condition: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, f"never: {what}\n{self.said()}"
            time.sleep(0.02)

    def until_done(self) -> None:
        total = sum(map(len, self.given.values()))
        self.until(lambda: self.done() >= total, f"{total} done")

    def said(self) -> str:
        return (self.place / "output.txt").read_text(errors="replace")[-6000:]

    def stop(self, worker: subprocess.Popen[bytes]) -> int:
        """SIGTERM; returns the exit code."""
        worker.send_signal(signal.SIGTERM)
        return worker.wait(PATIENCE)

    def end(self) -> None:
        """Stop all that run; they must all say they ended well."""
        running = [worker for worker in self.workers if worker.poll() is None]
        for worker in running:
            worker.send_signal(signal.SIGTERM)
        # One that was still starting has no handler for SIGTERM yet, and nothing in its hands.
        young = [worker for worker in running if time.monotonic() - self.begun_at[worker.pid] < STARTING]
        codes = [worker.wait(PATIENCE) for worker in running]
        assert all(
            code == 0 or (code == -signal.SIGTERM and worker in young)
            for worker, code in zip(running, codes, strict=True)
        ), f"{codes}\n{self.said()}"

    def kill(self) -> None:
        for worker in self.workers:
            if worker.poll() is None:
                worker.send_signal(signal.SIGCONT)
                worker.kill()
            worker.wait()

    def verify(self, *, without: Sequence[tuple[str, int]] = ()) -> None:
        """Every task given was done once and in order of its lane, with one message for it; the file is sound."""
        wanted = {
            lane: [number for number in numbers if (lane, number) not in without]
            for lane, numbers in self.given.items()
        }
        found: dict[str, list[object]] = {lane: [] for lane in wanted}
        for lane, number in self.query("SELECT lane, number FROM done ORDER BY line"):
            found[str(lane)].append(number)
        assert found == wanted
        messages: dict[str, list[object]] = {lane: [] for lane in wanted}
        for lane, number in self.query(
            "SELECT key, json_extract(CAST(data AS TEXT), '$.number') FROM eventmill_log"
            " WHERE type = 'mill.ground' ORDER BY position"
        ):
            messages[str(lane)].append(number)
        assert messages == wanted
        assert self.query("PRAGMA integrity_check") == [("ok",)]
        if not without:
            assert self.query("SELECT state, count(*) FROM eventmill_jobs GROUP BY state") == []


STARTING = 10.0
"""Seconds that a process may take until it listens to signals."""
