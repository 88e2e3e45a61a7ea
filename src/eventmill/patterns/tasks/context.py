"""What a running task may know and say about itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from math import isfinite

from eventmill.core.errors import ConfigurationError
from eventmill.core.failure import storable
from eventmill.runtime.handler import Context


@dataclass(frozen=True, slots=True)
class TaskContext(Context):
    """The context of a task; see `Context` for the rest.

    id: what `send` returned. fire: the moment a schedule meant, where one has started it.
    """

    id: str = ""
    fire: datetime | None = None
    _tell: Callable[[float, float | None, str], None] | None = field(default=None, repr=False, compare=False)

    def progress(self, done: float, total: float | None = None, note: str = "") -> None:
        """Say how far it is, for `app.tasks.report(id)`: cheap, to be called as often as one likes.

        What was said last is stored about twice a second. Raises ConfigurationError where the task does not say `keep=`.
        """
        if self._tell is None:
            raise ConfigurationError(f"task {self.group}: its progress has no place; declare it with keep=seconds")
        for what, number in (("done", done), ("total", total)):
            if number is not None and not (isinstance(number, int | float) and isfinite(number)):
                raise ConfigurationError(f"task {self.group}: progress {what}={number!r}; give a number")
        self._tell(float(done), None if total is None else float(total), storable(note))
