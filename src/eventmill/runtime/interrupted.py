"""Doing a unit again that was undone because of another one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from eventmill.core.errors import UnitInterruptedError

T = TypeVar("T")


async def through(work: Callable[[], Awaitable[T]]) -> T:
    """What the work returns, which is begun anew whenever its unit is interrupted by another of its commit's."""
    while True:
        try:
            return await work()
        except UnitInterruptedError:
            continue
