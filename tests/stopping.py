"""Stopping a process for a while, as a debugger, or a machine that is moved, would."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import time
from contextlib import closing
from pathlib import Path


def freeze(process: subprocess.Popen[bytes], file: Path | str | None) -> None:
    """SIGSTOP; at a moment at which the process does not hold the SQLite file's write lock, which would stop everybody."""
    while True:
        process.send_signal(signal.SIGSTOP)
        if file is None:
            return
        with closing(sqlite3.connect(file, timeout=0.5)) as connection:
            connection.execute("PRAGMA wal_autocheckpoint = 0")
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                process.send_signal(signal.SIGCONT)
                time.sleep(0.002)
                continue
            connection.rollback()
            return
