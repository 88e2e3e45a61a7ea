"""One result, as a line of JSON and as a row of the closing table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

Figure = float | int | str


@dataclass(frozen=True, slots=True)
class Measurement:
    """What was measured, beside what it is held against.

    peer: the same work done by bare `sqlite3` (or whatever `against` says), measured in turn with it;
    ratio: value / peer. target: what the ratio, or without a peer the value, shall reach, or stay
    below where `bound` is "most". samples: one value a round. details: further figures.
    """

    name: str
    value: float
    unit: str
    target: float | None = None
    bound: Literal["least", "most"] = "least"
    peer: float | None = None
    against: str = "raw"
    samples: Sequence[float] = ()
    details: Mapping[str, Figure] = field(default_factory=dict)

    @property
    def ratio(self) -> float | None:
        return None if self.peer is None else self.value / self.peer

    @property
    def judged(self) -> float:
        """The figure that the target is for."""
        return self.value if self.ratio is None else self.ratio

    @property
    def met(self) -> bool | None:
        """Whether the target is reached; None without one."""
        if self.target is None:
            return None
        return self.judged >= self.target if self.bound == "least" else self.judged <= self.target

    def line(self) -> str:
        """The result as one line of JSON."""
        found: dict[str, object] = {"name": self.name, "value": _short(self.value), "unit": self.unit}
        if self.peer is not None and self.ratio is not None:
            found |= {self.against: _short(self.peer), "ratio": _short(self.ratio)}
        if self.target is not None:
            found |= {"target": self.target, "bound": f"at {self.bound}", "ok": self.met}
        if self.samples:
            found["samples"] = [_short(sample) for sample in self.samples]
        return json.dumps(found | dict(self.details))


def table(measurements: Sequence[Measurement]) -> str:
    """All results for the eye, a row each."""
    head = ("measurement", "value", "", "ratio", "target", "")
    rows = [head, *(_row(each) for each in measurements)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    return "\n".join(
        "  ".join(cell.rjust(width) if column in (1, 3, 4) else cell.ljust(width)
                  for column, (cell, width) in enumerate(zip(row, widths, strict=True))).rstrip()
        for row in rows
    )  # fmt: skip


def _row(each: Measurement) -> tuple[str, ...]:
    ratio = "" if each.ratio is None else f"{each.ratio:.2f}"
    target = "" if each.target is None else f"{'>=' if each.bound == 'least' else '<='} {each.target:g}"
    verdict = {None: "", True: "ok", False: "missed"}[each.met]
    return each.name, f"{_short(each.value):,}", each.unit, ratio, target, verdict


def _short(value: float) -> float:
    """Four digits are more than a busy machine can vouch for."""
    return float(f"{value:.4g}") if abs(value) < 1_000 else round(value)
