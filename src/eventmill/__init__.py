"""Event-driven architecture for Python, whole: seven patterns, one transaction, one rule of delivery."""

from eventmill import outbox
from eventmill.app import App
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
    UnknownEventError,
)
from eventmill.core.event import Event, event, named, upcast
from eventmill.core.message import Message
from eventmill.core.outcome import Ack, DeadLetter, Retry
from eventmill.core.retry import NO_RETRY, RetryPolicy, exponential, fixed, schedule
from eventmill.core.rows import Rows
from eventmill.core.window import session, sliding, tumbling
from eventmill.patterns.aggregation.collected import Collected
from eventmill.patterns.saga.step import StepContext
from eventmill.runtime.handler import Context
from eventmill.runtime.resequencing import ResequencePolicy
from eventmill.runtime.service import Service
from eventmill.runtime.transaction import SyncTransaction, Transaction
from eventmill.settings import Settings
from eventmill.sync import SyncApp

__version__ = "0.1.0"

__all__ = [
    "ABSENT",
    "NO_RETRY",
    "Ack",
    "App",
    "BackendError",
    "BackendUnavailableError",
    "CapabilityError",
    "Collected",
    "ConfigurationError",
    "ConflictError",
    "Context",
    "DeadLetter",
    "DecodeError",
    "Document",
    "EncodeError",
    "Event",
    "EventmillError",
    "LeaseLostError",
    "Message",
    "MessageTooLargeError",
    "OutsideTransactionError",
    "ResequencePolicy",
    "Retry",
    "RetryPolicy",
    "Rows",
    "Service",
    "Settings",
    "StepContext",
    "StorageFullError",
    "SyncApp",
    "SyncTransaction",
    "Transaction",
    "UnknownEventError",
    "event",
    "exponential",
    "fixed",
    "named",
    "outbox",
    "schedule",
    "session",
    "sliding",
    "tumbling",
    "upcast",
]
