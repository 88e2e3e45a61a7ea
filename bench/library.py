"""The `eventsourcing` library on SQLite, where it is installed: the same appends."""

from __future__ import annotations

import os
from pathlib import Path
from uuid import uuid4

from bench.rounds import Stopwatch, Work


def append(place: Path, count: int) -> Work:
    """One event an append, each under the version it is expected at."""
    from eventsourcing.persistence import StoredEvent  # type: ignore[import-not-found]
    from eventsourcing.sqlite import SQLiteApplicationRecorder, SQLiteDatastore  # type: ignore[import-not-found]

    datastore = SQLiteDatastore(os.fspath(place / "library.db"))
    recorder = SQLiteApplicationRecorder(datastore)
    recorder.create_table()
    stream = uuid4()
    with Stopwatch(count) as watch:
        for number in range(count):
            data = b'{"basket":"b0","product":"product-%d","quantity":%d}' % (number % 50, number)
            recorder.insert_events([StoredEvent(stream, number + 1, "basket.line-added", data)])
    datastore.close()
    return watch.work
