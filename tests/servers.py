"""The servers that tests run against: which tests need which, started when they do, and where they are.

A server whose address is in the environment is used as it is. The others are started by `scripts/servers` in a folder
of this run's own, and stopped when the run's process has ended, however it ends.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from collections.abc import Collection
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "servers"
NAMES = ("postgres", "rabbitmq", "kafka")

_failures: dict[str, str] = {}
"""The servers of which it is known that they are not to be had, and why."""

_own: list[Path] = []
"""The folder of the servers that this run has started, if it has."""


def variable(name: str) -> str:
    return f"EVENTMILL_TEST_{name.upper()}"


def call(*arguments: str, seconds: float = 180) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SCRIPT, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds, check=False
    )


def provide(names: Collection[str]) -> None:
    """Start those of the named servers that this run does not have yet, side by side, and keep their addresses."""
    missing = [name for name in NAMES if name in names and not os.environ.get(variable(name)) and name not in _failures]
    if not missing:
        return
    if os.environ.get("EVENTMILL_SERVERS") == "none":
        _failures.update(dict.fromkeys(missing, "EVENTMILL_SERVERS=none says to start no servers"))
        return
    if not _own:
        if given := os.environ.get(variable("servers")):
            _failures.update(dict.fromkeys(missing, f"the servers in {given} are taken as they are"))
            return
        _own.append(_folder())
    started = call("start", *missing, "--available", "--folder", str(_own[0]), "--while", str(os.getpid()))
    for line in shlex.split(started.stdout):
        key, _, value = line.partition("=")
        os.environ[key] = value
    for name in missing:
        if not os.environ.get(variable(name)):
            _failures[name] = started.stderr.strip() or f"scripts/servers did not start {name}"


def _folder() -> Path:
    """Short, since sockets are in it, and open to other users, since PostgreSQL does not run as root."""
    folder = Path(tempfile.mkdtemp(prefix="eventmill-servers-", dir="/var/tmp"))
    folder.chmod(0o711)
    return folder


def release() -> None:
    """Stop what `provide` has started."""
    for folder in _own:
        call("stop", "--folder", str(folder))


def address(key: str) -> str:
    """The value of EVENTMILL_TEST_<KEY>, such as kafka or kafka_tls; else the test is skipped, or fails where CI is set."""
    server = key.partition("_")[0]
    if server in NAMES:
        provide([server])
    if found := os.environ.get(variable(key)):
        return found
    reason = f"{variable(key)} is not set. {_failures.get(server, '')}"
    if os.environ.get("CI"):
        pytest.fail(f"{reason}\nWhere CI is set no server may be missing: scripts/servers install", pytrace=False)
    pytest.skip(reason)
