"""What a running task may know and say about itself."""

from __future__ import annotations

from dataclasses import dataclass

from eventmill.runtime.handler import Context


@dataclass(frozen=True, slots=True)
class TaskContext(Context):
    """The context of a task: `id` is what `send` returned. See `Context` for the rest."""

    id: str = ""
