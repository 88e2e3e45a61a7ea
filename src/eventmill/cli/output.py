"""What the commands print: tables for people, JSON for programs, and nothing that a terminal would obey."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime

import click

Cell = str | int | None


def safe(text: str, *, lines: bool = False) -> str:
    """The text with control and formatting characters written as escapes.

    What a stranger published must not move the cursor, recolour or reorder what is on the screen.
    lines: keep line ends.
    """
    if text.isprintable():
        return text
    return "".join(
        character
        if character.isprintable() or (lines and character == "\n")
        else character.encode("unicode_escape", "surrogatepass").decode("ascii")
        for character in text
    )


def table(headers: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
    """Print rows in columns; numbers to the right and with thousands apart, None as a dash."""
    texts = [[_text(cell) for cell in row] for row in rows]
    right = [any(isinstance(row[index], int) for row in rows) for index in range(len(headers))]
    widths = [max(len(line[index]) for line in [headers, *texts]) for index in range(len(headers))]
    for line in [headers, *texts]:
        cells = zip(line, widths, right, strict=True)
        click.echo("  ".join(text.rjust(width) if left else text.ljust(width) for text, width, left in cells).rstrip())


def _text(cell: Cell) -> str:
    if cell is None:
        return "-"
    return f"{cell:,}" if isinstance(cell, int) else safe(cell)


def document(value: object, *, indent: int | None = 2) -> None:
    """Print one JSON document. ASCII only, so that it is as harmless on a terminal as it is exact in a pipe."""
    click.echo(json.dumps(value, indent=indent))


def note(text: str) -> None:
    """Say something to the person, where it does not disturb what is piped on."""
    click.echo(text, err=True)


def moment(milliseconds: int | None) -> str | None:
    """A moment as RFC 3339 in UTC."""
    if milliseconds is None:
        return None
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def span(seconds: float | None) -> str | None:
    """A span of time in the unit that fits."""
    if seconds is None:
        return None
    for size, unit in ((86_400.0, "d"), (3_600.0, "h"), (60.0, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.1f} s"


def counted(number: int, noun: str, plural: str = "") -> str:
    """`1 message`, `2 messages`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
