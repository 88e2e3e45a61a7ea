"""What a consumer wants, and how it wants to be treated."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from eventmill.core.capabilities import Capability
from eventmill.core.message import Message
from eventmill.core.reading import Types
from eventmill.core.retry import RetryPolicy, exponential
from eventmill.runtime.handler import Handling
from eventmill.runtime.resequencing import ResequencePolicy


@dataclass(frozen=True, slots=True)
class Consumer:
    """One group's subscription.

    types: which event types it is handed; None for all. topics: where they are looked for, out of
    the topics there are. where: a further condition on the envelope. concurrency: how many keys at
    a time. batch: how many messages the handler takes at most, or None for one by one.
    prefetch: how many messages a member holds at a time at least, whatever the App's settings say.
    timeout: seconds a handler may take. on_dead: what becomes of a dead letter's key.
    inbox: whether repeats of a message are to be expected, and are to be dropped.
    resequence: how to bring a foreign source's messages back into order.
    suspects: whether a message may be what kills its handler's process.
    needs: what the broker must be able to do for it. own: whether it reads the service's own log, not the broker.
    """

    group: str
    types: Types | None
    topics: Callable[[Mapping[str, int]], frozenset[str]]
    handler: Handling
    where: Callable[[Message], bool] | None = None
    retry: RetryPolicy = field(default_factory=exponential)
    concurrency: int = 8
    batch: int | None = None
    prefetch: int = 0
    timeout: float | None = None
    on_dead: Literal["park", "skip"] = "park"
    inbox: bool = False
    resequence: ResequencePolicy | None = None
    suspects: bool = True
    needs: Capability = Capability.SUBSCRIBER
    own: bool = False

    def wants(self, message: Message) -> bool:
        """Whether the condition holds. One that raises holds: it is asked again where that counts as a failure."""
        if self.where is None:
            return True
        try:
            return bool(self.where(message))
        except Exception:
            return True
