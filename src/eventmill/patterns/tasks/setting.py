"""What operators have said of a queue."""

from __future__ import annotations

import msgspec

from eventmill.patterns.tasks.held import Held


class Setting(msgspec.Struct, omit_defaults=True):
    """What was said of a queue; what was not is as it is declared."""

    paused: bool = False
    concurrency: int | None = None
    limit: Held | None = None

    def applied(self, held: Held) -> Held:
        """A call's limit as it is now: what was said takes the place of what was declared when it was sent."""
        said = self.limit
        if said is None:
            return held
        concurrency = held.concurrency if said.concurrency is None else said.concurrency
        number, per = (held.number, held.per) if said.number is None else (said.number, said.per)
        return Held(
            held.key,
            None if held.concurrency is None else concurrency,  # what does not carry one does not give it back, either
            None if held.number is None else number,
            0 if held.number is None else per,
        )


decode_setting = msgspec.json.Decoder(Setting).decode


def setting_key(prefix: str, queue: str) -> str:
    """Where it stands. prefix: of all documents of the service's tasks."""
    return f"{prefix}control/queue/{queue}"
