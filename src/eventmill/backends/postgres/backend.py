"""PostgreSQL as a whole: Publisher, Log and Store in one schema of a database."""

from __future__ import annotations

from typing import Self

from eventmill.backends.postgres.address import Address
from eventmill.backends.postgres.examination import PostgresExamination
from eventmill.backends.postgres.groups import PostgresGroups
from eventmill.backends.postgres.jobs import PostgresJobs
from eventmill.backends.postgres.log import PostgresLog
from eventmill.backends.postgres.streams import PostgresStreams
from eventmill.backends.url import Url
from eventmill.core.capabilities import Capability
from eventmill.core.clock import Clock


class PostgresBackend(PostgresLog, PostgresStreams, PostgresGroups, PostgresJobs, PostgresExamination):
    """Every capability in one schema of a PostgreSQL database (15 or newer), shared by any number of processes."""

    offers = frozenset(Capability)

    @classmethod
    def from_url(cls, url: Url, clock: Clock, *, readonly: bool = False) -> Self:
        """`postgresql://user:password@host:5432/database`; several `host:port` may stand there, separated by commas.

        Options: `schema=NAME`, `pool=NUMBER`, `connect_timeout=SECONDS`, `synchronous_commit=on|off`,
        `prepare=on|off` (off for poolers that do not bear prepared statements), `host=/folder/of/the/socket`, and
        libpq's for TLS: `sslmode`, `sslrootcert`, `sslcert`, `sslkey`, `sslpassword`, `sslcrl`, `channel_binding`.
        """
        return cls(Address.from_url(url), clock, readonly=readonly)
