"""What tests of a real server ask for."""

from __future__ import annotations

import base64
import json
import os
import secrets
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "servers"


def _address(name: str) -> str:
    if found := os.environ.get(f"EVENTMILL_TEST_{name}"):
        return found
    return pytest.skip(f"EVENTMILL_TEST_{name} is not set")


def _manage(management: str, method: str, path: str) -> Any:
    at = urlsplit(management)
    request = urllib.request.Request(f"http://{at.hostname}:{at.port}/api/{path}", method=method)
    login = base64.b64encode(f"{at.username}:{at.password}".encode()).decode()
    request.add_header("Authorization", f"Basic {login}")
    request.add_header("Content-Type", "application/json")
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=20) as response:
        text = response.read()
    return json.loads(text) if text else None


@pytest.fixture(scope="session")
def rabbitmq_server() -> str:
    return _address("RABBITMQ")


@pytest.fixture(scope="session")
def rabbitmq_management() -> str:
    return _address("RABBITMQ_MANAGEMENT")


@pytest.fixture
def rabbitmq_url(rabbitmq_server: str, rabbitmq_management: str) -> Iterator[str]:
    """A virtual host of the test's own."""
    with _virtual_host(rabbitmq_server, rabbitmq_management) as url:
        yield url


@pytest.fixture(scope="module")
def rabbitmq_room(rabbitmq_server: str, rabbitmq_management: str) -> Iterator[str]:
    """A virtual host for all tests of a module."""
    with _virtual_host(rabbitmq_server, rabbitmq_management) as url:
        yield url


@contextmanager
def _virtual_host(rabbitmq_server: str, rabbitmq_management: str) -> Iterator[str]:
    name = f"test_{secrets.token_hex(6)}"
    _manage(rabbitmq_management, "PUT", f"vhosts/{name}")
    try:
        yield urlsplit(rabbitmq_server)._replace(path=f"/{name}").geturl()
    finally:
        _manage(rabbitmq_management, "DELETE", f"vhosts/{name}")


@pytest.fixture
def restart() -> Callable[..., None]:
    """`restart("rabbitmq", kill=True)`. It blocks."""

    def restart(name: str, *, kill: bool = False) -> None:
        command = [SCRIPT, "restart", name, *(["--kill"] if kill else []), "--folder", _address("SERVERS")]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL, capture_output=True, timeout=120)

    return restart
