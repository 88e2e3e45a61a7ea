"""What can be wrong with an SQLite file, and what to do about each of it."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from eventmill.backends.sqlite import schema
from eventmill.backends.sqlite.connection import connect
from eventmill.core.errors import ConfigurationError

LARGE_WAL = 256 << 20
SCARCE = 64 << 20
"""Bytes of free space under which the next checkpoint or sort may fail."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. remedy: what to do, empty where all is well."""

    level: Literal["ok", "warning", "error"]
    about: str
    text: str
    remedy: str = ""


def sqlite_version(version: tuple[int, int, int]) -> Finding:
    """Whether this SQLite can corrupt a file when a checkpoint races a reset of the WAL.

    Fixed in 3.51.3, and in the branches by 3.44.6 and 3.50.7; the fault came with WAL in 3.7.0.
    """
    text = f"SQLite {'.'.join(map(str, version))}"
    mended = (3, 44, 6) <= version < (3, 45, 0) or (3, 50, 7) <= version < (3, 51, 0)
    if (3, 7, 0) <= version <= (3, 51, 2) and not mended:
        return Finding(
            "warning",
            "sqlite",
            f"{text} has the WAL-reset fault: two connections that write and checkpoint at once can corrupt the file",
            "eventmill checkpoints only while it holds the write lock, which avoids it; let no other program write to "
            "the file, or use Python with SQLite 3.51.3, 3.50.7 or 3.44.6",
        )
    return Finding("ok", "sqlite", text)


def file_findings(path: Path) -> Iterator[Finding]:
    """What the file system says: permissions, space, the size of the WAL."""
    status = path.stat()
    mode = stat.filemode(status.st_mode)
    if not os.access(path, os.R_OK | os.W_OK) or not os.access(path.parent, os.W_OK):
        yield Finding(
            "error",
            "permissions",
            f"{mode}: this user may not write to the file or its folder",
            f"run as the owner, or chown the file; SQLite also needs to create {path.name}-wal beside it",
        )
    elif status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        yield Finding("warning", "permissions", f"{mode}: others may write to the file", f"chmod go-w {path}")
    elif status.st_mode & stat.S_IROTH:
        yield Finding("warning", "permissions", f"{mode}: every user of this machine may read it", f"chmod o-r {path}")
    else:
        yield Finding("ok", "permissions", mode)
    yield _space(path, status.st_size)
    yield _wal(path)


def _space(path: Path, size: int) -> Finding:
    free = shutil.disk_usage(path.parent).free
    text = f"{_size(free)} free, the file has {_size(size)}"
    if free < SCARCE:
        return Finding("error", "space", text, "free some space now: commits fail when there is none")
    if free < size:
        return Finding("warning", "space", f"{text}: a copy or VACUUM has no room", "free some space, or trim topics")
    return Finding("ok", "space", text)


def _wal(path: Path) -> Finding:
    wal = path.with_name(f"{path.name}-wal")
    size = wal.stat().st_size if wal.exists() else 0
    if size > LARGE_WAL:
        return Finding(
            "warning",
            "wal",
            f"the write-ahead log has {_size(size)}: a long reader or a stopped process holds its checkpoint back",
            f"end long read transactions; `lsof {path}` names the processes that have the file open",
        )
    return Finding("ok", "wal", _size(size))


def database_findings(path: Path) -> Iterator[Finding]:
    """What SQLite says: whether it is ours, whether it is sound, whether it is in WAL mode."""
    connection = connect(str(path), readonly=True)
    try:
        connection.execute("PRAGMA busy_timeout = 5000")
        try:
            broken = [row[0] for row in connection.execute("PRAGMA quick_check(5)") if row[0] != "ok"]
        except sqlite3.DatabaseError as error:
            broken = [str(error)]
        if broken:
            yield Finding(
                "error",
                "integrity",
                "; ".join(broken),
                "stop all processes, keep a copy of the file with its -wal, and restore a backup or try `sqlite3 .recover`",
            )
            return
        yield Finding("ok", "integrity", "quick_check found nothing")
        mode = connection.execute("PRAGMA journal_mode").fetchone()[0]
        if mode == "wal":
            yield Finding("ok", "journal", "wal")
        else:
            remedy = "open it once with its App, which sets WAL; readers and the writer block each other until then"
            yield Finding("warning", "journal", f"journal_mode is {mode}, not wal", remedy)
        try:
            schema.check(connection, path.name)
        except ConfigurationError as error:
            remedy = "run the eventmill that wrote it, or open it with its App to bring it up to date"
            yield Finding("error", "schema", str(error), remedy)
        else:
            yield Finding("ok", "schema", f"version {max(schema.applied(connection))}")
    finally:
        connection.close()


def newest_of_each_type(path: Path) -> dict[str, tuple[int, int]]:
    """Each event type in the log with how many there are and the position of the newest."""
    connection = connect(str(path), readonly=True)
    try:
        connection.execute("PRAGMA busy_timeout = 5000")
        rows = connection.execute("SELECT type, count(*), max(position) FROM eventmill_log GROUP BY type").fetchall()
    finally:
        connection.close()
    return {name: (number, position) for name, number, position in rows}


def _size(number: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1_000:
            return f"{number:.0f} {unit}"
        number /= 1_000
    return f"{number:.1f} TB"
