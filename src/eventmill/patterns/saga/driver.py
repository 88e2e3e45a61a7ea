"""From a message to its instance, which then goes on as far as it can."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import msgspec

from eventmill.core.document import ABSENT
from eventmill.core.errors import ConflictError, DecodeError
from eventmill.core.failure import told
from eventmill.core.message import Message
from eventmill.core.outcome import Retry
from eventmill.patterns.saga import decide
from eventmill.patterns.saga.course import Course
from eventmill.patterns.saga.definition import Saga
from eventmill.patterns.saga.instance import Entry, Instance, State, decode, document_key
from eventmill.patterns.saga.versions import late
from eventmill.patterns.saga.wake import WAKE
from eventmill.patterns.surroundings import Surroundings
from eventmill.runtime.handler import Context
from eventmill.runtime.stages import Stages

log = logging.getLogger("eventmill")

CONFLICTS = 30
"""Times that others may change an instance under one delivery, before the delivery is tried again later."""

BUSY = Retry(after=0.05)
"""Somebody else drives the instance just now."""

STRANGE = Retry(after=5.0)
"""The instance is of a version that this process does not know."""


class UnusableEventError(Exception):
    """The saga's own `key=` or `begin=` fails for an event."""


class Driver:
    """Handles the messages of all versions of one saga. versions: by their digests; new instances are of the newest."""

    def __init__(self, versions: Mapping[str, Saga], newest: Saga, saga: str, where: Surroundings) -> None:
        self._versions = versions
        self._newest = newest
        self._saga = saga
        self._where = where
        self._begun: set[str] = set()  # messages of which something is stored, and which are not finished

    async def handle(self, message: Message, stages: Stages, context: Context) -> Retry | None:
        """Take in what the message brings, then go on with the instance as far as it goes."""
        conflicts = 0
        while True:
            try:
                return await self._handle(message, stages, context, fresh=not conflicts)
            except ConflictError:
                conflicts += 1
                if conflicts > CONFLICTS:
                    raise
                await stages.undo()
                await self._where.clock.sleep(0.005 * conflicts)

    async def _handle(self, message: Message, stages: Stages, context: Context, *, fresh: bool) -> Retry | None:
        starting = message.type == self._newest.starts_on.name
        try:
            key, event = self._read(message)
        except DecodeError:
            raise
        except Exception as error:
            raise UnusableEventError(f"the key of {message.type} cannot be told: {told(error)}") from error
        # A first delivery nearly always begins a new instance: that there is none is found out by the write.
        fresh = fresh and starting and context.attempt == 1 and message.id not in self._begun
        found = None if fresh else await self._load(key)
        if found is None:
            if not starting:
                self._ignore(message, key)
                return None
            instance, version = self._begin(message, key, event), ABSENT
        else:
            instance, version = found
        saga = self._versions.get(instance.digest)
        if saga is None and instance.ended:
            self._ignore(message, key)
            return None
        if saga is None and instance.driver is None:
            saga = await late(self._where.store, instance, self._versions.values())
        if saga is None:
            log.warning("%s: %s is of version %d, which is not declared here", self._saga, key, instance.version)
            return STRANGE
        if instance.driver not in (None, message.id):
            return BUSY
        now = self._where.now()
        if version != ABSENT:
            self._take_in(saga, instance, message, now)
        course = Course(saga, instance, version, message, stages, self._where, careful=context.attempt > 1)
        try:
            await course.run()
        except BaseException:
            if course.commits:
                self._note_begun(message)
            raise
        if starting:
            self._note_begun(message)  # until it is committed it may have to be done again, from its middle
        return None

    def _read(self, message: Message) -> tuple[str, object]:
        """The saga's key in a message, and the event, where the message is one."""
        if message.type == WAKE:
            assert message.key is not None
            return message.key, None
        for saga in self._versions.values():
            kind = saga.starts_on if message.type == saga.starts_on.name else saga.answers.get(message.type)
            if kind is not None:
                event = kind.decode(message.data, message.version)
                return saga.key_of(kind, event), event
        raise AssertionError(f"{message.type} is not among what {self._saga} is subscribed to")

    async def _load(self, key: str) -> tuple[Instance, int] | None:
        place = document_key(self._saga, key)
        found = await self._where.store.documents(place, limit=1)
        if not found or found[0].key != place:
            return None
        return decode(found[0].data), found[0].version

    def _begin(self, message: Message, key: str, event: object) -> Instance:
        saga = self._newest
        now = self._where.now()
        try:
            data = saga.first_state(event)
        except Exception as error:
            raise UnusableEventError(f"its first state cannot be made of {message.type}: {told(error)}") from error
        instance = Instance(
            saga=self._saga,
            key=key,
            id=message.id,
            queue=self._saga,
            topic=message.topic,
            version=saga.version,
            digest=saga.shape.digest,
            state=State.RUNNING,
            started_at=now,
            data=msgspec.Raw(data),
            schema=saga.schema,
            deadline=None if saga.deadline is None else now + int(saga.deadline * 1000),
            correlationid=message.correlationid or message.id,
            traceparent=message.traceparent,
        )
        instance.note(Entry(now, "started", detail=message.type, event=message.id))
        return instance

    def _take_in(self, saga: Saga, instance: Instance, message: Message, now: int) -> None:
        if message.id == instance.driver or message.id in instance.seen:
            pass  # it is delivered again: what it brought is in
        elif message.type == saga.starts_on.name:
            if message.id != instance.id:
                instance.note(Entry(now, "started.again", detail="ignored: the instance is there", event=message.id))
        elif message.type != WAKE:
            if message.type in saga.answers:
                instance.answers[message.type] = msgspec.Raw(message.data)
            reason = "" if len(message.data) > 200 else message.data.decode("utf-8", "replace")
            decide.answered(saga.shape, instance, message.type, now, detail=reason, id_=message.id)
            instance.seen.append(message.id)
        decide.looked_at(saga.shape, instance, now)

    def _ignore(self, message: Message, key: str) -> None:
        level = logging.DEBUG if message.type == WAKE else logging.WARNING
        log.log(level, "%s: %s for %s, of which there is no instance (any more)", self._saga, message.type, key)

    def _note_begun(self, message: Message) -> None:
        """Something of this delivery may be stored: should it be done again in this process, look first."""
        if len(self._begun) > 10_000:
            self._begun.clear()
        self._begun.add(message.id)
