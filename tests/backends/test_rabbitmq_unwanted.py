"""Events that nobody waits for: kept where they are seen, and in nobody's way."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from eventmill import App, Transaction
from eventmill.core.message import Message
from eventmill.patterns import relay
from eventmill.testing.conformance.apps import INSERT, Rest, Step, running, until, waiting

KEYS = [f"key{number}" for number in range(20)]


def reader(place: Path, url: str, *wanted: type) -> App:
    app = App(f"sqlite:///{place}/reader.db", broker=url, name="reader")

    @app.setup
    async def tables(tx: Transaction) -> None:
        await tx.execute("CREATE TABLE IF NOT EXISTS effects (place INTEGER PRIMARY KEY, reader, key, number)")

    @app.on(*wanted, group="readers")
    async def note(event: Step | Rest, tx: Transaction) -> None:
        await tx.execute(INSERT, (type(event).__name__, event.key, event.number))

    return app


async def dead(app: App) -> list[Message]:
    return [job.message for job in await app.store.jobs(relay.RELAY, state="dead", limit=1000)]


def test_an_event_that_nobody_wants_does_not_hold_its_key(
    tmp_path: Path, rabbitmq_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(relay, "WANTED_WITHIN", 0.4)

    async def main() -> None:
        sender = App(f"sqlite:///{tmp_path}/sender.db", broker=rabbitmq_url, name="sender")
        early = reader(tmp_path, rabbitmq_url, Step)
        async with sender:
            async with early, running(sender, early):
                for number in range(3):
                    await sender.publish(*(event(key, number) for key in KEYS for event in (Rest, Step)))
                found = await until(early, lambda found: len(found) == 3 * len(KEYS))
                for key in KEYS:
                    assert [one.number for one in found if one.key == key] == [0, 1, 2]

                async def settled(count: int) -> bool:
                    """All that nobody wants is dead, and no other job is left."""
                    return {job.state for job in await sender.store.jobs(relay.RELAY, limit=1000)} == {"dead"} and len(
                        await dead(sender)
                    ) == count

                await waiting(lambda: settled(3 * len(KEYS)))
                # From now on such events take no second attempt, and no key waits.
                await sender.publish(*(event(key, 3) for key in KEYS for event in (Rest, Step)))
                await until(early, lambda found: len(found) == 4 * len(KEYS))
                await waiting(lambda: settled(4 * len(KEYS)))
                jobs = await sender.store.jobs(relay.RELAY, limit=1000)
                assert {(job.state, job.lane, job.message.type) for job in jobs} == {("dead", None, "conformance.rest")}
                assert all(job.position is not None and job.partition is not None for job in jobs)
                assert sum(job.attempts == 0 for job in jobs) >= len(KEYS)
                assert "nobody waits for conformance.rest" in jobs[0].errors[-1].error
            said = [record.getMessage() for record in caplog.records if "nobody waits for" in record.getMessage()]
            assert len([text for text in said if "kept as dead letters" in text]) == 1

            # Nothing is lost: as soon as somebody waits, an operator may let them go.
            late = reader(tmp_path, rabbitmq_url, Step, Rest)
            async with late:
                sender._stopped.clear()
                async with running(sender, late):
                    assert await sender.store.replay([job.id for job in jobs]) == 4 * len(KEYS)
                    found = await until(late, lambda found: len(found) == 8 * len(KEYS))
                    rests = [(one.key, one.number) for one in found if one.reader == "Rest"]
                    assert sorted(rests) == sorted((key, number) for key in KEYS for number in range(4))
            assert await dead(sender) == []

    asyncio.run(main())
