"""A pgbouncer of the test's own, in transaction mode: every transaction may come to another of few connections."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

CONNECTIONS = 4
"""To the server, for all that come to the pooler."""

SETTINGS = """\
[databases]
{database} = host={host} port={port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen}
unix_socket_dir =
auth_type = plain
auth_file = {users}
pool_mode = transaction
default_pool_size = {connections}
max_client_conn = 200
server_reset_query =
logfile = {folder}/pgbouncer.log
"""


def program() -> str:
    """pgbouncer's path; else the test is skipped, or fails where CI is set."""
    found = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if found is None:
        reason = "pgbouncer is not installed. Run: scripts/servers install"
        if os.environ.get("CI"):
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    return found


@contextmanager
def pooler(url: str, folder: Path) -> Iterator[str]:
    """The same database's URL by way of the pooler."""
    path = program()
    at = urlsplit(url)
    with socket.create_server(("127.0.0.1", 0)) as free:
        listen = free.getsockname()[1]
    folder.mkdir()
    users = folder / "users"
    users.write_text(f'"{at.username}" "{at.password}"\n')
    settings = folder / "pgbouncer.ini"
    text = SETTINGS.format(
        database=at.path.lstrip("/"), host=at.hostname, port=at.port, listen=listen, users=users, folder=folder,
        connections=CONNECTIONS,
    )  # fmt: skip
    settings.write_text(text)
    arguments = [path, "--quiet", str(settings)]
    if os.geteuid() == 0:
        # It refuses to run as root, and must come to its files.
        for place in (folder, *folder.parents):
            if place.owner() == "root" and place != Path("/") and not place.stat().st_mode & 0o001:
                place.chmod(place.stat().st_mode | 0o011)
        for place in (folder, users, settings):
            shutil.chown(place, "postgres", "postgres")
        arguments[1:1] = ["--user", "postgres"]
    process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        _until_it_listens(process, listen)
        yield at._replace(netloc=f"{at.username}:{at.password}@127.0.0.1:{listen}").geturl()
    finally:
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


def _until_it_listens(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                raise RuntimeError(f"pgbouncer does not listen: {process.communicate()[1].decode()}") from None
            time.sleep(0.05)
        else:
            return
