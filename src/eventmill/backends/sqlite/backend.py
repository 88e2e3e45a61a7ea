"""SQLite as a whole: Publisher, Log and Store on one file."""

from __future__ import annotations

from eventmill.backends.sqlite.groups import SqliteGroups
from eventmill.backends.sqlite.jobs import SqliteJobs
from eventmill.backends.sqlite.log import SqliteLog


class SqliteBackend(SqliteLog, SqliteGroups, SqliteJobs):
    """Every capability on one SQLite file, shared by any number of processes of one machine."""
