"""A process of its own that stops a fleet when the process that it serves has ended, however that came about."""

import subprocess
import sys
import time
from pathlib import Path

from serving.errors import ServingError
from serving.fleet import Fleet
from serving.process import Process


def watch(fleet: Fleet, pid: int) -> None:
    """Begin to watch, and return."""
    owner = Process.of(pid)
    if not owner.alive():
        raise ServingError(f"--while {pid}: there is no such process")
    subprocess.Popen(
        [sys.executable, "-m", "serving.watch", str(fleet.folder), fleet.identify(), str(pid), owner.birth],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _watch(fleet: Fleet, identity: str, owner: Process) -> None:
    while owner.alive() and fleet.is_still(identity):
        time.sleep(0.2)
    if fleet.is_still(identity):
        fleet.stop([])


if __name__ == "__main__":
    _watch(Fleet(Path(sys.argv[1])), sys.argv[2], Process(int(sys.argv[3]), sys.argv[4]))
