"""The tasks of one App: declared, sent, run, and looked at."""

from __future__ import annotations

import asyncio
import inspect
import random
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from itertools import count
from typing import Any, ParamSpec, Protocol, TypeVar

import msgspec

from eventmill.core.capabilities import Store
from eventmill.core.clock import Clock
from eventmill.core.envelope import Envelopes
from eventmill.core.errors import ConfigurationError
from eventmill.core.job import Job
from eventmill.core.names import check_name
from eventmill.core.reading import Pending
from eventmill.core.retry import RetryPolicy, exponential
from eventmill.patterns.tasks.attempts import Attempts
from eventmill.patterns.tasks.call import FIRE, GROUP, THEN, UNIQUE, Call, CallSpec, Group, check_call, moment
from eventmill.patterns.tasks.control import Cancelled, Control, Controlled, Operator
from eventmill.patterns.tasks.finale import Finale
from eventmill.patterns.tasks.held import CARRIED
from eventmill.patterns.tasks.limit import Limit, Limits
from eventmill.patterns.tasks.queue import Queue
from eventmill.patterns.tasks.results import EXPIRE, Report, decode_report, remove, result_key
from eventmill.patterns.tasks.schedules import Schedules
from eventmill.patterns.tasks.setting import Setting
from eventmill.patterns.tasks.staff import Staff
from eventmill.patterns.tasks.task import Task
from eventmill.patterns.tasks.through_topic import consumer_of
from eventmill.patterns.tasks.timing import Missed, Timing
from eventmill.patterns.tasks.unique import Unique, unique_of
from eventmill.runtime.consumer import Consumer
from eventmill.runtime.heartbeat import Heartbeat
from eventmill.runtime.processes import Processes
from eventmill.runtime.transaction import Transaction, current
from eventmill.runtime.worker import Changed, Worker

P = ParamSpec("P")
R = TypeVar("R")

DEFAULT = "default"
TOPIC = "task"


class TaskStore(Store, Changed, Protocol):
    """A store that tells of what was committed."""


