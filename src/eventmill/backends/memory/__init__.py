"""Everything in this process's memory: the executable specification, and what users test with."""

from eventmill.backends.memory.backend import MemoryBackend

__all__ = ["MemoryBackend"]
