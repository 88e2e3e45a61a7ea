"""A function that workers run, and calls of it that are yet to come."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from datetime import datetime
from typing import Any, Generic, ParamSpec, Protocol, TypeVar

from eventmill.core.errors import ConfigurationError
from eventmill.core.job import MAX_PRIORITY, Job
from eventmill.core.message import Message
from eventmill.core.outcome import DeadLetter, Retry, Snooze
from eventmill.core.retry import RetryPolicy
from eventmill.patterns.tasks.arguments import Arguments

P = ParamSpec("P")
R = TypeVar("R")

PREFIX = "task."
"""What the type of a task's message begins with."""


class Desk(Protocol):
    """Where a task's calls are handed in: the tasks of one App."""

    def message(self, name: str, data: bytes) -> Message: ...

    def now(self) -> float: ...

    def store_queue(self, queue: str) -> str: ...


class Task(Generic[P, R]):
    """A function with a name, a queue and a policy. Calling it just calls it; `job` makes a call for a worker."""

    def __init__(
        self,
        function: Callable[P, R],
        desk: Desk,
        *,
        name: str,
        queue: str,
        retry: RetryPolicy,
        timeout: float | None,
        priority: int,
    ) -> None:
        self.function = function
        self.name = name
        self.queue = queue
        self.retry = retry
        self.timeout = timeout
        self.priority = check_priority(priority, f"task {name}")
        self.sync = not inspect.iscoroutinefunction(function)
        self.arguments = Arguments(function, name)
        self.type = f"{PREFIX}{name}"
        self._desk = desk
        self._store_queue = desk.store_queue(queue)
        self.__doc__ = function.__doc__
        self.__name__ = getattr(function, "__name__", name)
        self.__qualname__ = getattr(function, "__qualname__", name)
        self.__module__ = function.__module__
        self.__wrapped__ = function

    def __repr__(self) -> str:
        return f"<Task {self.name} on queue {self.queue}>"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.function(*args, **kwargs)

    def job(self, *args: Any, **kwargs: Any) -> Call:
        """A call for a worker, to be handed to `tx.send` or `app.send`; parameters that the worker gives are left out.

        Raises EncodeError where an argument is missing, unknown, or does not fit its annotation.
        """
        return Call(self, self.arguments.encode(args, kwargs), self.priority)

    def stored(self, call: Call, due: float | None) -> Job:
        """The call as the store keeps it. due: seconds since 1970 UTC; None for now."""
        desk = self._desk
        message = desk.message(self.type, call.data)
        now = int(desk.now() * 1000)
        return Job(
            queue=self._store_queue,
            message=message,
            due=now if due is None else int(due * 1000),
            recorded_at=now,
            priority=call.priority,
            reference=message.id,
        )

    def due(self, after: float | None, at: datetime | None) -> float | None:
        """The moment that `after` or `at` mean; None for now."""
        if after is None and at is None:
            return None
        if after is not None and at is not None:
            raise ConfigurationError("after= and at= are two ways to say when: give one of them")
        if at is not None:
            if at.tzinfo is None:
                raise ConfigurationError(f"at={at.isoformat()}: which time zone? Give a datetime with tzinfo")
            return at.timestamp()
        assert after is not None
        if not 0 <= after < 10**10:
            raise ConfigurationError(f"after={after}: give seconds from 0 on")
        return self._desk.now() + after

    def refusal(self, result: object) -> Retry | DeadLetter | Snooze | None:
        """What the function's return value asks for; None where it is a result."""
        return result if isinstance(result, Retry | DeadLetter | Snooze) else None


class Call:
    """One call of a task, its arguments written already."""

    __slots__ = ("data", "priority", "task")

    def __init__(self, task: Task[Any, Any], data: bytes, priority: int) -> None:
        self.task = task
        self.data = data
        self.priority = priority

    def __repr__(self) -> str:
        return f"<{self.task.name}({self.data.decode()})>"

    def having(self, *, priority: int) -> Call:
        """The same call with another priority than its task's."""
        return Call(self.task, self.data, check_priority(priority, f"task {self.task.name}"))

    def stored(self, *, after: float | None = None, at: datetime | None = None) -> Job:
        """The job to send."""
        return self.task.stored(self, self.task.due(after, at))


def check_priority(priority: int, what: str) -> int:
    """Refuse what is no priority."""
    if isinstance(priority, bool) or not isinstance(priority, int) or abs(priority) > MAX_PRIORITY:
        raise ConfigurationError(
            f"{what}: priority={priority!r}; give a whole number from -{MAX_PRIORITY} to {MAX_PRIORITY}, high ones go first"
        )
    return priority
