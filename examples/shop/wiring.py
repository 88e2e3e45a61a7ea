"""The only file that names backends: one database a service, and the broker between them; and who leads a checkout.

Taken from the environment, so that the demo and its workers agree:

    EVENTMILL_SHOP          folder of the database files (default: where the process runs)
    EVENTMILL_SHOP_STORE    URL of the services' databases; `{service}` in it becomes each one's name
    EVENTMILL_SHOP_BROKER   URL of the broker
    EVENTMILL_SHOP_LEASE    seconds
    EVENTMILL_SHOP_SAGA     how a checkout is held together: orchestrated (default) or choreographed
    EVENTMILL_SHOP_PROVIDER host:port of the payment provider
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol, runtime_checkable
from urllib.parse import parse_qsl, urlsplit

from eventmill import App
from eventmill.backends.connect import connect
from eventmill.settings import Settings

FOLDER = Path(os.environ.get("EVENTMILL_SHOP", ".")).absolute()
STORE = os.environ.get("EVENTMILL_SHOP_STORE", f"sqlite:///{FOLDER}/{{service}}.db")
BROKER = os.environ.get("EVENTMILL_SHOP_BROKER", STORE.replace("{service}", "broker"))
SETTINGS = Settings(lease=float(os.environ.get("EVENTMILL_SHOP_LEASE", "10")))

CHOREOGRAPHED = os.environ.get("EVENTMILL_SHOP_SAGA", "orchestrated") == "choreographed"
"""Whether the services react to each other's events in a checkout; otherwise a saga of the order service commands them."""

PROVIDER = os.environ.get("EVENTMILL_SHOP_PROVIDER", "127.0.0.1:8700")

_SCHEMA = dict(parse_qsl(urlsplit(STORE).query)).get("schema", "{service}")
LEGACY_SCHEMA = None if STORE.startswith("sqlite") else _SCHEMA.replace("{service}", "legacy")
"""Where the customer administration has its tables: on PostgreSQL a schema of the same database, else a file of its own."""

LEGACY_SOURCE = f"sqlite:///{FOLDER}/legacy.db" if STORE.startswith("sqlite") else STORE.partition("?")[0]
LEGACY = LEGACY_SOURCE.replace("postgresql://", "postgresql+psycopg://").replace("postgres://", "postgresql+psycopg://")
"""The same for SQLAlchemy."""

LEGACY_TABLES = {
    name: name if LEGACY_SCHEMA is None else f"{LEGACY_SCHEMA}.{name}" for name in ("contact", "account", "address")
}

CRM = "crm" if LEGACY_SCHEMA is None else f"crm_{_SCHEMA.replace('_{service}', '')}"
"""The capture's name: part of what a server keeps for it, so no other shop's on that server."""

NUMBER = (
    "n INTEGER PRIMARY KEY AUTOINCREMENT"
    if STORE.startswith("sqlite")
    else "n BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY"
)
"""The column that counts a ledger's lines: the one thing in which SQLite's and PostgreSQL's SQL differ here."""


CUT = (
    None
    if STORE.startswith("sqlite")
    else "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid() AND random() < ?"
)
"""What cuts a share of all connections to the databases, for the demo's chaos."""


def service(name: str) -> App:
    """The application of one service, with its own store, on the common broker."""
    place = name if STORE.startswith("sqlite") else name.replace("-", "_")
    return App(STORE.replace("{service}", place), broker=BROKER, name=name, settings=SETTINGS)


async def forget(app: App) -> None:
    """Drop an open service's database, where it is not a file that goes with its folder."""
    if not STORE.startswith("sqlite"):
        await _drop_schema(app)


async def forget_broker(apps: Sequence[App]) -> None:
    """Remove what the closed shop has left in a broker that is a server: topics, queues, exchanges; or its schema."""
    broker = connect(BROKER)
    if isinstance(broker, Removable):
        async with broker:
            for app in apps:
                for consumer in app.consumers:
                    await broker.dismiss(consumer.group)
            await broker.remove()
    elif not BROKER.startswith("sqlite"):
        async with App(BROKER, name="broker") as app:
            await _drop_schema(app)


async def _drop_schema(app: App) -> None:
    async with app.transaction() as tx:
        [(schema,)] = await tx.execute("SELECT current_schema()")
        await tx.execute(f'DROP SCHEMA "{schema}" CASCADE')


@runtime_checkable
class Removable(Protocol):
    """A broker whose topics can be removed together."""

    async def __aenter__(self) -> object: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    async def dismiss(self, group: str) -> None: ...

    async def remove(self) -> None: ...
