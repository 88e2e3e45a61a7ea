"""Event-driven architecture for Python, whole: seven patterns, one transaction, one rule of delivery."""

from eventmill import outbox
from eventmill.app import App
from eventmill.core.aggregate import Aggregate
from eventmill.core.decider import Decider, Loaded
from eventmill.core.document import ABSENT, Document
from eventmill.core.errors import (
    BackendError,
    BackendUnavailableError,
    CapabilityError,
    ConfigurationError,
    ConflictError,
    DecodeError,
    EncodeError,
    EventmillError,
    LeaseLostError,
    MessageTooLargeError,
    OutsideTransactionError,
    StorageFullError,
    StreamClosedError,
    StreamIncompleteError,
    TagConflictError,
    UnknownEventError,
    WrongExpectedVersionError,
)
from eventmill.core.event import Event, event, named, upcast
from eventmill.core.message import Message
from eventmill.core.outcome import Ack, DeadLetter, Retry
from eventmill.core.personal import Personal
from eventmill.core.retry import NO_RETRY, RetryPolicy, exponential, fixed, schedule
from eventmill.core.rows import Rows
from eventmill.core.stream import ANY, Appended, Query, Stream
from eventmill.patterns.privacy.forgetting import SubjectForgotten
from eventmill.patterns.sourcing.commands import Decision
from eventmill.patterns.sourcing.executed import Executed
from eventmill.patterns.sourcing.fact import Fact
from eventmill.runtime.handler import Context
from eventmill.runtime.resequencing import ResequencePolicy
from eventmill.runtime.service import Service
from eventmill.runtime.transaction import SyncTransaction, Transaction
from eventmill.settings import Settings
from eventmill.sync import SyncApp

__version__ = "0.1.0"

__all__ = [
    "ABSENT",
    "ANY",
    "NO_RETRY",
    "Ack",
    "Aggregate",
    "App",
    "Appended",
    "BackendError",
    "BackendUnavailableError",
    "CapabilityError",
    "ConfigurationError",
    "ConflictError",
    "Context",
    "DeadLetter",
    "Decider",
    "Decision",
    "DecodeError",
    "Document",
    "EncodeError",
    "Event",
    "EventmillError",
    "Executed",
    "Fact",
    "LeaseLostError",
    "Loaded",
    "Message",
    "MessageTooLargeError",
    "OutsideTransactionError",
    "Personal",
    "Query",
    "ResequencePolicy",
    "Retry",
    "RetryPolicy",
    "Rows",
    "Service",
    "Settings",
    "StorageFullError",
    "Stream",
    "StreamClosedError",
    "StreamIncompleteError",
    "SubjectForgotten",
    "SyncApp",
    "SyncTransaction",
    "TagConflictError",
    "Transaction",
    "UnknownEventError",
    "WrongExpectedVersionError",
    "event",
    "exponential",
    "fixed",
    "named",
    "outbox",
    "schedule",
    "upcast",
]
