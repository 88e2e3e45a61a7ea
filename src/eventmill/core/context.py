"""What is being handled right now: new messages take their correlation from it."""

from __future__ import annotations

from contextvars import ContextVar

from eventmill.core.message import Message

handling: ContextVar[Message | None] = ContextVar("eventmill_handling", default=None)
"""The message whose handler runs in this context; the runtime sets it around each handler."""
