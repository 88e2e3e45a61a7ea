"""The servers of one folder together: started side by side, stopped, and their addresses kept in its env file."""

import fcntl
import os
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

    def servers(self, names: list[str] | None = None) -> list[Server]:
        return [KINDS[name](self.folder) for name in names or KINDS]

    def start(self, names: list[str]) -> list[str]:
        """Start those that do not run yet. Returns what to warn of: servers not asked for by name, and not installed."""
        warnings, missing = [], []
        for server in self.servers(names):
            try:
                server.require()
            except NotInstalled as error:
                if names or os.environ.get("CI"):
                    raise
                warnings.append(str(error))
                missing.append(server.name)
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._alone():
            wanted = [server for server in self.servers(names) if server.name not in missing]
            self._start([server for server in wanted if not (server.alive() and server.answers())])
            self._write_env()
        return warnings

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
            # One failed, or a signal came: leave none half started behind, but the log that tells why.
            given_up.set()
            pool.shutdown(wait=True)
            for server in servers:
                server.end()
            raise
        finally:
            pool.shutdown(wait=True)

    def stop(self, names: list[str]) -> None:
        if not self.folder.exists():
            return
        with self._alone():
            chosen = self.servers(names)
            with ThreadPoolExecutor(len(chosen)) as pool:
                list(pool.map(_stop, chosen))
            if any(server.record.exists() for server in self.servers()):
                self._write_env()
                return
            shutil.rmtree(self.folder, ignore_errors=True)

    def restart(self, name: str, number: int | None) -> None:
        with self._alone():
            server = KINDS[name](self.folder)
            if not server.record.exists():
                raise ServingError(f"{name} was not started in {self.folder}. Run: scripts/servers start {name}")
            server.end(number)
            server.up(Event())

    def addresses(self) -> dict[str, str]:
        found = {"EVENTMILL_TEST_SERVERS": str(self.folder)}
        found["EVENTMILL_TEST_CERTIFICATE"] = str(certificate(self.folder).certificate)
        for server in self.servers():
            if server.alive():
                found |= server.addresses()
        return found

    def _write_env(self) -> None:
        self.env.write_text("".join(f"{name}='{value}'\n" for name, value in self.addresses().items()))

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One command at a time works on a folder."""
        with (self.folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _stop(server: Server) -> None:
    server.end()
    server.remove()
