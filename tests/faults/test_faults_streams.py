"""Appends under an expected version while connections break: a commit whose answer was lost is no conflict."""

from __future__ import annotations

import asyncio

from proxy import Proxy

from eventmill.backends.postgres.backend import PostgresBackend
from eventmill.backends.url import Url
from eventmill.core.clock import SystemClock
from eventmill.core.stream import Append, Stream
from eventmill.testing.conformance.samples import ids
from eventmill.testing.conformance.streams import events

WRITERS, EACH = 24, 60


def test_lost_answers_are_found_out(postgres_url: str) -> None:
    """Each writer is alone on its stream and knows its version: it must never meet a conflict, nor append twice."""

    async def write(store: PostgresBackend, writer: int) -> None:
        stream = Stream("order", f"w{writer}")
        for number in range(EACH):
            async with store.transaction() as tx:
                entry = Append(stream, events(stream, writer * 1000 + number, tags=(f"w:{writer}",)), number)
                tx.append_to(entry)
            assert entry.appended.version == number + 1
            (found,) = await store.read_stream(stream, after=number, limit=2)
            assert [found.position] == list(entry.appended.positions)
            await asyncio.sleep(0.005)

    async def main() -> None:
        async with (
            Proxy(postgres_url) as proxy,
            PostgresBackend.from_url(Url.parse(proxy.url), SystemClock()) as store,
        ):
            work = asyncio.gather(*(write(store, writer) for writer in range(WRITERS)))
            cuts = 0
            while not work.done():
                await asyncio.sleep(0.05)
                # Somewhere within the answers: what was asked has arrived.
                proxy.cut_after(200 + 331 * (cuts % 7), towards="client")
                cuts += 1
            await proxy.heal()
            await work
            assert cuts >= 5
            assert proxy.accepted > 5
            for writer in range(WRITERS):
                found = await store.read_stream(Stream("order", f"w{writer}"), limit=1000)
                assert ids(found) == [f"m{writer * 1000 + number}" for number in range(EACH)]

    asyncio.run(asyncio.wait_for(main(), 110))
