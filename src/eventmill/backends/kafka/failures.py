"""The client library's words: its errors as ours, its log lines in Python's logging."""

from __future__ import annotations

import logging
import time

from confluent_kafka import KafkaError, KafkaException

from eventmill.core.errors import BackendError, BackendUnavailableError, ConfigurationError

log = logging.getLogger("eventmill.kafka")

REFUSED = {
    KafkaError._AUTHENTICATION,
    KafkaError.SASL_AUTHENTICATION_FAILED,
    KafkaError.UNSUPPORTED_SASL_MECHANISM,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
}
"""Errors that waiting does not mend."""

QUIET = 10.0
"""Seconds between two lines of one kind in the log."""


def of_exception(error: KafkaException) -> KafkaError:
    found = error.args[0]
    assert isinstance(found, KafkaError)
    return found


def translated(error: KafkaError | KafkaException, what: str) -> BackendError:
    """what: which server, and what was asked of it."""
    reason = of_exception(error) if isinstance(error, KafkaException) else error
    kind = BackendError if reason.code() in REFUSED else BackendUnavailableError
    return kind(f"{what}: {reason.str()}")


class LibraryLog:
    """Takes the library's lines, at most as warnings: what matters is raised where it matters.

    secret: never shown, whatever the library writes.
    """

    def __init__(self, secret: str | None) -> None:
        self._secret = secret
        self._said: dict[object, float] = {}

    def log(self, level: int, text: str, *parts: object) -> None:
        kind = parts[0] if parts else text
        now = time.monotonic()
        if kind == "CONFWARN" or now - self._said.get(kind, -QUIET) < QUIET:
            return  # settings are ours, and their warnings known; each of many clients says that it cannot connect
        self._said[kind] = now
        line = text % parts if parts else text
        if self._secret:
            line = line.replace(self._secret, "***")
        log.log(min(level, logging.WARNING), "%s", line)


def configured(error: KafkaException | ValueError, url: str) -> ConfigurationError:
    """The library refused its settings: a file that cannot be read, say."""
    return ConfigurationError(f"{url}: {error.args[0]}")
