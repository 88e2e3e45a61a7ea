"""How a queue is worked on."""

from __future__ import annotations

from dataclasses import dataclass

from eventmill.core.checks import check_number
from eventmill.core.errors import ConfigurationError
from eventmill.core.names import check_name
from eventmill.patterns.tasks.limit import Limit, check_limit


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue of tasks. concurrency: how many of them run at a time in each process. limit: over all processes."""

    name: str
    concurrency: int = 16
    limit: Limit | None = None

    def __post_init__(self) -> None:
        check_name(self.name, "queue")
        check_number(self.concurrency, f"queue {self.name}", "concurrency")
        if self.limit is not None:
            check_limit(self.limit, f"queue {self.name}", None)

    def refuse_undeclared(self, limit: Limit) -> None:
        """Raise ConfigurationError where the limit names a kind that is not declared: waiting calls do not carry it."""
        declared = self.limit or Limit()
        for kind in ("concurrency", "rate"):
            if getattr(limit, kind) is not None and getattr(declared, kind) is None:
                raise ConfigurationError(
                    f"queue {self.name}: it declares no limit of {kind}, so none can be changed: "
                    f"app.tasks.queue({self.name!r}, limit=Limit({kind}=…)) declares one"
                )
