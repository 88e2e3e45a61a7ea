"""What one memory store holds, shared by all backends of its name."""

from __future__ import annotations

import asyncio
import weakref

from eventmill.backends.memory.changes import Changes
from eventmill.backends.memory.documents import MemoryDocuments
from eventmill.backends.memory.groups import MemoryGroups
from eventmill.backends.memory.jobs import MemoryJobs
from eventmill.backends.memory.log import MemoryLog
from eventmill.backends.memory.tables import Tables
from eventmill.core.errors import ConfigurationError


class State:
    """The data, and the turn: units that read or run SQL go one after another, first come, first served."""

    def __init__(self, name: str | None) -> None:
        self.name = name
        self.log = MemoryLog()
        self.groups = MemoryGroups()
        self.jobs = MemoryJobs()
        self.documents = MemoryDocuments()
        self.inbox: dict[tuple[str, str, str], float] = {}
        self.tables = Tables()
        self.changes = Changes()
        self.turn = asyncio.Lock()
        self._users = 0
        self._loop: asyncio.AbstractEventLoop | None = None

    def enter(self) -> None:
        """One more backend works here, on the running loop."""
        loop = asyncio.get_running_loop()
        if self._users and loop is not self._loop:
            raise ConfigurationError(
                f"memory://{self.name or ''} is open on another event loop: "
                "memory is shared within one loop only; use sqlite:/// across threads and processes"
            )
        if not self._users:
            self._loop = loop
            # Both belong to a loop; the last one may be gone.
            self.turn = asyncio.Lock()
        self._users += 1

    def leave(self) -> None:
        self._users -= 1


_NAMED: weakref.WeakValueDictionary[str, State] = weakref.WeakValueDictionary()


def state_of(name: str | None) -> State:
    """The state of this name, as long as anyone keeps it; None for one of its own."""
    if name is None:
        return State(None)
    state = _NAMED.get(name)
    if state is None:
        state = _NAMED[name] = State(name)
    return state
