"""Event sourcing as the App offers it."""

from __future__ import annotations

from eventmill.patterns.privacy.forgetting import Forgetting
from eventmill.patterns.sourcing.past import Past


class EventSourcing(Past, Forgetting):
    """Streams of facts, the entities folded from them, commands that decide on those, and their past."""
