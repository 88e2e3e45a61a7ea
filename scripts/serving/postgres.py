"""PostgreSQL: one cluster, durable as in production, with passwords and TLS on TCP."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import ClassVar

from serving.certificate import Certificate
from serving.errors import NotInstalled, ServingError
from serving.process import Process, as_user
from serving.server import PASSWORD, USER, Server, program

SYSTEM_USER = "postgres"  # the server refuses to run as root
SOCKET_PATH_LIMIT = 107  # bytes that the system takes for the path of a socket

SETTINGS = """\
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = '{home}'
max_connections = 400
max_prepared_transactions = 4
fsync = on
synchronous_commit = on
wal_level = logical
max_wal_senders = 64
max_replication_slots = 64
shared_buffers = 64MB
ssl = on
ssl_cert_file = '{home}/certificate.pem'
ssl_key_file = '{home}/key.pem'
log_line_prefix = '%m [%p] '
lc_messages = 'C'
"""


def programs() -> str | None:
    """The folder of the newest PostgreSQL; Debian keeps them off PATH."""
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: float(path.parts[-3]))
    found = str(versions[-1]) if versions else program("postgres")
    return str(Path(found).parent) if found else None


class Postgres(Server):
    name = "postgres"
    port_names = ("sql",)
    end_signal: ClassVar[int] = signal.SIGINT  # "fast": do not wait for clients to leave

    def require(self) -> None:
        if not (programs() and program("psql", programs() or "")):
            raise NotInstalled("PostgreSQL is not installed. Run: scripts/servers install")
        if os.geteuid() == 0:
            try:
                pwd.getpwnam(SYSTEM_USER)
            except KeyError:
                raise NotInstalled(f"PostgreSQL does not run as root, and there is no user {SYSTEM_USER}.") from None

    @property
    def user(self) -> str | None:
        return SYSTEM_USER if os.geteuid() == 0 else None

    def choose_home(self) -> Path:
        """Beside the others, unless the server's user cannot get there or the socket's path would be too long."""
        near = self.folder / "home"
        near.mkdir()
        socket = near / f".s.PGSQL.{self.ports['sql']}"
        if len(os.fsencode(socket)) > SOCKET_PATH_LIMIT or not self._reachable(near):
            near.rmdir()
            near = Path(tempfile.mkdtemp(prefix="eventmill-postgres-", dir="/var/tmp"))
        if self.user:
            shutil.chown(near, self.user, self.user)
        near.chmod(0o700)
        return near

    def _reachable(self, path: Path) -> bool:
        near = subprocess.run(["test", "-x", str(path)], check=False, **as_user(self.user))
        return near.returncode == 0

    def prepare(self, certificate: Certificate) -> None:
        password = self.home / "password"
        for path, text in (
            (password, PASSWORD),
            (self.home / "certificate.pem", certificate.certificate.read_text()),
            (self.home / "key.pem", certificate.key.read_text()),
        ):
            path.touch(0o600)
            path.write_text(text)
            if self.user:
                shutil.chown(path, self.user, self.user)
        made = subprocess.run(
            [
                f"{programs()}/initdb",
                "--pgdata=data",
                f"--username={USER}",
                f"--pwfile={password}",
                "--auth-local=trust",
                "--auth-host=scram-sha-256",
                "--encoding=UTF8",
                "--locale=C",
                "--no-sync",  # of the empty cluster; what the tests write is synced
                "--no-instructions",
            ],
            cwd=self.home,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
            **as_user(self.user),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if made.returncode:
            raise ServingError(f"initdb failed:\n{made.stdout}{made.stderr}")
        with (self.home / "data" / "postgresql.conf").open("a") as settings:
            settings.write(SETTINGS.format(port=self.ports["sql"], home=self.home))

    def launch(self) -> None:
        self._unlock()
        self.spawn([f"{programs()}/postgres", "-D", "data"], {}, self.user)

    def _unlock(self) -> None:
        """After kill -9 its lock files name a process that may be a zombie, which PostgreSQL takes for alive."""
        lock = self.home / "data" / "postmaster.pid"
        if lock.exists() and not Process.of(int(lock.read_text().split()[0])).alive():
            for file in (lock, *self.home.glob(".s.PGSQL.*")):
                file.unlink()

    def answers(self) -> bool:
        try:
            asked = subprocess.run(
                [str(program("psql", programs() or "")), "--no-psqlrc", self.url, "--command=SELECT 1"],
                env={"PATH": os.environ["PATH"], "PGCONNECT_TIMEOUT": "5"},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=10,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return False
        return asked.returncode == 0

    @property
    def url(self) -> str:
        return f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{self.ports['sql']}/postgres"

    def addresses(self) -> dict[str, str]:
        return {"EVENTMILL_TEST_POSTGRES": self.url}
