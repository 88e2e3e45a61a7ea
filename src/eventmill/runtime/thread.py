"""A `def` function of a user's, run in a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from contextvars import copy_context
from typing import Any


def in_thread(threads: Executor | None, called: Callable[[], Any]) -> asyncio.Future[Any]:
    """Begin a call in a thread of the executor (None: the loop's own), with the context of the caller."""
    return asyncio.get_running_loop().run_in_executor(threads, copy_context().run, _ending, called)


def _ending(called: Callable[[], Any]) -> Any:
    try:
        return called()
    except StopIteration as error:
        # No future holds one: whoever awaits it would wait for ever.
        raise RuntimeError(f"StopIteration: {error}") from error
