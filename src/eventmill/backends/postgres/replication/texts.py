"""PostgreSQL's text of a value to what JSON holds, type by type.

Whole numbers, floats and booleans become themselves, json what it says, arrays lists; what JSON has no exact form for
stays text: `numeric` because of its digits, times in ISO 8601, binary data in base64 (as msgspec reads `bytes`).
"""

from __future__ import annotations

import math
import re
from base64 import b64encode
from collections.abc import Callable
from typing import Any

import msgspec

Reader = Callable[[bytes], Any]

SESSION = (
    "-c datestyle=ISO -c intervalstyle=iso_8601 -c timezone=UTC -c extra_float_digits=1 -c bytea_output=hex"
    " -c search_path=pg_catalog -c row_security=off -c synchronous_commit=local"
)
"""Options of every connection that texts come from, so that the same value always has the same text."""

BYTEA = 17

_read_json = msgspec.json.Decoder().decode


def _text(data: bytes) -> str:
    return data.decode()


def _boolean(data: bytes) -> bool:
    return data == b"t"


def _float(data: bytes) -> float | str:
    """JSON has no infinities and no NaN: they stay text."""
    value = float(data)
    return value if math.isfinite(value) else data.decode()


def _binary(data: bytes) -> str:
    return b64encode(bytes.fromhex(data[2:].decode())).decode()


def _moment(data: bytes) -> str:
    """`2026-01-31 12:00:00.5` as ISO 8601; `infinity` and years before our era stay as they are."""
    return data.decode().replace(" ", "T", 1) if data[-2:] != b"BC" else data.decode()


def _moment_with_zone(data: bytes) -> str:
    text = _moment(data)
    return f"{text[:-3]}Z" if text.endswith("+00") else text


def _json(data: bytes) -> Any:
    """What it says; a number that msgspec cannot hold makes the whole value stay text."""
    try:
        return _read_json(data)
    except msgspec.DecodeError:
        return data.decode()


_SCALARS: dict[int, Reader] = {
    16: _boolean, BYTEA: _binary, 20: int, 21: int, 23: int, 26: int, 700: _float, 701: _float,
    114: _json, 3802: _json, 1114: _moment, 1184: _moment_with_zone,
}  # fmt: skip

_TOKEN = re.compile(r'([{},])|"((?:[^"\\]|\\.)*)"|([^{},"]+)', re.DOTALL)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)


def array_reader(element: Reader) -> Reader:
    """Of an array, how each of its elements is read."""

    def read(data: bytes) -> Any:
        text = data.decode()
        if text.startswith("["):  # bounds that do not begin at 1: "[0:1]={1,2}"
            text = text.partition("=")[2]
        stack: list[list[Any]] = [[]]
        for mark, quoted, plain in _TOKEN.findall(text):
            if mark == "{":
                stack.append([])
            elif mark == "}":
                done = stack.pop()
                stack[-1].append(done)
            elif plain:
                stack[-1].append(None if plain == "NULL" else element(plain.encode()))
            elif not mark:
                stack[-1].append(element(_ESCAPE.sub(r"\1", quoted).encode()))
        return stack[0][0]

    return read


def reader(oid: int) -> Reader:
    """How the text of a type of the server's own is read; of one unknown here it stays text."""
    return _SCALARS.get(oid, _text)
