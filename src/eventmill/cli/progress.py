"""How far something long has come, where a person looks on: on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import click

from eventmill.cli.output import note, span
from eventmill.patterns.projection.catch_up import Progress, Report

WIDTH = 24
LINES_EVERY = 5.0
"""Seconds between two lines where there is no terminal to draw a bar on."""


def line(progress: Progress) -> str:
    """A bar, how many of how many, how fast, and how long it will take yet."""
    share = 1.0 if progress.total <= 0 else min(1.0, progress.done / progress.total)
    filled = int(share * WIDTH)
    bar = "█" * filled + "░" * (WIDTH - filled)
    left = "" if progress.left is None or progress.done >= progress.total else f"  {span(progress.left)} left"
    return f"{bar} {share:4.0%}  {progress.done:,} of {progress.total:,} events  {progress.rate:,.0f}/s{left}"


@contextmanager
def told(label: str) -> Iterator[Report]:
    """A report that shows itself: as a bar on a terminal, else as a line now and then."""
    terminal = sys.stderr.isatty()
    last = time.monotonic()

    def report(progress: Progress) -> None:
        nonlocal last
        if terminal:
            click.echo(f"\r\x1b[K{label}  {line(progress)}", err=True, nl=False)
        elif time.monotonic() - last >= LINES_EVERY:
            last = time.monotonic()
            note(f"{label}  {line(progress)}")

    try:
        yield report
    finally:
        if terminal:
            click.echo(err=True)
