"""Tasks that run in a process of their own, which has to import them."""

from __future__ import annotations

import os
import signal
import threading
import time

from eventmill import App, DeadLetter, Retry, Settings, TaskContext, fixed

app = App("memory://isolated", name="isolated", settings=Settings(lease=1.0))


class OwnError(Exception):
    """Known to policies by its class."""


class CodedError(OSError):
    """Is made of more than a text, and cannot be pickled."""

    def __init__(self, code: int, *, reason: str) -> None:
        self.code, self.reason, self.lock = code, reason, threading.Lock()

    def __str__(self) -> str:
        return f"{self.reason} ({self.code})"


@app.task(timeout=30)
def quiet() -> object:
    """What it returns is asked for by nobody."""
    return threading.Lock()


@app.task(timeout=30, keep=60, retry=fixed(0.01, attempts=3))
def work(kind: str, context: TaskContext) -> object:
    if kind == "result":
        context.progress(1, 2, "half")
        print("this must not disturb the answer")
        return {"pid": os.getpid(), "key": context.idempotency_key, "attempt": context.attempt}
    if kind == "outcomes":
        return [None, Retry(0.01), DeadLetter("enough")][context.attempt]
    if kind == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "coded":
        raise CodedError(7, reason="odd")
    raise OwnError("my own")


@app.task(timeout=0.6, keep=60, retry=fixed(0.01, attempts=2))
def spin(pids: str) -> None:
    with open(pids, "a") as file:
        file.write(f"{os.getpid()}\n")
    while True:
        time.sleep(0.01)


@app.task(timeout=30, keep=60, retry=fixed(3_600, attempts=2))
def forever(pids: str) -> None:
    with open(pids, "a") as file:
        file.write(f"{os.getpid()}\n")
    while True:
        time.sleep(0.01)
