"""The cluster as a whole: its topics, their limits, their offsets, and what groups are shown to have passed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from confluent_kafka import (
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    TopicPartition,
)
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    ConfigResource,
    NewTopic,
    OffsetSpec,
)

from eventmill.backends.kafka.failures import REFUSED, configured, log, of_exception, translated
from eventmill.backends.kafka.settings import LONGEST_NAME, NAMES, Settings
from eventmill.core.errors import BackendError, BackendUnavailableError, ConfigurationError
from eventmill.core.message import Partition

T = TypeVar("T")

ANSWER = 10.0
"""Seconds that an answer may take, a new search for the broker included."""

FRESH = 1.0
"""Seconds that a list of topics is good for."""

LIMITS_FRESH = 60.0
LIMITS_ANSWER = 3.0

LEADERLESS = 5.0
"""Seconds that partitions may be without a leader before that is an error."""

DEFAULT_LIMIT = 1_048_588
"""Kafka's own default of `max.message.bytes`, taken where the broker does not let us ask."""

Counts = Mapping[str, int]


class Cluster:
    """Asks the brokers. Every method raises BackendUnavailableError where none answers in time."""

    def __init__(self, settings: Settings, where: str) -> None:
        self._settings = settings
        self._where = where
        self._complaint: KafkaError | None = None
        config: dict[str, Any] = {**settings.connection, "error_cb": self._complain}
        try:
            self._admin = AdminClient(config, logger=settings.library_log)
        except (KafkaException, ValueError) as error:
            raise configured(error, where) from error
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="kafka")
        self._counts: Counts = {}
        self._listed_at = -FRESH
        self._listing: asyncio.Task[Counts] | None = None
        self._limits: dict[str, tuple[float, int]] = {}

    def _complain(self, error: KafkaError) -> None:
        self._complaint = error

    async def reach(self, seconds: float) -> None:
        """Wait until a broker answers, for so many seconds. A login that is refused is not waited for."""
        until = time.monotonic() + seconds
        while True:
            try:
                await self.topics(fresh=True)
                return
            except BackendUnavailableError as error:
                complaint = self._complaint
                said = f" ({complaint.str()})" if complaint is not None else ""
                if complaint is not None and complaint.code() in REFUSED:
                    raise BackendError(f"{self._where} refuses the login{said}") from error
                if time.monotonic() >= until:
                    raise BackendUnavailableError(f"{self._where} did not answer for {seconds:g} s{said}") from error
                log.warning("%s does not answer%s; trying again", self._where, said)
                await asyncio.sleep(0.2)

    async def topics(self, *, fresh: bool = False) -> Counts:
        """Our topics with their partitions; at most a second old. Those who ask at a time share one answer."""
        if not fresh and time.monotonic() - self._listed_at < FRESH:
            return self._counts
        if self._listing is None or fresh:
            self._listing = asyncio.create_task(self._list())
        return await asyncio.shield(self._listing)

    async def _list(self) -> Counts:
        timeout = min(ANSWER, self._settings.connect_timeout)
        try:
            metadata = await self._thread(lambda: self._admin.list_topics(timeout=timeout), "topics")
        finally:
            self._listing = None
        counts = {}
        for name, found in metadata.topics.items():
            topic = self._settings.topic(name)
            if topic is not None and found.partitions:
                counts[topic] = len(found.partitions)
        self._counts, self._listed_at = counts, time.monotonic()
        return counts

    async def partitions(self) -> list[Partition]:
        """All partitions of all our topics."""
        topics = await self.topics()
        return [Partition(topic, number) for topic, count in sorted(topics.items()) for number in range(count)]

    async def count(self, topic: str) -> int | None:
        """A topic's partitions, which never change; None where it is not there."""
        known = self._counts.get(topic)
        return known if known is not None else (await self.topics(fresh=True)).get(topic)

    async def declare(self, topics: Mapping[str, int]) -> None:
        """Create what is missing. Raises ConfigurationError for another count than is there, before anything is made."""
        if not topics:
            return
        present = await self.topics(fresh=True)
        for topic, partitions in topics.items():
            self._check(topic, partitions, present.get(topic, partitions))
        missing = {topic: partitions for topic, partitions in topics.items() if topic not in present}
        if not missing:
            return
        replication = self._settings.replication or -1
        made = self._admin.create_topics(
            [NewTopic(self._settings.name(topic), count, replication) for topic, count in missing.items()],
            request_timeout=ANSWER,
        )
        for name, future in made.items():
            try:
                await self._future(future, f"creating topic {name}")
            except BackendError as error:
                cause = error.__cause__
                if (
                    not isinstance(cause, KafkaException)
                    or of_exception(cause).code() != KafkaError.TOPIC_ALREADY_EXISTS
                ):
                    raise
        await self._appear(missing)

    async def _appear(self, missing: Mapping[str, int]) -> None:
        """A topic is there when the broker we ask next says so; another process may have made it, with another count."""
        until = time.monotonic() + ANSWER
        while not set(missing) <= set(present := await self.topics(fresh=True)):
            if time.monotonic() > until:
                raise BackendUnavailableError(f"{self._where}: topics {sorted(missing)} were created, but do not show")
            await asyncio.sleep(0.05)
        for topic, partitions in missing.items():
            self._check(topic, partitions, present[topic])

    async def remove(self) -> None:
        """Delete all of our topics, with what is in them."""
        names = [self._settings.name(topic) for topic in await self.topics(fresh=True)]
        if names:
            for name, future in self._admin.delete_topics(names, request_timeout=ANSWER).items():
                await self._future(future, f"deleting topic {name}")
        self._listed_at = -FRESH

    def _check(self, topic: str, partitions: int, stored: int) -> None:
        if partitions < 1:
            raise ConfigurationError(f"topic {topic!r}: {partitions} partitions; at least 1 is needed")
        if stored != partitions:
            raise ConfigurationError(
                f"topic {topic!r} has {stored} partitions, {partitions} were declared: "
                "the count cannot change, because the order of its keys hangs on it"
            )
        refused = self.refusal(topic)
        if refused is not None:
            raise ConfigurationError(refused)

    def refusal(self, topic: str) -> str | None:
        """Why Kafka cannot have a topic of this name; None where it can."""
        name = self._settings.name(topic)
        if not NAMES.issuperset(name) or len(name) > LONGEST_NAME or name in (".", ".."):
            return (
                f"topic {topic!r}: Kafka's names are of letters, digits, '.', '_' and '-', "
                f"at most {LONGEST_NAME} characters with the prefix; call it otherwise"
            )
        return None

    async def limits(self, topics: Collection[str]) -> Mapping[str, int]:
        """Bytes that a record batch may have, topic by topic; asked again once a minute."""
        now = time.monotonic()
        asked = [topic for topic in topics if self._limits.get(topic, (-LIMITS_FRESH, 0))[0] + LIMITS_FRESH <= now]
        if asked:
            resources = {
                ConfigResource(ConfigResource.Type.TOPIC, self._settings.name(topic)): topic for topic in asked
            }
            answers = self._admin.describe_configs(list(resources), request_timeout=LIMITS_ANSWER)
            for resource, future in answers.items():
                try:
                    entries = await self._future(future, "limits of topics")
                    limit = int(entries["max.message.bytes"].value)
                except BackendUnavailableError:
                    if resources[resource] not in self._limits:
                        raise
                    limit = self._limits[resources[resource]][1]  # the broker's word is older then, and still good
                except BackendError as error:
                    log.warning("%s; going by Kafka's default limit of a message", error)
                    limit = DEFAULT_LIMIT
                self._limits[resources[resource]] = (now, limit)
        return {topic: self._limits[topic][1] for topic in topics}

    async def kept(self, topics: Collection[str]) -> Mapping[str, float]:
        """Seconds that topics keep messages for (`retention.ms`); those that we may not ask about are left out."""
        found: dict[str, float] = {}
        if not topics:
            return found
        resources = {ConfigResource(ConfigResource.Type.TOPIC, self._settings.name(topic)): topic for topic in topics}
        answers = self._admin.describe_configs(list(resources), request_timeout=LIMITS_ANSWER)
        for resource, future in answers.items():
            try:
                entries = await self._future(future, "retention of topics")
            except BackendError as error:
                log.info("how long topics keep messages is not known: %s", error)
                continue
            milliseconds = int(entries["retention.ms"].value)
            # A compacted topic keeps the last message of each key whatever its retention says.
            limitless = milliseconds < 0 or "delete" not in entries["cleanup.policy"].value
            found[resources[resource]] = float("inf") if limitless else milliseconds / 1000
        return found

    def forget_limits(self) -> None:
        """One of them has changed."""
        self._limits.clear()

    async def offsets(self, partitions: Collection[Partition], *, first: bool = False) -> Mapping[Partition, int]:
        """The offset after the last message that may be read, or that of the first one there is; 0 for no such topic."""
        offsets = dict.fromkeys(partitions, 0)
        there = {topic: await self.count(topic) or 0 for topic in {partition.topic for partition in partitions}}
        asked = [partition for partition in partitions if partition.number < there[partition.topic]]
        until = time.monotonic() + LEADERLESS
        while asked:
            try:
                offsets.update(await self._offsets(asked, first=first))
                break
            except BackendUnavailableError:
                # A new topic has no leaders for a moment, and neither has any when its broker goes.
                if time.monotonic() > until:
                    raise
                await asyncio.sleep(0.05)
        return offsets

    async def _offsets(self, partitions: Collection[Partition], *, first: bool) -> Mapping[Partition, int]:
        spec: Any = OffsetSpec
        names = {
            TopicPartition(self._settings.name(topic), number): Partition(topic, number) for topic, number in partitions
        }
        answers = self._admin.list_offsets(
            dict.fromkeys(names, spec.earliest() if first else spec.latest()),
            isolation_level=IsolationLevel.READ_COMMITTED,
            request_timeout=ANSWER,
        )
        waits = [asyncio.wrap_future(answer) for answer in answers.values()]
        found: list[Any] = await asyncio.gather(*waits, return_exceptions=True)
        for result in found:
            if isinstance(result, KafkaException):
                raise translated(result, f"{self._where}: offsets") from result
            if result.offset < 0:
                raise BackendUnavailableError(f"{self._where} does not say its offsets")
        return {names[place]: result.offset for place, result in zip(answers, found, strict=True)}

    async def show(self, group: str, after: Mapping[Partition, int]) -> None:
        """Commit offsets to Kafka's group of this name: for people and their tools, nobody reads by them."""
        places = [TopicPartition(self._settings.name(topic), number, at) for (topic, number), at in after.items()]
        await self._thread(lambda: self._commit(group, places), f"showing how far {group} is")

    def _commit(self, group: str, places: list[TopicPartition]) -> None:
        """By a consumer: the administrator's call for it ends the process where the broker is away (a failed assertion)."""
        consumer = Consumer(
            {**self._settings.connection, "group.id": self._settings.prefix + group, "enable.auto.commit": False},
            logger=self._settings.library_log,
        )
        until = time.monotonic() + ANSWER
        try:
            while True:
                try:
                    consumer.commit(offsets=places, asynchronous=False)
                    return
                except KafkaException:
                    if time.monotonic() > until:
                        raise
                    time.sleep(0.05)
        finally:
            consumer.close()

    async def unshow(self, group: str) -> None:
        """Remove Kafka's group of this name, if it has one."""
        await self.topics(fresh=True)  # no such question is put to a broker that does not answer; see `_commit`
        for future in self._admin.delete_consumer_groups([self._settings.prefix + group]).values():
            try:
                await self._future(future, f"removing group {group}")
            except BackendError as error:
                cause = error.__cause__
                if not isinstance(cause, KafkaException) or of_exception(cause).code() != KafkaError.GROUP_ID_NOT_FOUND:
                    raise

    async def _future(self, future: Future[Any], what: str) -> Any:
        try:
            return await asyncio.wrap_future(future)
        except KafkaException as error:
            raise translated(error, f"{self._where}: {what}") from error

    async def _thread(self, work: Callable[[], T], what: str) -> T:
        def run() -> T:
            try:
                return work()
            finally:
                self._admin.poll(0)  # the library's log lines and complaints come by this way

        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, run)
        except KafkaException as error:
            raise translated(error, f"{self._where}: {what}") from error

    def close(self) -> None:
        self._threads.shutdown(wait=False)
