"""Publishing inside your own transaction: `eventmill.outbox.add(connection_or_session, *events)`."""

from eventmill.patterns.outbox import add, install

__all__ = ["add", "install"]
