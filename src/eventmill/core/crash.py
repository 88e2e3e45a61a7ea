"""Named points at which a test may kill the process, and nothing else."""

from __future__ import annotations

from collections.abc import Callable

hook: Callable[[str], None] | None = None
"""Called with each point's name as it is passed; set by the crash kit (`eventmill.testing.crash`) only."""


def point(name: str) -> None:
    """Pass a point whose surroundings must survive a crash exactly here."""
    if hook is not None:
        hook(name)
