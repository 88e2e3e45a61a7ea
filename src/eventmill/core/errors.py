"""Every error that eventmill raises.

    EventmillError
    ├── ConfigurationError            refused at the edge: what is wrong, and the remedy
    │   ├── CapabilityError           a handler needs what the configured backend cannot do
    │   ├── UnknownEventError         an event type that was never registered
    │   ├── MissingHistoryError       a view cannot be built whole: messages that belong in it were trimmed
    │   └── SchemaVersionError        the database was written by a newer eventmill
    ├── MessageError                  one message is at fault, not the system
    │   ├── MessageTooLargeError      over the limit of bytes or of nesting
    │   ├── UnroutableError           the broker has nobody who waits for it, and would not keep it
    │   ├── EncodeError               the event could not be written as JSON
    │   └── DecodeError               the stored bytes could not be read as the event
    ├── OutsideTransactionError       the call only makes sense inside a transaction
    ├── BehindError                   a view has not come as far as was waited for
    │   └── BlockedError              nor will it by itself: a dead letter is in the way
    ├── ConflictError                 a compare-and-set saw another version than it expected
    │   ├── WrongExpectedVersionError  a stream stands at another version than the append expected
    │   └── TagConflictError          an event with tags that an append has ruled out was there
    ├── StreamIncompleteError         events that a state must be folded from were trimmed
    ├── StreamClosedError             the stream was archived, or ended for good by a tombstone
    ├── DuplicateError                a message that this group has handled already
    ├── DuplicateTaskError            a unique call that is there already, and whose task refuses a second one
    ├── LeaseLostError                this worker's claim was taken over: nothing it does may commit
    ├── UnitInterruptedError          a unit was undone because of another one it shared a commit with: do it again
    └── BackendError                  the database or the broker
        ├── BackendUnavailableError   it does not answer, or stays locked; retrying may help
        └── StorageFullError          no space left; nothing was written

Cancellation is never one of these.
"""

from __future__ import annotations


class EventmillError(Exception):
    """Base of every error here."""


class ConfigurationError(EventmillError):
    """A setting, a name or a combination was refused before anything ran."""


class CapabilityError(ConfigurationError):
    """A handler needs a capability that the configured backend does not have."""


class UnknownEventError(ConfigurationError):
    """The event's type has no name on the wire, because it was never registered."""


class MissingHistoryError(ConfigurationError):
    """A view cannot be built whole, because messages that belong in it were trimmed."""


class SchemaVersionError(ConfigurationError):
    """The database's schema is newer than this code, or its history was changed."""


class MessageError(EventmillError):
    """One message is at fault."""


class MessageTooLargeError(MessageError):
    """A message is over the limit of bytes or of nesting; the text gives both figures."""


class UnroutableError(MessageError):
    """No queue waits for a message, so the broker refused to take it: nothing keeps it but its sender.

    refused: id and source of each message that was refused; what else was in the call is stored. Empty: it is not known.
    """

    def __init__(self, text: str, refused: frozenset[tuple[str, str]] = frozenset()) -> None:
        super().__init__(text)
        self.refused = refused


class EncodeError(MessageError):
    """An event could not be written as JSON; the text names the event type."""


class DecodeError(MessageError):
    """Stored bytes could not be read as the event type they claim to be."""


class OutsideTransactionError(EventmillError):
    """A call that only makes sense inside an open transaction was made outside of one."""


class BehindError(EventmillError):
    """A view has not come as far as was waited for; the text says how far behind it is.

    events: how many wait before it, and seconds: for how long the oldest of them has.
    """

    def __init__(self, text: str, *, events: int, seconds: float) -> None:
        super().__init__(text)
        self.events = events
        self.seconds = seconds


class BlockedError(BehindError):
    """What was waited for is a dead letter of the view, or parked behind one: an operator must replay or skip it."""


class ConflictError(EventmillError):
    """A compare-and-set saw another version than it expected.

    `expected` and `actual` are versions; `actual` is None where nothing is stored.
    """

    def __init__(self, what: str, *, expected: int | None, actual: int | None, text: str | None = None) -> None:
        super().__init__(text or f"{what}: expected version {expected}, found {actual}; load it again and retry")
        self.what = what
        self.expected = expected
        self.actual = actual


class WrongExpectedVersionError(ConflictError):
    """A stream stands at another version than the append expected: 0 where it has no event.

    Also: ids of the caller's own were stored before, but not all of them together.
    """

    def __init__(self, stream: str, *, expected: int, actual: int, text: str | None = None) -> None:
        super().__init__(f"stream {stream}", expected=expected, actual=actual, text=text)


class TagConflictError(ConflictError):
    """An event that the append's condition rules out stands beyond the position it was decided at.

    `expected` is that position, `actual` the one of the latest such event.
    """

    def __init__(self, what: str, *, after: int, found: int) -> None:
        text = f"{what} stands at position {found}, and what was decided knows of none beyond {after}; decide again"
        super().__init__(what, expected=after, actual=found, text=text)


class StreamClosedError(EventmillError):
    """The stream takes no events: it is archived (and can be restored), or ended by a tombstone (and cannot)."""

    def __init__(self, stream: str, how: str) -> None:
        super().__init__(
            f"stream {stream} is {how}: " + ("restore it first" if how == "archived" else "use another key")
        )
        self.stream = stream


class StreamIncompleteError(EventmillError):
    """Events of a stream are not there any more, so no state can be folded from it; the text says which are missing."""


class DuplicateError(EventmillError):
    """The group has handled this message already; nothing was done again."""


class DuplicateTaskError(EventmillError):
    """A unique call is there already. `existing` is its id."""

    def __init__(self, what: str, existing: str) -> None:
        super().__init__(what)
        self.existing = existing


class LeaseLostError(EventmillError):
    """The claim this work ran under was taken over by another worker; nothing was committed."""


class UnitInterruptedError(EventmillError):
    """Another unit of the same commit failed, and the database could only undo them together.

    It is nobody's failure and costs no attempt: the runtime does the whole unit again, and the store
    then keeps it apart from others. A handler never needs to know.
    """


class BackendError(EventmillError):
    """The database or the broker failed."""


class BackendUnavailableError(BackendError):
    """The backend does not answer or stays locked; the call may be tried again."""


class StorageFullError(BackendError):
    """There is no space left on the device; nothing of the call was written."""
