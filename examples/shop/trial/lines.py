"""The physical lines of a text file that may be packed, cut short or damaged, in flat memory."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

BLOCK = 1 << 16
LONGEST = 1 << 16


class PhysicalLine(NamedTuple):
    """A line with its end of line, counted from 1; `flaw` says why its text cannot be used."""

    number: int
    text: str
    flaw: str | None = None


class DamagedError(Exception):
    """The packed stream cannot be followed any further; all that could be unpacked was delivered before."""


def is_gzip(file: BinaryIO) -> bool:
    """Whether a file begins like gzip; the file is left at its beginning."""
    magic = file.read(2)
    file.seek(0)
    return magic == b"\x1f\x8b"


def blocks(file: BinaryIO) -> Iterator[bytes]:
    """The content in pieces, unpacked where it is gzip; DamagedError after the last good byte."""
    if is_gzip(file):
        yield from _unpacked(file)
        return
    while block := _read(file):
        yield block


def _read(file: BinaryIO) -> bytes:
    try:
        return file.read(BLOCK)
    except OSError as error:
        raise DamagedError(f"the file cannot be read any further: {error.strerror}") from error


def _unpacked(file: BinaryIO) -> Iterator[bytes]:
    member = zlib.decompressobj(wbits=31)
    packed = b""
    while True:
        packed = packed or _read(file)
        if not packed:
            if member.eof:
                return
            raise DamagedError("the gzip stream ends before its end: what follows is lost")
        if member.eof:
            packed = packed.lstrip(b"\0")  # padding after the last member is allowed
            if not packed:
                continue
            member = zlib.decompressobj(wbits=31)
        before = member.copy()
        try:
            unpacked = member.decompress(packed, BLOCK)
        except zlib.error as error:
            # zlib keeps back what it had unpacked of this piece: get at it byte by byte.
            yield from _rescued(before, packed)
            raise DamagedError(f"the gzip stream is damaged ({error}): what follows is lost") from error
        if unpacked:
            yield unpacked
        packed = member.unused_data if member.eof else member.unconsumed_tail


def _rescued(member: zlib._Decompress, packed: bytes) -> Iterator[bytes]:
    for byte in packed:
        try:
            unpacked = member.decompress(bytes((byte,)))
        except zlib.error:
            return
        if unpacked:
            yield unpacked


def lines(file: BinaryIO) -> Iterator[PhysicalLine]:
    """Every line; one that is no UTF-8, too long, or lost in a damaged stream comes with its flaw."""
    number = 0
    rest = b""
    overlong = False
    try:
        for block in blocks(file):
            pieces = (rest + block).splitlines(keepends=True)
            # A line may end in \n, \r\n or \r: after a last \r the \n may be still to come.
            rest = b"" if not pieces or pieces[-1].endswith(b"\n") else pieces.pop()
            for piece in pieces:
                number += 1
                yield _line(number, piece, overlong)
                overlong = False
            if len(rest) > LONGEST:
                overlong = True
                rest = b""
    except DamagedError as error:
        yield PhysicalLine(number + 1, "", str(error))
        return
    if rest or overlong:
        yield _line(number + 1, rest, overlong)


def _line(number: int, piece: bytes, overlong: bool) -> PhysicalLine:
    if overlong or len(piece) > LONGEST:
        return PhysicalLine(number, "", f"the line is longer than {LONGEST:,} bytes")
    try:
        return PhysicalLine(number, piece.decode())
    except UnicodeDecodeError as error:
        return PhysicalLine(number, "", f"not UTF-8 at byte {error.start + 1} of the line")
