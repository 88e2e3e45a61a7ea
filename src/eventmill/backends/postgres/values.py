"""Parameters of eventmill's own statements, written for the wire: arrays in binary, which the server reads fastest."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import NamedTuple

TEXT, BYTEA, INT4, INT8, BOOL = 25, 17, 23, 20, 16
_ARRAY_OF = {TEXT: 1009, BYTEA: 1001, INT4: 1007, INT8: 1016, BOOL: 1000}
_HEAD = struct.Struct("!iiIii").pack
_LENGTH = struct.Struct("!i").pack
_NULL = _LENGTH(-1)


class Value(NamedTuple):
    """One parameter: its type's number (0: the server finds out), whether it is binary, its bytes."""

    oid: int
    binary: int
    data: bytes | None


NULL = Value(0, 0, None)


def text(value: str | None) -> Value:
    return NULL if value is None else Value(0, 0, value.encode())


def number(value: int | float | None) -> Value:
    return NULL if value is None else Value(0, 0, b"%a" % value)


def blob(value: bytes | None) -> Value:
    return Value(BYTEA, 1, value)


def _array(oid: int, count: int, has_null: bool, body: bytes) -> Value:
    if not count:
        return Value(_ARRAY_OF[oid], 1, struct.pack("!iiI", 0, 0, oid))
    return Value(_ARRAY_OF[oid], 1, _HEAD(1, has_null, oid, count, 1) + body)


def blobs(values: Sequence[bytes | None], oid: int = BYTEA) -> Value:
    parts: list[bytes] = []
    has_null = False
    for value in values:
        if value is None:
            parts.append(_NULL)
            has_null = True
        else:
            parts.append(_LENGTH(len(value)))
            parts.append(value)
    return _array(oid, len(values), has_null, b"".join(parts))


def texts(values: Iterable[str | None]) -> Value:
    return blobs([None if value is None else value.encode() for value in values], TEXT)


def _numbers(oid: int, letter: str, size: int, values: Sequence[int | None]) -> Value:
    if None in values:
        pack = struct.Struct(f"!{letter}").pack
        return blobs([None if value is None else pack(value) for value in values], oid)
    flat: list[int | None] = [size] * (2 * len(values))
    flat[1::2] = values
    return _array(oid, len(values), False, struct.pack("!" + f"i{letter}" * len(values), *flat))


def int8s(values: Sequence[int | None]) -> Value:
    return _numbers(INT8, "q", 8, values)


def int4s(values: Sequence[int | None]) -> Value:
    return _numbers(INT4, "i", 4, values)


def bools(values: Iterable[bool]) -> Value:
    return blobs([b"\x01" if value else b"\x00" for value in values], BOOL)
