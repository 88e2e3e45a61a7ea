"""What the three servers have in common: a home, ports, processes, and a record of them that outlives the command."""

import json
import os
import shutil
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from pathlib import Path
from threading import Event
from typing import ClassVar

from serving.certificate import Certificate
from serving.errors import ServingError
from serving.ports import free_ports
from serving.process import Process

USER = "eventmill"
PASSWORD = "mill-secret"  # known on purpose: the servers listen on 127.0.0.1 only, and hold nothing but tests' data


class Server(ABC):
    name: ClassVar[str]
    port_names: ClassVar[tuple[str, ...]]
    end_signal: ClassVar[int] = signal.SIGTERM
    patience: ClassVar[float] = 20.0  # seconds from the signal to SIGKILL, where the data is to be kept
    start_within: ClassVar[float] = 90.0

    def __init__(self, folder: Path) -> None:
        self.folder = folder / self.name
        self.record = self.folder / "server.json"
        self.ports: dict[str, int] = {}
        self.home = self.folder  # where the data is
        self.processes: list[Process] = []  # the server is the last; those before it serve it
        if self.record.exists():
            kept = json.loads(self.record.read_text())
            self.ports = kept["ports"]
            self.home = Path(kept["home"])
            self.processes = [Process(pid, birth) for pid, birth in kept["processes"]]

    @abstractmethod
    def require(self) -> None:
        """Raises NotInstalled, with the remedy, when a program is missing."""

    @abstractmethod
    def prepare(self, certificate: Certificate) -> None:
        """Write the configuration and an empty data folder into `home`."""

    @abstractmethod
    def launch(self) -> None:
        """Spawn the processes."""

    @abstractmethod
    def answers(self) -> bool:
        """Whether a client is served."""

    @abstractmethod
    def addresses(self) -> dict[str, str]:
        """The environment variables under which tests find it."""

    def choose_home(self) -> Path:
        return self.folder

    def alive(self) -> bool:
        return bool(self.processes) and self.processes[-1].alive()

    def start(self, certificate: Certificate, given_up: Event) -> None:
        """From nothing to serving. What a crashed run has left behind is ended and removed before."""
        self.remove()
        self.folder.mkdir(parents=True)
        self.ports = dict(zip(self.port_names, free_ports(len(self.port_names)), strict=True))
        self.home = self.choose_home()
        self.save()
        self.prepare(certificate)
        self.up(given_up)

    def up(self, given_up: Event) -> None:
        """Launch and wait. A server that ends at once is tried again: its predecessor may still be letting go."""
        deadline = time.monotonic() + self.start_within
        launches = 0
        while not given_up.is_set():
            if not self.alive():
                if launches == 3:
                    raise ServingError(f"{self.name} ended at start. The end of its log, {self.log}:\n{self.log_end()}")
                launches += 1
                self.end(patience=0)
                self.launch()
            if self.answers():
                return
            if time.monotonic() > deadline:
                raise ServingError(
                    f"{self.name} does not answer after {self.start_within:.0f} s. "
                    f"The end of its log, {self.log}:\n{self.log_end()}"
                )
            time.sleep(0.05)

    def end(self, *, patience: float | None = None) -> None:
        """End the processes, the last started first: asked, and after the patience killed. Without any, killed."""
        for process in reversed(self.processes):
            process.end(self.end_signal, self.patience if patience is None else patience)
        self.processes = []
        if self.record.exists():
            self.save()

    def remove(self) -> None:
        """End it, and forget its data; for which nobody waits long."""
        self.end(patience=2)
        if self.home != self.folder:
            shutil.rmtree(self.home, ignore_errors=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def log(self) -> Path:
        return self.folder / "log"

    def log_end(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return "\n".join(lines[-15:])

    def spawn(self, command: list[str], environment: dict[str, str], user: str | None = None) -> None:
        """A process in a session of its own, so that Ctrl-C at the terminal stays with whoever uses the server.

        Of the caller's environment it gets PATH only: PGPORT or RABBITMQ_NODENAME are meant for other servers.
        """
        basics = {"PATH": _path(), "HOME": str(self.home), "LANG": "C.UTF-8"}
        with self.log.open("ab") as log:
            started = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.home,
                env=basics | environment,
                start_new_session=True,
                user=user,
                group=user,
                extra_groups=[] if user else None,
            )
        self.processes.append(Process.of(started.pid))
        self.save()

    def save(self) -> None:
        kept = {
            "ports": self.ports,
            "home": str(self.home),
            "processes": [(process.pid, process.birth) for process in self.processes],
        }
        new = self.record.with_suffix(".new")
        new.write_text(json.dumps(kept))
        new.replace(self.record)


def _path() -> str:
    return os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"


def program(name: str, *elsewhere: str) -> str | None:
    """The path of a program: on PATH, or in one of the other folders."""
    return shutil.which(name, path=":".join((*elsewhere, _path())))
