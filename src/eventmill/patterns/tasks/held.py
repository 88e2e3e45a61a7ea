"""The limits that a call is under, as its message carries them."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from eventmill.core.job import Job

CARRIED = "tasklimits"
"""Extension of a limited call's message: its limits, as JSON."""

OF_QUEUE = "queue/"
"""What the keys of queues' limits begin with."""


class Held(msgspec.Struct, omit_defaults=True, frozen=True):
    """One limit that a call is under. per: milliseconds."""

    key: str
    concurrency: int | None = None
    number: int | None = None
    per: int = 0


decode_held = msgspec.json.Decoder(list[Held]).decode


def carried(limits: Sequence[Held]) -> str | None:
    return msgspec.json.encode(limits).decode() if limits else None


def limits_of(job: Job) -> Sequence[Held]:
    """The limits that a job is under."""
    said = (job.message.extensions or {}).get(CARRIED)
    return () if said is None else decode_held(said)
