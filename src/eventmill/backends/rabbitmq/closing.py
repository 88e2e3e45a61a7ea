"""Why a channel or a connection is no more."""

from __future__ import annotations

from eventmill.core.errors import BackendUnavailableError


class ClosedError(BackendUnavailableError):
    """The server ended a channel or the connection, or is gone. code: AMQP's reply code; 0 where nobody said one."""

    def __init__(self, text: str, code: int = 0) -> None:
        super().__init__(text)
        self.code = code
