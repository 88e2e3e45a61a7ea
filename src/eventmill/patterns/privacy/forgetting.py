"""Forgetting a subject."""

from __future__ import annotations

from eventmill.core.errors import ConfigurationError, MessageError
from eventmill.core.event import Event
from eventmill.patterns.sourcing.host import Host


class SubjectForgotten(Event, name="eventmill.subject.forgotten", key="subject"):
    """Whatever was personal to a subject cannot be read any more: views that hold some of it drop it now."""

    subject: str


class Forgetting(Host):
    """The App's call for the right to be forgotten."""

    async def forget(self, subject: str) -> bool:
        """Make everything that is personal to a subject unreadable, for ever; returns False where it was so already.

        subject: the value of the field that events name in `personal=`. Its key is destroyed; the fields that were sealed
        with it read as their redacted value from then on, in every stream, replay and dead letter, and what is published
        about the subject later is stored redacted. The fact `eventmill.subject.forgotten` says so to all, in the same commit:
        rows of your own tables are yours to clean. Keys are held in memory for a second at most: so long, other processes
        (and this one, where a transaction was joined) may still read.

        On SQLite, nothing of the key is left in the file or its write-ahead log when this returns; calling it again does
        that part again. Inside a handler or a transaction the key ends with the commit, and that part is left to the next
        call outside of one. Backups are yours to let expire.

        Raises ConfigurationError for what is no subject, BackendUnavailableError where something kept the file
        from being cleaned: the subject is forgotten then, and the call may be repeated.
        """
        joined = self._joined() is not None
        async with self.transaction() as tx:
            try:
                forgotten = await self._vault.forget(subject, tx.unit)
            except MessageError as error:
                raise ConfigurationError(f"forget: {error}") from error
            if forgotten:
                tx.publish(SubjectForgotten(subject))
        self._vault.drop(subject)
        if not joined:
            await self.store.scrub()
        return forgotten
