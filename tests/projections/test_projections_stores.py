"""Projections on each of the stores."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest
from life import Life


class TestOnMemory(Life):
    def url(self, place: Path) -> str:
        return f"memory://{place}"


class TestOnSqlite(Life):
    def url(self, place: Path) -> str:
        return f"sqlite:///{place}/bank.db"


class TestOnPostgres(Life):
    server = ""

    @pytest.fixture(autouse=True)
    def _server(self, postgres_url: str) -> None:
        type(self).server = postgres_url

    def url(self, place: Path) -> str:
        return f"{self.server}?schema=p_{sha256(str(place).encode()).hexdigest()[:16]}"
