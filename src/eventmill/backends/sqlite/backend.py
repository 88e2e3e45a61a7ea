"""SQLite as a whole: Publisher, Log and Store on one file."""

from __future__ import annotations

from typing import Self
from urllib.parse import unquote

from eventmill.backends.sqlite.connection import PROFILES
from eventmill.backends.sqlite.groups import SqliteGroups
from eventmill.backends.sqlite.jobs import SqliteJobs
from eventmill.backends.sqlite.log import SqliteLog
from eventmill.backends.sqlite.streams import SqliteStreams
from eventmill.backends.url import Url
from eventmill.core.capabilities import Capability
from eventmill.core.clock import Clock


class SqliteBackend(SqliteLog, SqliteStreams, SqliteGroups, SqliteJobs):
    """Every capability on one SQLite file, shared by any number of processes of one machine."""

    offers = frozenset(Capability)

    @classmethod
    def from_url(cls, url: Url, clock: Clock, *, readonly: bool = False) -> Self:
        """`sqlite:///orders.db` is relative to the current folder, `sqlite:////var/lib/orders.db` absolute.

        Options: `synchronous=full|normal`, `busy_timeout=SECONDS`.
        """
        if url.location or not url.path.strip("/"):
            raise url.refusal("a SQLite URL has three slashes and a file: sqlite:///orders.db")
        url.allow("synchronous", "busy_timeout")
        return cls(
            unquote(url.path[1:]),
            clock,
            synchronous=url.choice("synchronous", tuple(PROFILES), "full"),
            busy_timeout=url.seconds("busy_timeout", 30.0),
            readonly=readonly,
            shared=True,
        )
