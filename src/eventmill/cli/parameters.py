"""Values that people write on the command line: 7d, 1GB, 1..4."""

from __future__ import annotations

import re

import click

_SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|min|h|d|w)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3_600.0, "d": 86_400.0, "w": 604_800.0}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?i?B?)", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_RANGE = re.compile(r"(\d+)(?:\.\.(\d+))?")


class Span(click.ParamType):
    """Seconds, written with a unit."""

    name = "SPAN"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        match = _SPAN.fullmatch(str(value).strip())
        if match is None:
            self.fail(f"{value!r} is no span of time; write a number and ms, s, min, h, d or w, such as 7d", param, ctx)
        return float(match[1]) * _SECONDS[match[2]]


class Size(click.ParamType):
    """Bytes: plain, in powers of 1,000 (kB, MB, GB, TB) or of 1,024 (KiB, MiB, GiB, TiB)."""

    name = "SIZE"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        match = _SIZE.fullmatch(str(value).strip())
        if match is None:
            self.fail(
                f"{value!r} is no size; write a number and B, kB, MB, GB, KiB, MiB or GiB, such as 1GB", param, ctx
            )
        unit = match[2].lower().removesuffix("b")
        base = 1_024 if unit.endswith("i") else 1_000
        return int(float(match[1]) * base ** _POWERS[unit.removesuffix("i")])


class Processes(click.ParamType):
    """How many worker processes: a number, or the bounds between which the backlog decides."""

    name = "N|LOW..HIGH"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        match = _RANGE.fullmatch(str(value).strip())
        if match is None:
            self.fail(f"{value!r} is neither a number of processes (4) nor a range (1..4)", param, ctx)
        low, high = int(match[1]), int(match[2] or match[1])
        if not 1 <= low <= high:
            self.fail(f"{value!r}: need 1 <= LOW <= HIGH", param, ctx)
        return low, high
