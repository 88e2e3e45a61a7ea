"""A room of its own for a test on a server that many share: a database, a virtual host, a prefix of topics."""

from __future__ import annotations

import base64
import json
import secrets
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import psycopg
from confluent_kafka.admin import AdminClient
from psycopg import sql


def _name() -> str:
    return f"test_{secrets.token_hex(6)}"


@contextmanager
def database(server: str) -> Iterator[str]:
    """The URL of a new, empty database, which is dropped afterwards, whoever is still connected."""
    name = _name()
    _administer(server, sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    try:
        yield urlsplit(server)._replace(path=f"/{name}").geturl()
    finally:
        _free_slots(server, name)
        _administer(server, sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def _free_slots(server: str, name: str) -> None:
    """A database goes with its replication slots, unless one of them is being read."""
    _administer(
        server,
        sql.SQL(
            "SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots"
            " WHERE database = {} AND active_pid IS NOT NULL"
        ).format(sql.Literal(name)),
    )


def _administer(server: str, statement: sql.Composed) -> None:
    with psycopg.connect(server, autocommit=True, connect_timeout=10) as connection:
        connection.execute(statement)


@contextmanager
def virtual_host(server: str, management: str) -> Iterator[str]:
    """The URL of a new virtual host, which is removed afterwards with its queues and connections."""
    name = _name()
    manage(management, "PUT", f"vhosts/{name}")
    try:
        yield urlsplit(server)._replace(path=f"/{name}").geturl()
    finally:
        manage(management, "DELETE", f"vhosts/{name}")


def manage(management: str, method: str, path: str, body: Any = None) -> Any:
    """A call of RabbitMQ's management API: manage(url, "GET", "queues/test_1a2b") -> [{"name": …}, …]"""
    at = urlsplit(management)
    request = urllib.request.Request(f"http://{at.hostname}:{at.port}/api/{path}", method=method)
    login = base64.b64encode(f"{at.username}:{at.password}".encode()).decode()
    request.add_header("Authorization", f"Basic {login}")
    request.add_header("Content-Type", "application/json")
    request.data = None if body is None else json.dumps(body).encode()
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(request, timeout=20) as response:
        text = response.read()
    return json.loads(text) if text else None


@contextmanager
def topics(server: str) -> Iterator[str]:
    """A prefix for the names of topics and groups; the topics that begin with it are deleted afterwards."""
    prefix = f"{_name()}."
    yield prefix
    admin = AdminClient({"bootstrap.servers": urlsplit(server).netloc})
    names = [name for name in admin.list_topics(timeout=20).topics if name.startswith(prefix)]
    if names:
        for deletion in admin.delete_topics(names, operation_timeout=20).values():
            deletion.result()
