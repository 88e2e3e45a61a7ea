"""Where the server is, and how to talk to it: a URL, checked."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import unquote

from eventmill.backends.url import Url

TLS = ("sslmode", "sslrootcert", "sslcert", "sslkey", "sslpassword", "sslcrl", "channel_binding")
_SCHEMA = re.compile(r"^[a-z_][a-z0-9_]{0,62}$")
_HOST_CHARACTERS = re.compile(r"^[A-Za-z0-9._:,\-\[\]%/@]*$")

APPLICATION = "eventmill"

ATTEMPT = 5
"""Seconds for one attempt to connect to one host."""


@dataclass(frozen=True, slots=True)
class Address:
    """What `PostgresBackend` is opened with. Neither str nor repr shows a secret.

    parameters: what libpq is given. schema: where eventmill's tables are, and where unqualified names of the user's
    statements are looked for first; None where the URL leaves it to the server's own search path (tables in public).
    pool: connections at most for the caller's own transactions. patience: seconds to wait for a server that is away.
    prepare: whether statements may be prepared, which some poolers do not bear.
    """

    shown: str
    parameters: dict[str, str | int] = field(repr=False)
    schema: str | None = None
    pool: int = 10
    patience: float = 30.0
    synchronous_commit: str | None = None
    prepare: bool = True

    def __str__(self) -> str:
        return self.shown

    @property
    def quoted(self) -> str:
        """The schema's name as SQL."""
        return f'"{self.schema or "public"}"'

    @classmethod
    def from_url(cls, url: Url) -> Self:
        """Raises ConfigurationError for anything it does not know."""
        url.allow("schema", "pool", "connect_timeout", "synchronous_commit", "prepare", "host", *TLS)
        schema = url.get("schema")
        if schema is not None and not _SCHEMA.match(schema):
            raise url.refusal(f"schema={schema!r}; use small letters, digits and _, beginning with a letter")
        database = unquote(url.path.lstrip("/"))
        if not database or "/" in database:
            raise url.refusal("name one database: postgresql://user@host:5432/database")
        parameters: dict[str, str | int] = {
            "dbname": database,
            "application_name": APPLICATION,
            "client_encoding": "UTF8",
            # A connection whose other end is gone is noticed, whether something is under way on it or not.
            "keepalives": 1,
            "keepalives_idle": 5,
            "keepalives_interval": 2,
            "keepalives_count": 3,
            "tcp_user_timeout": 8000,
            "connect_timeout": ATTEMPT,
        }
        parameters.update(_hosts(url))
        if url.user is not None:
            parameters["user"] = url.user
        if url.password is not None:
            parameters["password"] = url.password
        for name in TLS:
            value = url.get(name)
            if value is not None:
                parameters[name] = value
        given = url.get("synchronous_commit")
        return cls(
            str(url),
            parameters,
            schema=schema,
            pool=url.number("pool", 10, most=1000),
            patience=url.seconds("connect_timeout", 30.0),
            synchronous_commit=None if given is None else url.choice("synchronous_commit", ("on", "off"), "on"),
            prepare=url.choice("prepare", ("on", "off"), "on") == "on",
        )


def _hosts(url: Url) -> dict[str, str | int]:
    """Of several hosts, the one that takes writes is connected to, as libpq does."""
    socket = url.get("host")
    if socket is not None:
        port = url.location.lstrip(":")
        if not socket.startswith("/") or (port and not port.isdigit()):
            raise url.refusal("host= is for the folder of a Unix socket: postgresql:///database?host=/run/postgresql")
        return {"host": socket, "port": port or "5432"}
    if not url.location:
        return {}
    if not _HOST_CHARACTERS.match(url.location):
        raise url.refusal("these are no hosts")
    hosts = url.hosts(5432)
    found: dict[str, str | int] = {
        "host": ",".join(host.strip("[]") for host, _ in hosts),
        "port": ",".join(str(port) for _, port in hosts),
    }
    if len(hosts) > 1:
        found["target_session_attrs"] = "read-write"
    return found
