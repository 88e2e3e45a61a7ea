"""The tasks of one App: declared, sent, and run."""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from typing import Any, ParamSpec, TypeVar

from eventmill.core.capabilities import Store
from eventmill.core.clock import Clock
from eventmill.core.envelope import Envelopes
from eventmill.core.errors import ConfigurationError
from eventmill.core.message import Message
from eventmill.core.names import check_name
from eventmill.core.retry import RetryPolicy, exponential
from eventmill.patterns.tasks.attempts import Attempts
from eventmill.patterns.tasks.task import Call, Task
from eventmill.runtime.heartbeat import Heartbeat
from eventmill.runtime.transaction import current
from eventmill.runtime.worker import Changed, Worker

P = ParamSpec("P")
R = TypeVar("R")

DEFAULT = "default"
TOPIC = "task"


@dataclass(frozen=True, slots=True)
class Queue:
    """How a queue is worked on. concurrency: tasks that run at a time in each process."""

    name: str
    concurrency: int = 16


class StoreBackend(Store, Changed):
    """A store that tells of what was committed."""


class Tasks:
    """`app.tasks`: what an App's workers run. Made by the App."""

    def __init__(
        self, app: str, store: Any, *, envelopes: Envelopes, clock: Clock, rng: random.Random, lease: float
    ) -> None:
        self.by_type: dict[str, Task[..., Any]] = {}
        self.queues: dict[str, Queue] = {}
        self._app = app
        self._store: StoreBackend = store
        self._envelopes = envelopes
        self._clock = clock
        self._rng = rng
        self._lease = lease
        self._workers: list[Worker] = []

    # Declaring

    def task(
        self,
        *,
        name: str | None = None,
        retry: RetryPolicy | None = None,
        timeout: float | None = None,
        queue: str = DEFAULT,
        priority: int = 0,
    ) -> Callable[[Callable[P, R]], Task[P, R]]:
        """See `App.task`."""

        def register(function: Callable[P, R]) -> Task[P, R]:
            called = check_name((name or function.__name__).replace("__", "_").strip("_"), "name")
            if timeout is not None and not timeout > 0:
                raise ConfigurationError(f"task {called}: timeout={timeout}; give seconds above 0")
            task = Task(
                function,
                self,
                name=called,
                queue=check_name(queue, "queue"),
                retry=retry or exponential(),
                timeout=timeout,
                priority=priority,
            )
            if task.type in self.by_type:
                raise ConfigurationError(f"task {called!r} is there already: give this one another name=")
            self.by_type[task.type] = task
            self.queues.setdefault(queue, Queue(queue))
            return task

        return register

    def queue(self, name: str, *, concurrency: int = 16) -> None:
        """Say how a queue is worked on. concurrency: tasks that run at a time in each process."""
        if concurrency < 1:
            raise ConfigurationError(f"queue {name}: concurrency={concurrency}; give 1 or more")
        self.queues[check_name(name, "name")] = Queue(name, concurrency)

    # What a task stands on

    def message(self, name: str, data: bytes) -> Message:
        return self._envelopes.written(name, TOPIC, data)

    def now(self) -> float:
        return self._clock.now()

    def store_queue(self, queue: str) -> str:
        """The queue's name in the store, where those of other services may be, too."""
        return f"{self._app}/{queue}"

    # Sending

    async def send(self, call: Call, *, after: float | None = None, at: datetime | None = None) -> str:
        """See `App.send`."""
        transaction = current.get()
        if transaction is not None and transaction.open and transaction.belongs_to(self._envelopes):
            return transaction.send(call, after=after, at=at)
        job = call.stored(after=after, at=at)
        unit = self._store.unit()
        unit.send([job])
        await (await unit.finish())
        return job.message.id

    # Running

    def workers(self, incarnation: str, heartbeat: Heartbeat, numbers: count[int]) -> list[Worker]:
        """One for each queue that has tasks here."""
        used = {task.queue for task in self.by_type.values()}
        self._workers = []
        for queue in self.queues.values():
            if queue.name not in used:
                continue
            attempts = Attempts(
                self.by_type,
                store=self._store,
                envelopes=self._envelopes,
                clock=self._clock,
                rng=self._rng,
                threads=ThreadPoolExecutor(queue.concurrency, thread_name_prefix=f"eventmill-{queue.name}"),
            )
            self._workers.append(
                Worker(
                    self.store_queue(queue.name),
                    attempts,
                    store=self._store,
                    heartbeat=heartbeat,
                    clock=self._clock,
                    lease=self._lease,
                    member=f"{incarnation}/{self._app}.{next(numbers)}",
                    concurrency=queue.concurrency,
                    changed=self._store,
                )
            )
        return self._workers
