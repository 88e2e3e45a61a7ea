"""The store of a service that has a broker: a file of the round, or a schema of the round on PostgreSQL."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

POSTGRES = "EVENTMILL_TEST_POSTGRES"


@dataclass(frozen=True, slots=True)
class Kind:
    """concurrency: keys at a time that a handler is given: what the store needs to share its commits well."""

    name: str
    concurrency: int

    def url(self, place: Path, service: str) -> str:
        if self.name == "SQLite":
            return f"sqlite:///{place}/{service}.db"
        server = os.environ.get(POSTGRES)
        if server is None:
            raise SystemExit(f"{POSTGRES} is not set: scripts/servers start postgres, then read .servers/env")
        schema = "".join(letter if letter.isalnum() else "_" for letter in f"{place.name}_{service}".lower())
        return f"{server}?schema={schema}"


SQLITE = Kind("SQLite", 8)
POSTGRESQL = Kind("PostgreSQL", 256)
