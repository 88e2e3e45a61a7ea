"""CSV records out of physical lines: a bad one costs itself, never its neighbours."""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from .lines import PhysicalLine

SPAN = 20
"""How many lines one record may reach over, by line ends inside quotation marks."""


class Record(NamedTuple):
    """The fields of one record and the number of its first line, or why there are none."""

    number: int
    fields: list[str]
    flaw: str | None = None


class Records:
    """Iterates over the records of a file; blank lines are none, as for `csv.reader`.

    width: the count of fields of a good record; None takes the first record's.
    """

    def __init__(self, lines: Iterable[PhysicalLine], width: int | None = None) -> None:
        self._lines = iter(lines)
        self._pushed: deque[PhysicalLine] = deque()
        self._width = width

    def __iter__(self) -> Iterator[Record]:
        while (line := self._next()) is not None:
            if line.flaw is None and not line.text.strip("\r\n"):
                continue
            record = self._record(line)
            if self._width is None:
                self._width = len(record.fields)
            yield record

    def _next(self) -> PhysicalLine | None:
        return self._pushed.popleft() if self._pushed else next(self._lines, None)

    def _record(self, line: PhysicalLine) -> Record:
        if line.flaw is not None:
            return Record(line.number, [], line.flaw)
        if '"' in line.text:
            return self._quoted(line)
        fields = line.text.rstrip("\r\n").split(",")
        return Record(line.number, fields, self._misfit(fields))

    def _misfit(self, fields: list[str]) -> str | None:
        if self._width is None or len(fields) == self._width:
            return None
        return f"{len(fields)} columns instead of {self._width}"

    def _quoted(self, first: PhysicalLine) -> Record:
        held: list[PhysicalLine] = []
        unclosed = False

        def text() -> Iterator[str]:
            nonlocal unclosed
            yield first.text
            # csv asks for more only while a quotation mark is open.
            while len(held) < SPAN and (line := self._next()) is not None:
                held.append(line)
                if line.flaw is not None:
                    break
                yield line.text
            unclosed = True

        flaw: str | None
        try:
            fields = next(csv.reader(text()))
        except csv.Error as error:
            fields, flaw = [], f"not CSV: {error}"
        else:
            flaw = "a quotation mark is never closed" if unclosed else self._misfit(fields)
        if flaw is not None:
            self._pushed.extendleft(reversed(held))
        return Record(first.number, fields, flaw)
