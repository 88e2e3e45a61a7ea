"""A worker that ends when the process which started it is gone."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable

PIPE = "EVENTMILL_PARENT"
"""Environment variable: the number of a pipe's reading end, whose writing end the parent holds and never writes to."""


def end_with_parent(grace: float, *, end: Callable[[int], None] | None = None) -> bool:
    """Watch the parent from a thread; False when this process was not started by a supervisor.

    However the parent ends, SIGKILL included, the kernel closes its end of the pipe. Then this
    process gets SIGTERM, to stop in good order, and is ended hard when it is still there `grace`
    seconds later. A thread, because a blocked event loop must not outlive its parent either.

    end: what ends the process at once, given an exit code; `os._exit` by default.
    """
    number = os.environ.pop(PIPE, None)
    if number is None:
        return False
    pipe = int(number)
    # Programs that a handler starts must not inherit it.
    os.set_inheritable(pipe, False)
    threading.Thread(target=_watch, args=(pipe, grace, end or os._exit), name="eventmill-parent", daemon=True).start()
    return True


def _watch(pipe: int, grace: float, end: Callable[[int], None]) -> None:
    while os.read(pipe, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(grace)
    end(1)
