"""How far a capture has come: a document that is written in the commit of the messages it speaks of."""

from __future__ import annotations

from typing import Literal

import msgspec

from eventmill.core.changes import Shape
from eventmill.core.errors import ConfigurationError


class Copied(msgspec.Struct, kw_only=True, omit_defaults=True):
    """How much of a table the snapshot has told. after: the last key, as text. rows: told; estimate: of how many, about.

    since, before: when the copying of it was begun or taken up again (milliseconds), and how many rows were told then.
    """

    state: Literal["waiting", "copying", "done"] = "waiting"
    after: tuple[str, ...] | None = None
    rows: int = 0
    estimate: int = 0
    since: int = 0
    before: int = 0


class Progress(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What is done. epoch: a new one each time the capture begins anew; part of every message's id.

    position: of the source, everything before it is done. within: the position of a transaction whose first `told`
    changes are done, where it was too large for one commit. recent: see `window.Recent`, while a snapshot is under way.
    at: when this was written, in milliseconds.
    """

    epoch: str
    position: int
    within: int | None = None
    told: int = 0
    tables: dict[str, Copied] = {}
    recent: list[int] = []
    at: int = 0

    @property
    def copying(self) -> bool:
        """Whether some table's snapshot is not complete."""
        return any(copied.state != "done" for copied in self.tables.values())


class Shapes(msgspec.Struct):
    """The tables as they were at the progress's position. Kept apart, since they seldom change."""

    tables: dict[str, Shape]


def progress_key(capture: str) -> str:
    return f"cdc/{capture}/progress"


def shapes_key(capture: str) -> str:
    return f"cdc/{capture}/shapes"


_read_progress = msgspec.json.Decoder(Progress).decode
_read_shapes = msgspec.json.Decoder(Shapes).decode
write = msgspec.json.Encoder().encode


def read_progress(data: bytes, capture: str) -> Progress:
    try:
        return _read_progress(data)
    except msgspec.DecodeError as error:
        raise ConfigurationError(f"capture {capture}: its progress cannot be read by this version: {error}") from error


def read_shapes(data: bytes, capture: str) -> dict[str, Shape]:
    try:
        return _read_shapes(data).tables
    except msgspec.DecodeError as error:
        raise ConfigurationError(f"capture {capture}: its tables cannot be read by this version: {error}") from error
