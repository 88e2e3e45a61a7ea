"""A process's part in a capture: it waits for the lease, captures while it has it, and begins again after a fault."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable

from eventmill.core.capabilities import Store
from eventmill.core.claims import Cursor, Fence
from eventmill.core.clock import Clock
from eventmill.core.errors import BackendError, ConfigurationError, ConflictError, LeaseLostError
from eventmill.core.limits import Limits
from eventmill.core.message import Partition
from eventmill.core.reading import Types
from eventmill.core.registry import Registry
from eventmill.patterns.cdc.capture import Capture
from eventmill.patterns.cdc.messages import Translator
from eventmill.patterns.cdc.session import Session, load
from eventmill.patterns.cdc.setup import check_declared
from eventmill.runtime.heartbeat import Heartbeat

log = logging.getLogger("eventmill")

FIRST_PAUSE, LONGEST_PAUSE = 0.2, 10.0

WATCH = 10.0
"""Seconds between looks at what the source keeps."""


def group_of(capture: str) -> str:
    """The group whose one cursor is the right to capture."""
    return f"cdc.{capture}"


class Capturing:
    """Runs one capture until stopped. Of several processes, one holds the lease and captures; the others wait for it."""

    def __init__(
        self,
        capture: Capture,
        *,
        source_name: str,
        store: Store,
        heartbeat: Heartbeat,
        lease: float,
        clock: Clock,
        registry: Registry,
        member: str,
        new_id: Callable[[], str],
        rng: random.Random,
    ) -> None:
        self.capture = capture
        self._source_name = source_name
        self._store = store
        self._heartbeat = heartbeat
        self._lease = lease
        self._clock = clock
        self._registry = registry
        self._member = member
        self._new_id = new_id
        self._rng = rng
        self._stopped = asyncio.Event()
        self._lives = 0
        self._paused = False
        self.session: Session | None = None

    def stop(self) -> None:
        self._stopped.set()

    async def run(self) -> None:
        """Returns when stopped. Raises ConfigurationError for what no other attempt would mend."""
        pause = FIRST_PAUSE
        try:
            while not self._stopped.is_set():
                began = self._clock.now()
                try:
                    await self._live()
                    continue
                except (BackendError, LeaseLostError, ConflictError) as error:
                    log.warning("capture %s: %s; going on in a moment", self.capture.name, error)
                if self._clock.now() - began > LONGEST_PAUSE:
                    pause = FIRST_PAUSE
                await self._wait(pause * self._rng.uniform(0.5, 1))
                pause = min(pause * 2, LONGEST_PAUSE)
        finally:
            await self.capture.source.close()

    async def _wait(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopped.wait()

    async def _live(self) -> None:
        """From joining to leaving; a new member name each time, so that nothing of a former life can be taken for ours."""
        self._lives += 1
        name = self.capture.name
        fence = Fence(group_of(name), f"{self._member}.{self._lives}")
        place = [Partition(group_of(name), 0)]
        await check_declared(self.capture, await load(self._store, name))
        await self._store.enroll(fence.group, Types(), place)
        self._heartbeat.add(fence.member)
        try:
            claim = await self._claim(fence, place)
            if claim is not None:
                await self._capture(claim, fence, place)
        finally:
            self._heartbeat.remove(fence.member)
            await self._release(fence)

    async def _release(self, fence: Fence) -> None:
        try:
            await self._store.release(fence.group, fence.member, None)
        except BackendError as error:
            # Nothing is lost: the lease runs out by itself.
            log.warning("capture %s: the lease could not be given back: %s", self.capture.name, error)

    async def _claim(self, fence: Fence, place: list[Partition]) -> Cursor | None:
        """Wait for the lease; None when stopped meanwhile."""
        waiting = False
        while not self._stopped.is_set():
            balance = await self._store.balance(fence.group, fence.member, place, self._lease)
            if balance.acquired:
                return balance.acquired[0]
            if not waiting:
                log.info(
                    "capture %s: another process captures, or did until its lease of %g s ends; waiting",
                    self.capture.name, self._lease,
                )  # fmt: skip
                waiting = True
            await self._wait(self._lease / 3)
        return None

    async def _capture(self, claim: Cursor, fence: Fence, place: list[Partition]) -> None:
        capture = self.capture
        loaded = await check_declared(capture, await load(self._store, capture.name))
        translator = Translator(
            source=self._source_name,
            capture=capture.name,
            epoch=loaded.progress.epoch,
            tables=capture.tables,
            order=capture.order,
            limits=Limits(max_bytes=capture.max_bytes),
            registry=self._registry,
        )
        await self._refuse_too_much()
        position = loaded.progress.position
        async with capture.source.stream(capture.name, position, loaded.shapes, capture.prefixes) as stream:
            for shape in loaded.shapes.values():
                log.info("capture %s: %s: %s", capture.name, shape.name, IDENTITIES[shape.identity])
            session = self.session = Session(
                capture.name,
                loaded,
                source=capture.source,
                stream=stream,
                store=self._store,
                translator=translator,
                claim=claim,
                fence=fence,
                clock=self._clock,
                new_mark=self._new_id,
            )
            await self._with_watch(session, claim, fence, place)

    async def _with_watch(self, session: Session, claim: Cursor, fence: Fence, place: list[Partition]) -> None:
        """Run the session until it ends, the lease is lost, or the policy says so."""
        work = asyncio.create_task(session.run(self._stopped), name=f"capture {self.capture.name}")
        watch = asyncio.create_task(self._watch(session))
        keep = asyncio.create_task(self._keep(claim, fence, place))
        try:
            done, _ = await asyncio.wait([work, watch, keep], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in (work, watch, keep):
                task.cancel()
            await asyncio.gather(work, watch, keep, return_exceptions=True)

    async def _keep(self, claim: Cursor, fence: Fence, place: list[Partition]) -> None:
        """Notice the loss of the lease; the heartbeat keeps it, from a thread of its own."""
        while True:
            await self._clock.sleep(self._lease / 3)
            balance = await self._store.balance(fence.group, fence.member, place, self._lease)
            if balance.held.get(place[0]) != claim.token:
                raise LeaseLostError(f"the lease on {fence.group} was taken over")

    async def _watch(self, session: Session) -> None:
        policy = self.capture.retention
        while True:
            await self._clock.sleep(WATCH)
            health = await self.capture.source.health(self.capture.name, session.shapes.values())
            if health.gap:
                raise ConfigurationError(
                    f"capture {self.capture.name}: {health.gap}, so changes are missing; begin anew: eventmill cdc init --anew"
                )
            if not policy.exceeded(health):
                if policy.relaxed(health) and not session.copier.may_go_on.is_set():
                    log.info("capture %s: the snapshot goes on", self.capture.name)
                    session.copier.may_go_on.set()
                continue
            if policy.act == "pause":
                if session.progress.copying and session.copier.may_go_on.is_set():
                    log.warning(
                        "capture %s: the source keeps %s bytes for it, over the limit of %s: the snapshot waits",
                        self.capture.name, f"{health.retained:,}", f"{policy.limit:,}",
                    )  # fmt: skip
                    session.copier.may_go_on.clear()
                continue
            await self._give_up(health.retained)

    async def _refuse_too_much(self) -> None:
        health = await self.capture.source.health(self.capture.name)
        if self.capture.retention.act != "pause" and self.capture.retention.exceeded(health):
            await self._give_up(health.retained)

    async def _give_up(self, retained: int) -> None:
        """Do what the policy says, which ends the capture."""
        capture, policy = self.capture, self.capture.retention
        said = f"capture {capture.name}: the source keeps {retained:,} bytes for it, over the limit of {policy.limit:,}"
        if policy.act == "drop":
            await capture.source.remove(capture.name, capture.tables)
            raise ConfigurationError(f"{said}, so they were given up; begin anew: eventmill cdc init --anew")
        raise ConfigurationError(f"{said}; raise the limit to let it catch up, or drop it: eventmill cdc drop")


IDENTITIES = {
    "default": "before images are the primary key only (REPLICA IDENTITY DEFAULT); unchanged large values are left out",
    "full": "before images are whole rows",
    "index": "before images are the columns of the identity's index; unchanged large values are left out",
    "nothing": "no before images",
}
"""What is said at the start of what a table's changes will tell."""
