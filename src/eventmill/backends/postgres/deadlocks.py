"""Transactions that PostgreSQL ends because two of them wait for each other."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import ParamSpec, TypeVar

from psycopg.errors import DeadlockDetected

P = ParamSpec("P")
T = TypeVar("T")

ATTEMPTS = 8


def tried_again(method: Callable[P, Coroutine[None, None, T]]) -> Callable[P, Coroutine[None, None, T]]:
    """A method that is one transaction of its own: the server has undone it whole, and the other one goes on."""

    @wraps(method)
    async def trying(*args: P.args, **kwargs: P.kwargs) -> T:
        for attempt in range(1, ATTEMPTS):
            try:
                return await method(*args, **kwargs)
            except DeadlockDetected:
                await asyncio.sleep(random.uniform(0.0, 0.02 * attempt))  # noqa: S311 - jitter, not secrecy
        return await method(*args, **kwargs)

    return trying
