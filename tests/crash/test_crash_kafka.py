"""The same two services around Kafka, killed at the points where it matters that the broker is a server elsewhere."""

from __future__ import annotations

import sys
from pathlib import Path

import circuit
import pytest
from test_crash_matrix import PATH, row_is_message, settled

from eventmill.testing.crash import Crash, outlive

CELLS = [
    Crash("relay.published", 1),
    Crash("relay.published", 3),
    Crash("commit.before", 5),
    Crash("commit.after", 5),
    Crash("commit.after", 9, 0.02),
    Crash("handler.done", 2),
    Crash("handler.done", 7),
    Crash("retry.staged", 1),
    Crash("parked.staged", 1),
    Crash("lease.taken", 1),
    Crash("lease.taken", 2),
    Crash("job.claimed", 1),
    Crash("posting.published", 3),
]


@pytest.mark.timeout(240)
@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_everything_once_and_in_order_over_kafka(
    kafka_server: str, kafka_prefix: str, tmp_path: Path, cell: Crash
) -> None:
    report = outlive(
        [sys.executable, circuit.__file__, str(tmp_path)],
        cell,
        tmp_path,
        times=2 if cell.nth == 1 else 1,
        environment={"PYTHONPATH": PATH, circuit.BROKER: f"{kafka_server}?prefix={kafka_prefix}"},
        after_kill=lambda: row_is_message(tmp_path),
    )
    settled(tmp_path)
    assert report.kills >= 1
