"""Event sourcing as the App offers it."""

from __future__ import annotations

from eventmill.patterns.sourcing.commands import Commands


class EventSourcing(Commands):
    """Streams of facts, the entities folded from them, commands that decide on those, and their past."""
