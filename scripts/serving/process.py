"""A process known by its id and its birth, so that a number that was given to another is never signalled."""

import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


def _fields(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat that follow the command's name: state, parent, …"""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return None


@dataclass(frozen=True)
class Process:
    pid: int
    birth: str  # clock ticks between the machine's start and the process's; with the pid, it names one process

    @classmethod
    def of(cls, pid: int) -> "Process":
        fields = _fields(pid)
        return cls(pid, fields[19] if fields else "gone")

    def alive(self) -> bool:
        """A zombie is dead: where nobody collects orphans, it stays one for ever."""
        fields = _fields(self.pid)
        return fields is not None and fields[19] == self.birth and fields[0] not in "ZX"

    def signal(self, number: int) -> None:
        if self.alive():
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def descendants(self) -> list["Process"]:
        parents: dict[int, list[int]] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and (fields := _fields(int(entry.name))):
                parents.setdefault(int(fields[1]), []).append(int(entry.name))
        found, queue = [], [self.pid] if self.alive() else []
        while queue:
            children = parents.get(queue.pop(), [])
            found += [Process.of(child) for child in children]
            queue += children
        return found

    def end(self, number: int, patience: float) -> None:
        """Ask with a signal; after `patience` seconds, kill. What it started goes with it. Returns when all are gone."""
        family = self.descendants()
        self.signal(number if patience else signal.SIGKILL)
        deadline = time.monotonic() + patience
        while self.alive() and time.monotonic() < deadline:
            time.sleep(0.02)
        for process in (self, *family):
            process.signal(signal.SIGKILL)
        deadline = time.monotonic() + 10
        while any(process.alive() for process in (self, *family)) and time.monotonic() < deadline:
            time.sleep(0.02)
