"""Event-driven architecture for Python, whole: seven patterns, one transaction, one rule of delivery."""

from eventmill import outbox
from eventmill.app import App
from eventmill.core.aggregate import Aggregate
from eventmill.core.decider import Decider, Loaded
from eventmill.core.document import ABSENT, Document
from eventmill.core.errors import (
    BackendError,
    BackendUnavailableError,
    BehindError,
    BlockedError,
    CapabilityError,
    ConfigurationError,
    ConflictError,
    DecodeError,
    DuplicateTaskError,
    EncodeError,
    EventmillError,
    LeaseLostError,
    MessageTooLargeError,
    MissingHistoryError,
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
from eventmill.core.outcome import Ack, DeadLetter, Retry, Snooze
from eventmill.core.personal import Personal
from eventmill.core.retry import NO_RETRY, RetryPolicy, exponential, fixed, schedule
from eventmill.core.rows import Rows
from eventmill.core.stream import ANY, Appended, Query, Stream
from eventmill.core.window import session, sliding, tumbling
from eventmill.patterns.aggregation.collected import Collected
from eventmill.patterns.privacy.forgetting import SubjectForgotten
from eventmill.patterns.projection.definition import on
from eventmill.patterns.projection.lag import Lag
from eventmill.patterns.projection.view import View
from eventmill.patterns.saga.step import StepContext
from eventmill.patterns.sourcing.commands import Decision
from eventmill.patterns.sourcing.executed import Executed
from eventmill.patterns.sourcing.fact import Fact
from eventmill.patterns.tasks.call import group
from eventmill.patterns.tasks.context import TaskContext
from eventmill.patterns.tasks.limit import Limit
from eventmill.patterns.tasks.task import Task
from eventmill.patterns.tasks.timing import Timing
from eventmill.patterns.tasks.unique import Unique
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
    "BehindError",
    "BlockedError",
    "CapabilityError",
    "Collected",
    "ConfigurationError",
    "ConflictError",
    "Context",
    "DeadLetter",
    "Decider",
    "Decision",
    "DecodeError",
    "Document",
    "DuplicateTaskError",
    "EncodeError",
    "Event",
    "EventmillError",
    "Executed",
    "Fact",
    "Lag",
    "LeaseLostError",
    "Limit",
    "Loaded",
    "Message",
    "MessageTooLargeError",
    "MissingHistoryError",
    "OutsideTransactionError",
    "Personal",
    "Query",
    "ResequencePolicy",
    "Retry",
    "RetryPolicy",
    "Rows",
    "Service",
    "Settings",
    "Snooze",
    "StepContext",
    "StorageFullError",
    "Stream",
    "StreamClosedError",
    "StreamIncompleteError",
    "SubjectForgotten",
    "SyncApp",
    "SyncTransaction",
    "TagConflictError",
    "Task",
    "TaskContext",
    "Timing",
    "Transaction",
    "Unique",
    "UnknownEventError",
    "View",
    "WrongExpectedVersionError",
    "event",
    "exponential",
    "fixed",
    "group",
    "named",
    "on",
    "outbox",
    "schedule",
    "session",
    "sliding",
    "tumbling",
    "upcast",
]
