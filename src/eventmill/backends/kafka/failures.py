"""The client library's words: its errors as ours, its log lines in Python's logging."""

from __future__ import annotations

import logging

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
    """Takes the library's lines: at most as warnings, since what matters is raised where it matters.

    secret: never shown, whatever the library writes.
    """

    def __init__(self, secret: str | None) -> None:
        self._secret = secret

    def log(self, level: int, text: str, *parts: object) -> None:
        if parts and parts[0] == "CONFWARN":
            return  # settings are ours, and their warnings known
        line = text % parts if parts else text
        if self._secret:
            line = line.replace(self._secret, "***")
        log.log(min(level, logging.WARNING), "%s", line)


def configured(error: KafkaException | ValueError, url: str) -> ConfigurationError:
    """The library refused its settings: a file that cannot be read, say."""
    return ConfigurationError(f"{url}: {error.args[0]}")
