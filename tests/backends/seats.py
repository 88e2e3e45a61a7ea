"""A program of its own that wants seats: `python seats.py URL NUMBER version|tags`; it prints the ids it has won."""

from __future__ import annotations

import asyncio
import sys

from eventmill.backends.connect import connect_store
from eventmill.core.clock import SystemClock
from eventmill.core.errors import ConflictError
from eventmill.core.message import Message
from eventmill.core.stream import Absence, Append, Query, Stream

SEATS, CALLERS = 10, 25
SHOW = Stream("show", "s1")
QUERY = Query(frozenset({"show:s1"}))


async def main(url: str, program: int, by: str) -> None:
    async with connect_store(url, SystemClock()) as store:

        async def want(caller: int) -> str | None:
            id_ = f"p{program}-{caller}"
            stream = SHOW if by == "version" else Stream("seat", id_)
            message = Message(
                id=id_, source="seats", type="show.booked", topic=stream.topic, time=0, data=b"{}", key=stream.key,
                tags=("show:s1",),
            )  # fmt: skip
            while True:
                version, after = await store.version(SHOW), 0
                taken = version
                if by == "tags":
                    found, after = await store.read_all(limit=1000, queries=[QUERY])
                    taken = len(found)
                if taken >= SEATS:
                    return None
                try:
                    async with store.transaction() as tx:
                        if by == "version":
                            tx.append_to(Append(stream, [message], version))
                        else:
                            tx.append([message])
                            tx.require(Absence([QUERY], after))
                except ConflictError:
                    continue
                return id_

        won = await asyncio.gather(*(want(caller) for caller in range(CALLERS)))
        print(*(id_ for id_ in won if id_))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
