"""The process that runs what may have to be killed: `processes` starts it with `main`.

Frames of JSON, each with its length before it, come in on standard input and go out on what was standard output;
whatever the work itself prints goes to standard error. It ends when its input does.
"""

from __future__ import annotations

import importlib
import os
import runpy
import struct
import sys
import threading
from collections.abc import Mapping
from functools import cache
from typing import Any, BinaryIO

import msgspec

from eventmill.core.failure import storable, told, trace_of
from eventmill.core.outcome import DeadLetter, Retry, Snooze

LENGTH = struct.Struct(">I")


class Request(msgspec.Struct):
    """One call: where its task is found, its arguments, and what its context says."""

    place: dict[str, str | None]
    path: list[str]
    data: msgspec.Raw
    about: dict[str, Any]
    result: bool = True


class Reply(msgspec.Struct, omit_defaults=True):
    """kind: `begun` (everything is imported), `result`, `retry`, `snooze`, `dead`, `error` or `progress`."""

    kind: str
    value: Any = None
    text: str = ""
    trace: str = ""


decode_request = msgspec.json.Decoder(Request).decode
decode_reply = msgspec.json.Decoder(Reply).decode
encode = msgspec.json.Encoder().encode


@cache
def _main_of(file: str) -> Mapping[str, Any]:
    """The names of a program that is not run as one here."""
    return runpy.run_path(file, run_name="__eventmill_main__")


def _found(place: Mapping[str, str | None]) -> Any:
    name = str(place["name"])
    if place["file"] is not None:
        return _main_of(place["file"])[name]
    found: Any = importlib.import_module(str(place["module"]))
    for part in name.split("."):
        found = getattr(found, part)
    return found


def _answer(request: Request, out: BinaryIO) -> Reply:
    def tell(done: float, total: float | None, note: str) -> None:
        _write(out, Reply("progress", [done, total], note))

    try:
        for folder in request.path:
            if folder not in sys.path:
                sys.path.append(folder)
        work = _found(request.place)
        _write(out, Reply("begun"))
        result = work.run_isolated(bytes(request.data), request.about, tell)
        if isinstance(result, Retry):
            return Reply("retry", result.after)
        if isinstance(result, Snooze):
            return Reply("snooze", result.seconds)
        if isinstance(result, DeadLetter):
            return Reply("dead", text=storable(result.reason))
        reply = Reply("result", result if request.result else None)
        encode(reply)
    except Exception as error:
        kind = type(error)
        return Reply("error", [kind.__module__, kind.__qualname__], told(error), trace_of(error))
    return reply


def _write(out: BinaryIO, reply: Reply) -> None:
    body = encode(reply)
    out.write(LENGTH.pack(len(body)) + body)
    out.flush()


def main() -> None:
    """Answer one request after another."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    requests = os.fdopen(os.dup(0), "rb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    _end_without_parent()
    while len(head := requests.read(LENGTH.size)) == LENGTH.size:
        body = requests.read(LENGTH.unpack(head)[0])
        _write(out, _answer(decode_request(body), out))


def _end_without_parent() -> None:
    """Work that never ends must not outlive who would kill it."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            stop.wait(1.0)
        os._exit(1)

    stop = threading.Event()
    threading.Thread(target=watch, name="eventmill-parent", daemon=True).start()