class Tasks:
    """`app.tasks`: what an App's workers run. Made by the App."""

    def __init__(
        self,
        app: str,
        store: TaskStore,
        *,
        envelopes: Envelopes,
        clock: Clock,
        ids: Callable[[], str],
        rng: random.Random,
        lease: float,
        dead_retention: float,
        opened: Callable[[], Awaitable[None]],
        consumers: list[Consumer],
    ) -> None:
        self.by_type: dict[str, Task[..., Any]] = {}
        self.queues: dict[str, Queue] = {}
        self.clock = clock
        self.prefix = f"tasks/{app}/"
        self.new_id = ids
        self._app = app
        self._store = store
        self._envelopes = envelopes
        self._rng = rng
        self._lease = lease
        self._opened = opened
        self._consumers = consumers
        self._limits = Limits(self, store)
        self._finale = Finale(self, self._limits, dead_retention)
        self._operator = Operator(self, store, self._finale, lease)
        self._add(self._expire, name=EXPIRE, queue=DEFAULT)
        self.schedules = Schedules(self, store)

    # Declaring

    def task(
        self,
        bare: None = None,
        /,
        *,
        name: str | None = None,
        queue: str = DEFAULT,
        retry: RetryPolicy | None = None,
        timeout: float | None = None,
        priority: int = 0,
        unique: Unique | bool | str | Sequence[str] | None = None,
        keep: float | None = None,
        limit: Limit | None = None,
        topic: str | None = None,
    ) -> Callable[[Callable[P, R]], Task[P, R]]:
        """Make a function a task: `@app.task()` above it. Calling it just calls it; `task.job(…)` is a call for a worker.

        The function is `async def`, or `def`, which runs in a thread. Its arguments are JSON by its annotations; parameters
        annotated as Transaction (SyncTransaction), TaskContext or Message are given by the worker. What it writes through the
        transaction, what it sends and publishes, and the end of its job are one commit.

        name: for ever, since waiting calls carry it; the function's by default. queue: which workers run it; see `queue`.
        retry: when a failed attempt is tried again, and when it is given up; see `eventmill.retry`.
        timeout: seconds an attempt may take. An `async def` is cancelled then; a `def` runs in a process of its own, which is
        killed. It counts as a failure.
        priority: -9 to 9; each level is worth a minute of waiting, so that nothing starves.
        unique: True, or names of arguments: one call at a time with the same values of them; see `Unique`.
        limit: how many run at a time or begin in a while over all processes, by arguments or in all; see `Limit`.
        keep: seconds to keep its result, state and progress for, where `app.tasks.report(id)` finds them.

        topic: let a call, when it is due, be a message of this topic of the broker; its workers are a consumer group there,
        in whatever process runs the App. Retries and dead letters are that group's.

        Raises ConfigurationError, saying what to change, for what cannot be kept.
        """

        if bare is not None:
            raise ConfigurationError("write @app.task(), with parentheses")

        def register(function: Callable[P, R]) -> Task[P, R]:
            routine: bool = inspect.isroutine(function)
            if not routine:
                raise ConfigurationError(f"{function!r} is no function: a task is an `async def` or a `def`")
            called = check_name(name or function.__name__.strip("_"), "name")
            self.queues.setdefault(queue, Queue(queue))
            task = self._add(
                function,
                name=called,
                queue=queue,
                retry=retry,
                timeout=timeout,
                priority=priority,
                unique=unique_of(unique),
                keep=keep,
                limit=limit,
                queue_limit=lambda: self.queues[queue].limit,
                topic=None if topic is None else check_name(topic, "topic"),
            )
            if topic is not None:
                group = f"{self._app}.{task.type}"
                self._consumers.append(consumer_of(task, self, group, self.queues[queue].concurrency))
            return task

        return register

    def schedule(
        self,
        bare: None = None,
        /,
        *,
        cron: str | None = None,
        every: float | None = None,
        tz: str = "UTC",
        missed: Missed = "once",
        tolerance: float = 60.0,
        name: str | None = None,
        arguments: Mapping[str, object] | None = None,
    ) -> Callable[[Task[P, R]], Task[P, R]]:
        """Have a task sent again and again: `@app.schedule(cron="0 3 * * *", tz="Europe/Berlin")` above `@app.task()`.

        Each moment fires once, however many processes run the App. cron: minute, hour, day, month, weekday, in the time
        zone tz. every: seconds. missed: what becomes of moments at which nobody ran: `once` makes up for all of them with one
        fire, `skip` with none where the latest is over `tolerance` seconds ago, `all` with one for each.
        name: of the schedule, the task's by default. arguments: what the task is called with.
        """

        if bare is not None:
            raise ConfigurationError("write @app.schedule(cron=…) or @app.schedule(every=…), above @app.task()")

        def register(task: Task[P, R]) -> Task[P, R]:
            if not isinstance(task, Task):
                raise ConfigurationError("@app.schedule goes above @app.task(): what it plans is a task")
            called = check_name(name or task.name, "name")
            self.schedules.declare(called, task.job(**(arguments or {})), Timing(cron, every, tz, missed, tolerance))
            return task

        return register

    def _add(self, function: Callable[P, R], *, retry: RetryPolicy | None = None, **options: Any) -> Task[P, R]:
        store_queue = self.store_queue(options["queue"])
        task = Task(function, self, store_queue=store_queue, retry=retry or exponential(), **options)
        if task.type in self.by_type:
            raise ConfigurationError(f"task {task.name!r} is there already: give this one another name=")
        self.by_type[task.type] = task
        return task

    def queue(self, name: str, *, concurrency: int = 16, limit: Limit | None = None) -> None:
        """Say how a queue is worked on. concurrency: tasks that run at a time in each process. limit: over all processes."""
        self.queues[name] = Queue(name, concurrency, limit)

    # What calls stand on

    def store_queue(self, queue: str) -> str:
        """The queue's name in the store, where those of other services may be, too."""
        return f"{self._app}/{queue}"

    def job(self, spec: CallSpec, due: int | None, group: str | None, *, fire: int | None = None) -> Job:
        """The call as the store keeps it. due: milliseconds since 1970 UTC, or None for now. group: which it is a member
        of. fire: the moment that a schedule meant."""
        extensions: dict[str, str] | None = None
        if spec.unique or spec.limits or spec.then is not None or group is not None or fire is not None:
            fired = None if fire is None else str(fire)
            carried = {UNIQUE: spec.unique, CARRIED: spec.limits, GROUP: group, FIRE: fired}
            extensions = {name: value for name, value in carried.items() if value is not None}
            if spec.then is not None:
                extensions[THEN] = msgspec.json.encode(spec.then).decode()
        message = self._envelopes.written(spec.type, spec.topic or TOPIC, bytes(spec.data), extensions)
        now = int(self.clock.now() * 1000)
        return Job(
            queue=spec.queue,
            message=message,
            due=now if due is None else due,
            recorded_at=now,
            priority=spec.priority,
            reference=message.id,
        )

    async def _expire(self, key: str, tx: Transaction, queue: str = "") -> None:
        await remove(key, tx, self, queue or self.store_queue(DEFAULT))

    # Sending

    async def send(self, call: Call | Group, *, after: float | None = None, at: datetime | None = None) -> str:
        """Let a worker run a task, `await app.send(task.job(…), after=60)`; returns its id when that is durable.

        Inside a handler, a task, or `async with app.transaction()` it joins that transaction instead.
        after: seconds to wait first. at: a moment with its time zone.
        """
        check_call(call)
        await self._opened()
        transaction = current.get()
        if transaction is not None and transaction.open and transaction.belongs_to(self._envelopes):
            return await call.place(transaction.unit, after=after, at=at)
        unit = self._store.unit()
        if isinstance(call, Call) and call.unique is None and call.spec.topic is None:
            job = self.job(call.spec, moment(self.clock, after, at), None)
            unit.send([job])
            await (await unit.finish())
            return job.message.id
        try:
            identity = await call.place(unit, after=after, at=at)
            durable = await unit.finish()
        except BaseException:
            await unit.discard()
            raise
        await durable
        return identity

    # Looking and operating

    async def report(self, identity: str) -> Report | None:
        """How far a task is; None for one that is unknown, or has ended and keeps nothing."""
        await self._opened()
        kept = await self.kept(identity)
        if kept is not None and kept.state != "running":
            return kept
        job = await self._store.find(identity)
        if job is None:
            return None
        if kept is not None and job.state == "running":
            return kept
        state: Any = "waiting" if job.state in ("due", "parked") else job.state
        error = job.errors[-1].error if job.errors else ""
        return Report(identity, job.message.type.removeprefix("task."), state, job.due, job.attempts, error=error)

    async def kept(self, identity: str) -> Report | None:
        """What a task that says `keep=` has left so far: its progress, or its result."""
        key = result_key(self.prefix, identity)
        found = [each for each in await self._store.documents(key, limit=1) if each.key == key]
        return decode_report(found[0].data) if found else None

    async def settings(self) -> Mapping[str, Setting]:
        """What operators have said of queues, by their names."""
        return await self._operator.settings()

    async def result(self, identity: str, timeout: float) -> Report:
        """Wait until a task that says `keep=` has ended; returns its report. Raises TimeoutError."""
        await self._opened()
        async with asyncio.timeout(timeout):
            seen = -1
            while True:
                report = await self.report(identity)
                if report is not None and report.state in ("done", "dead", "cancelled"):
                    return report
                seen = await self._store.changed(seen, 0.1)

    async def backlog(self) -> Pending:
        """How many tasks could begin and wait for a worker, and since when the first of them does; not those of paused queues."""
        await self._opened()
        return await self._operator.backlog({queue: self.store_queue(queue) for queue in self._used()})

    async def cancel(self, identity: str) -> Cancelled:
        """Cancel a task that waits or runs; see `Cancelled`."""
        await self._opened()
        return await self._operator.cancel(identity, self._kept())

    async def run_now(self, identity: str) -> bool:
        """Let a task that waits for its time run at once; False where none of this id waits."""
        await self._opened()
        return await self._operator.run_now(identity)

    async def pause(self, queue: str = DEFAULT) -> None:
        """Let no more tasks of a queue begin, in any process, until it is resumed."""
        await self._opened()
        await self._operator.set(self._known(queue), paused=True)

    async def resume(self, queue: str = DEFAULT) -> None:
        """Go on with a queue that was paused."""
        await self._opened()
        await self._operator.set(self._known(queue), paused=False)

    async def scale(self, queue: str = DEFAULT, *, concurrency: int) -> None:
        """Have each process run so many tasks of a queue at a time, whatever is declared."""
        await self._opened()
        await self._operator.set(self._known(queue), concurrency=concurrency)

    def _known(self, queue: str) -> str:
        """The queue, where it is one of those declared here; an operator's program that declares none may name any."""
        if self.queues and queue not in self.queues:
            raise ConfigurationError(f"there is no queue {queue!r}; there are: {', '.join(sorted(self.queues))}")
        return queue

    async def limit(self, queue: str, limit: Limit | None) -> None:
        """Change a queue's limit over all processes while they run, at once; None: as it is declared.

        What it does not name stays. Raises ConfigurationError for a kind of limit that the queue does not declare:
        calls carry what is declared. What was told a moment by a rate comes at that moment.
        """
        await self._opened()
        if limit is not None and self._known(queue) in self.queues:
            self.queues[queue].refuse_undeclared(limit)
        await self._operator.limit(queue, self.store_queue(queue), limit)

    def _used(self) -> Collection[str]:
        return self.queues.keys() & {task.queue for task in self.by_type.values()}

    def _kept(self) -> dict[str, float | None]:
        return {task.type: task.keep for task in self.by_type.values()}

    # Running

    def staff(self, incarnation: str, heartbeat: Heartbeat, numbers: count[int]) -> Staff:
        """The workers of this process, one for each queue that has tasks here."""
        used = self._used()
        processes = Processes()
        controlled = [
            self._controlled(queue, f"{incarnation}/{self._app}.{next(numbers)}", heartbeat, processes)
            for queue in self.queues.values()
            if queue.name in used
        ]
        control = Control(self._operator, self, self._store, controlled, self._kept())
        return Staff(controlled, control, self.schedules if self.schedules.any else None, processes)

    def _controlled(self, queue: Queue, member: str, heartbeat: Heartbeat, processes: Processes) -> Controlled:
        attempts = Attempts(
            self.by_type,
            prefix=self.prefix,
            store=self._store,
            envelopes=self._envelopes,
            finale=self._finale,
            limits=self._limits,
            clock=self.clock,
            rng=self._rng,
            threads=ThreadPoolExecutor(queue.concurrency, thread_name_prefix=f"eventmill-{queue.name}"),
            processes=processes,
        )
        worker = Worker(
            self.store_queue(queue.name),
            attempts,
            store=self._store,
            heartbeat=heartbeat,
            clock=self.clock,
            lease=self._lease,
            member=member,
            concurrency=queue.concurrency,
            changed=self._store,
        )
        worker.paused = True  # until it is known what operators have said
        return Controlled(queue.name, queue.concurrency, worker, attempts)
