"""Tasks whose calls are messages of a topic when they are due: a consumer group of the broker are their workers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from eventmill.core.errors import ConfigurationError
from eventmill.core.message import Message
from eventmill.core.outcome import Outcome
from eventmill.core.reading import Types
from eventmill.patterns.tasks.call import THEN, Desk, decode_spec, start
from eventmill.patterns.tasks.context import TaskContext
from eventmill.patterns.tasks.task import Task
from eventmill.runtime.consumer import Consumer
from eventmill.runtime.delivery import Delivery
from eventmill.runtime.handler import Context
from eventmill.runtime.stages import Stages
from eventmill.runtime.thread import in_thread
from eventmill.runtime.transaction import SyncTransaction, Transaction


class TaskHandling:
    """Runs the calls of one task that come as messages. See `eventmill.runtime.handler.Handling`."""

    plain = False
    staged = False
    event_class: object = None

    def __init__(self, task: Task[..., Any], desk: Desk) -> None:
        self.name = f"task {task.name}"
        self._task = task
        self._desk = desk

    def call_plain(self, message: Message, transaction: Transaction) -> Awaitable[Any]:
        """Never asked for: `plain` is False."""
        raise NotImplementedError

    def call(
        self,
        deliveries: Sequence[Delivery],
        transaction: Transaction,
        context: Callable[[], Context],
        stages: Stages | None = None,
    ) -> Awaitable[Any]:
        """Begin the call."""
        return self._call(deliveries[0].message, transaction, context())

    async def _call(self, message: Message, transaction: Transaction, context: Context) -> object:
        task = self._task
        key = f"{task.name}:{message.id}"
        given = {
            "@transaction": transaction,
            "@message": message,
            "@context": TaskContext(task.name, context.attempt, key, context.position, id=message.id),
        }
        if task.sync:
            given["@sync"] = SyncTransaction(transaction, asyncio.get_running_loop())
        called = task.bound(message.data, given.__getitem__)
        if task.sync:
            result = await in_thread(None, called)
        else:
            result = await called()
        outcome = task.refusal(result)
        then = (message.extensions or {}).get(THEN)
        if outcome is None and then is not None:
            start(transaction.unit, self._desk, decode_spec(then), None)
        return outcome

    def refusal(self, result: object) -> Outcome | None:
        """What the task has returned, where that is an outcome."""
        return self._task.refusal(result)


def consumer_of(task: Task[..., Any], desk: Desk, group: str, concurrency: int) -> Consumer:
    """The consumer group that runs a task through its topic. Refuses what it could not keep to."""
    topic = task.topic
    assert topic is not None
    for what, given in (
        ("unique", task.unique), ("keep", task.keep), ("limit", task.limit), ("priority", task.priority or None),
    ):  # fmt: skip
        if given is not None:
            raise ConfigurationError(
                f"task {task.name}: {what}= is kept by the store's jobs, and topic= makes its calls messages: leave one of them out"
            )
    if task.isolated:
        raise ConfigurationError(
            f"task {task.name}: a `def` with timeout= does not go through a topic: make it `async def`"
        )
    return Consumer(
        group=group,
        types=Types(frozenset({task.type}), frozenset()),
        topics=lambda present: frozenset({topic}),
        handler=TaskHandling(task, desk),
        retry=task.retry,
        concurrency=concurrency,
        timeout=task.timeout,
        on_dead="skip",
    )
