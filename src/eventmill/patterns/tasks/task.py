"""A function that workers run."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Generic, ParamSpec, TypeVar

import msgspec

from eventmill.core.checks import check_seconds
from eventmill.core.errors import ConfigurationError
from eventmill.core.outcome import DeadLetter, Retry, Snooze
from eventmill.core.retry import RetryPolicy, check_policy
from eventmill.patterns.tasks.arguments import Arguments
from eventmill.patterns.tasks.call import Call, CallSpec, Desk, check_priority
from eventmill.patterns.tasks.context import TaskContext
from eventmill.patterns.tasks.held import OF_QUEUE, carried
from eventmill.patterns.tasks.limit import Limit, check_limit
from eventmill.patterns.tasks.unique import Unique

P = ParamSpec("P")
R = TypeVar("R")

PREFIX = "task."
"""What the type of a task's message begins with."""


class Task(Generic[P, R]):
    """A function with a name, a queue and a policy. Calling it just calls it; `job` makes a call for a worker."""

    def __init__(
        self,
        function: Callable[P, R],
        desk: Desk,
        *,
        name: str,
        queue: str,
        store_queue: str,
        retry: RetryPolicy,
        timeout: float | None = None,
        priority: int = 0,
        unique: Unique | None = None,
        keep: float | None = None,
        topic: str | None = None,
        limit: Limit | None = None,
        queue_limit: Callable[[], Limit | None] = lambda: None,
    ) -> None:
        where = f"task {name}"
        check_policy(retry, where)
        for what, seconds in (("timeout", timeout), ("keep", keep)):
            if seconds is not None:
                check_seconds(seconds, where, what)
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise ConfigurationError(f"{where}: its function yields, so calling it runs nothing of it: let it return")
        self.function = function
        self.name = name
        self.queue = queue
        self.retry = retry
        self.timeout = timeout
        self.priority = check_priority(priority, where)
        self.unique = unique
        self.keep = keep
        self.topic = topic
        self.sync = not inspect.iscoroutinefunction(function)
        self.arguments = Arguments(function, name)
        self.type = f"{PREFIX}{name}"
        self.isolated = self.sync and timeout is not None
        if self.isolated:
            self._check_isolated()
        if unique is not None:
            unique.check(name, self.arguments.names)
        if limit is not None:
            check_limit(limit, where, self.arguments.names)
        self.limit = limit
        self._queue_limit = queue_limit
        self._desk = desk
        self._store_queue = store_queue
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
        data = self.arguments.encode(args, kwargs)
        key = None
        if self.unique is not None:
            key = self.unique.key(self.name, self.arguments.names, self.arguments.decode(data))
        spec = CallSpec(
            self.type, self._store_queue, msgspec.Raw(data), self.priority, self.topic, key, self._limits(data)
        )
        return Call(self._desk, spec, self.unique)

    def _limits(self, data: bytes) -> str | None:
        of_queue = self._queue_limit()
        if self.limit is None and of_queue is None:
            return None
        limits = [] if of_queue is None else [of_queue.of(f"{OF_QUEUE}{self.queue}", None)]
        if self.limit is not None:
            limits.append(self.limit.of(f"task/{self.name}", self.arguments.decode(data)))
        return carried(limits)

    def refusal(self, result: object) -> Retry | DeadLetter | Snooze | None:
        """What the function's return value asks for; None where it is a result."""
        if isinstance(result, Retry | DeadLetter | Snooze):
            return result
        if isinstance(result, Awaitable):
            raise TypeError(f"task {self.name} returned something to await; make it `async def`, or await it inside")
        return None

    def bound(self, data: bytes, given: Callable[[str], object]) -> Callable[[], Any]:
        """The call to make. given: what a parameter of a wanted kind gets. Raises DecodeError."""
        arguments = self.arguments
        function: Callable[..., Any] = self.function
        if arguments.none:
            return function
        decoded = arguments.decode(data)
        values = [given(want) if want[0] == "@" else getattr(decoded, want) for want in arguments.wants]
        if not arguments.keywords:
            return partial(function, *values)
        last = len(values) - len(arguments.keywords)
        named = dict(zip(arguments.keywords, values[last:], strict=True))
        return partial(function, *values[:last], **named)

    # In a process that can be killed

    def _check_isolated(self) -> None:
        where = f"task {self.name} is a `def` with a timeout, so it runs in a process that can be killed"
        if "<locals>" in self.function.__qualname__:
            raise ConfigurationError(
                f"{where}, which has to import it: define it at module level, or make it `async def`"
            )
        for want in ("@transaction", "@sync", "@message"):
            if want in self.arguments.wants:
                raise ConfigurationError(
                    f"{where}, where the transaction is not: leave the parameter out, and write in a task that follows, "
                    "or make it `async def`"
                )

    @property
    def place(self) -> dict[str, str | None]:
        """Where another process finds it."""
        module = sys.modules.get(self.function.__module__)
        file = getattr(module, "__file__", None) if self.function.__module__ == "__main__" else None
        return {"module": self.function.__module__, "name": self.function.__qualname__, "file": file}

    def run_isolated(self, data: bytes, about: dict[str, Any], tell: Callable[[float, float | None, str], None]) -> Any:
        """Called in that process. about: what the context says."""
        context = TaskContext(**about, _tell=tell)
        result = self.bound(data, lambda _: context)()
        self.refusal(result)
        return result
