"""Processes for work that may have to be stopped by killing it."""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import importlib
import os
import sys
from collections.abc import Callable
from typing import Any

import msgspec

from eventmill.core.outcome import DeadLetter, Retry, Snooze
from eventmill.runtime.child import LENGTH, Reply, Request, decode_reply, encode

STARTING = 60.0
"""Seconds for a process to start and to import what it is to run."""

Tell = Callable[[float, float | None, str], None]


class ProcessDiedError(Exception):
    """The process ended while it worked, by itself or killed by somebody else."""


class Processes:
    """As many processes as are needed at a time; each takes one call after another, and none is left behind.

    A call that is cancelled, as by a timeout, has its process killed, whatever it does: another one is started for the next.
    """

    def __init__(self) -> None:
        self._free: list[asyncio.subprocess.Process] = []
        self._all: set[asyncio.subprocess.Process] = set()

    async def call(
        self, place: dict[str, str | None], data: bytes, about: dict[str, Any], tell: Tell | None, timeout: float | None
    ) -> object:
        """What the call returns, an outcome or a result as JSON has it; raises what it has raised.

        tell: takes its progress; without, nobody asks for its result either, which then is None. timeout: seconds it may take, from when everything is imported. Raises TimeoutError, and ProcessDiedError.
        """
        process = self._free.pop() if self._free else await self._start()
        clean = False
        try:
            assert process.stdin is not None
            folders = [folder for folder in sys.path if folder]
            body = encode(Request(place, folders, msgspec.Raw(data), about, result=tell is not None))
            process.stdin.write(LENGTH.pack(len(body)) + body)
            async with asyncio.timeout(STARTING) as limit:
                while (reply := await self._hear(process)).kind in ("begun", "progress"):
                    if reply.kind == "begun":
                        limit.reschedule(None if timeout is None else asyncio.get_running_loop().time() + timeout)
                    elif tell is not None:
                        done, total = reply.value
                        tell(done, total, reply.text)
            clean = True
        finally:
            if clean:
                self._free.append(process)
            else:
                await self._kill(process)
        return _outcome(reply)

    async def _start(self) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            "from eventmill.runtime.child import main; main()",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(folder for folder in sys.path if folder)},
            # Ctrl-C is for the parent, which decides what is finished.
            start_new_session=True,
        )
        self._all.add(process)
        return process

    async def _hear(self, process: asyncio.subprocess.Process) -> Reply:
        assert process.stdout is not None
        try:
            (size,) = LENGTH.unpack(await process.stdout.readexactly(LENGTH.size))
            return decode_reply(await process.stdout.readexactly(size))
        except asyncio.IncompleteReadError:
            code = await process.wait()
            raise ProcessDiedError(f"the process running it ended with code {code}") from None

    async def _kill(self, process: asyncio.subprocess.Process) -> None:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        self._all.discard(process)
        await process.wait()

    async def close(self) -> None:
        """End all of them."""
        self._free.clear()
        for process in list(self._all):
            await self._kill(process)


def _outcome(reply: Reply) -> object:
    if reply.kind == "retry":
        return Retry(reply.value)
    if reply.kind == "snooze":
        return Snooze(reply.value)
    if reply.kind == "dead":
        return DeadLetter(reply.text)
    if reply.kind == "error":
        raise _error(reply)
    return reply.value


def _error(reply: Reply) -> BaseException:
    """The exception as one of its own class, which retry policies go by; of another where that cannot be made here.

    What its author's class holds beside a text stays where it was raised, so its methods are not asked for anything.
    """
    module, name = reply.value
    text = reply.text.removeprefix(f"{name.rpartition('.')[2]}: ")
    error: Exception
    try:
        kind: Any = builtins if module == "builtins" else importlib.import_module(module)
        for part in name.split("."):
            kind = getattr(kind, part)
        made: Any = type(kind.__name__, (kind,), {"__str__": lambda _: text, "__module__": kind.__module__})
        # By the innermost class, which takes a text: those around it may want anything.
        error = next(each for each in kind.__mro__ if each.__module__ == "builtins").__new__(made, text)
    except Exception:
        error = RuntimeError(reply.text)
    else:
        error.args = (text,)
    error.add_note(reply.trace)
    return error
