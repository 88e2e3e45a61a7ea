"""What the source's user may do: what is missing is said with the statement that gives it."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from cdc_watching import declared, run, watched

from eventmill import ConfigurationError
from eventmill.core.clock import Ids
from eventmill.patterns.cdc.setup import initialise


@pytest.fixture
def user(postgres_url: str) -> Iterator[tuple[str, str]]:
    """A role that may log in and no more, and the URL by which it does."""
    name = f"cdc_{secrets.token_hex(4)}"
    run(postgres_url, f"CREATE ROLE {name} LOGIN PASSWORD 'pw'", "CREATE TABLE t (id integer PRIMARY KEY)")
    at = urlsplit(postgres_url)
    try:
        yield name, at._replace(netloc=f"{name}:pw@{at.hostname}:{at.port}").geturl()
    finally:
        run(postgres_url, f"DROP OWNED BY {name}", f"DROP ROLE {name}")


def test_each_right_that_is_missing_is_named(postgres_url: str, user: tuple[str, str], tmp_path: Path) -> None:
    name, url = user
    store = f"sqlite:///{tmp_path}/w.db"

    async def refused() -> str:
        app, capture = declared(store, url, ["t"])
        async with app:
            with pytest.raises(ConfigurationError) as error:
                await initialise(app.store, capture, app.clock, Ids(app.clock))
            await capture.source.close()
        return str(error.value)

    async def main() -> None:
        assert "GRANT SELECT ON public.t" in await refused()
        run(postgres_url, f"GRANT SELECT ON t TO {name}")
        database = urlsplit(postgres_url).path[1:]
        assert f"permission denied for database {database}" in await refused()
        run(postgres_url, f"GRANT CREATE ON DATABASE {database} TO {name}")
        said = await refused()
        _, told, statement = said.partition("let the tables' owner run: ")
        assert told, said
        run(postgres_url, statement)  # as it is said
        assert f"ALTER ROLE {name} REPLICATION" in await refused()
        run(postgres_url, f"ALTER ROLE {name} REPLICATION")
        async with watched(store, url, ["t"]) as found:
            run(postgres_url, "INSERT INTO t VALUES (1)")
            await found.count(1)
        run(postgres_url, f"ALTER ROLE {name} NOREPLICATION")
        app, _ = declared(store, url, ["t"])
        async with app:
            with pytest.raises(
                ConfigurationError, match=r"replication role to start walsender|permission denied to start WAL"
            ):
                await app.run()

    asyncio.run(main())
