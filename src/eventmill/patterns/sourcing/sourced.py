"""Event sourcing as the App offers it."""

from __future__ import annotations

from eventmill.patterns.sourcing.past import Past


class EventSourcing(Past):
    """Streams of facts, the entities folded from them, commands that decide on those, and their past."""
