"""The servers of one folder together: started side by side, stopped, and their addresses kept in its env file."""

import fcntl
import secrets
import shutil
from collections.abc import Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from threading import Event

from serving.certificate import certificate
from serving.errors import NotInstalled, ServingError
from serving.kafka import Kafka
from serving.postgres import Postgres
from serving.rabbitmq import RabbitMQ
from serving.server import Server

KINDS: dict[str, type[Server]] = {kind.name: kind for kind in (Postgres, RabbitMQ, Kafka)}


class Fleet:
    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.env = self.folder / "env"
        self._identity = self.folder / "identity"

    def servers(self, names: list[str] | None = None) -> list[Server]:
        return [KINDS[name](self.folder) for name in names or KINDS]

    def installed(self, names: list[str]) -> tuple[list[str], list[str]]:
        """Those of the named servers whose programs are here, and for the others what to do about it."""
        found, remedies = [], []
        for server in self.servers(names):
            try:
                server.require()
                found.append(server.name)
            except NotInstalled as error:
                remedies.append(str(error))
        return found, remedies

    def start(self, names: list[str]) -> None:
        """Start those that do not serve yet; when one of them fails, all of them are ended again."""
        self.identify()
        with self._alone():
            self._start([server for server in self.servers(names) if not (server.alive() and server.answers())])
            self._write_env()

    def _start(self, servers: list[Server]) -> None:
        if not servers:
            return
        shared, given_up = certificate(self.folder), Event()
        pool = ThreadPoolExecutor(len(servers))
        try:
            starts = [pool.submit(server.start, shared, given_up) for server in servers]
            wait(starts, return_when=FIRST_EXCEPTION)
            for start in starts:
                if start.done():
                    start.result()
        except BaseException:
            # One failed, or a signal came: nothing half started stays behind, but the logs that tell why.
            given_up.set()
            pool.shutdown()
            for server in servers:
                server.end(patience=0)
            raise
        pool.shutdown()

    def stop(self, names: list[str]) -> None:
        """End the named servers and remove their data; the folder goes with the last one."""
        if not self.folder.exists():
            return
        with self._alone():
            chosen = self.servers(names)
            with ThreadPoolExecutor(len(chosen)) as pool:
                list(pool.map(Server.remove, chosen))
            if any(server.record.exists() for server in self.servers()):
                self._write_env()
            else:
                shutil.rmtree(self.folder, ignore_errors=True)

    def restart(self, name: str, *, kill: bool) -> None:
        if not self.folder.exists():
            raise ServingError(f"no server was started in {self.folder}. Run: scripts/servers start {name}")
        with self._alone():
            server = KINDS[name](self.folder)
            if not server.record.exists():
                raise ServingError(f"{name} was not started in {self.folder}. Run: scripts/servers start {name}")
            server.end(patience=0 if kill else None)
            server.up(Event())

    def addresses(self) -> dict[str, str]:
        found = {"EVENTMILL_TEST_SERVERS": str(self.folder)}
        found["EVENTMILL_TEST_CERTIFICATE"] = str(certificate(self.folder).certificate)
        for server in self.servers():
            if server.alive():
                found |= server.addresses()
        return found

    def identify(self) -> str:
        """The mark that tells this fleet from a later one in the same folder; made, with the folder, when there is none."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._alone():
            if not self._identity.exists():
                self._identity.write_text(secrets.token_hex(8))
        return self._identity.read_text()

    def is_still(self, identity: str) -> bool:
        try:
            return self._identity.read_text() == identity
        except FileNotFoundError:
            return False

    def _write_env(self) -> None:
        self.env.write_text("".join(f"{name}='{value}'\n" for name, value in self.addresses().items()))

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One command at a time works on a folder."""
        with (self.folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
