"""A view is the fold of the log, whatever the events, the batches and the retries; and as of any moment."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ledgers import Booked, Ignored, Reversed, Visited, bank, folded, rows, running
from life import some_events

from eventmill import ConfigurationError
from eventmill.backends.connect import connect_store
from eventmill.core.errors import MissingHistoryError
from eventmill.patterns.projection.as_of import project

ACCOUNTS = st.sampled_from(["ada", "bob", "cleo"])
EVENTS = st.lists(
    st.one_of(
        st.builds(Booked, ACCOUNTS, st.integers(0, 99)),
        st.builds(Reversed, ACCOUNTS, st.integers(0, 99)),
        st.builds(Visited, st.sampled_from(["gil", "hal"]), ACCOUNTS),
        st.builds(Ignored, ACCOUNTS),
    ),
    max_size=60,
)


@settings(max_examples=25, deadline=None)
@given(events=EVENTS, batch=st.integers(1, 7), cut=st.integers(0, 60))
def test_view_equals_a_fresh_fold(events: list[object], batch: int, cut: int) -> None:
    """Before a rebuild, during it and after it."""

    async def run() -> None:
        async with bank("memory://", batch=batch) as app, running(app):
            view = app.view("balances")
            for part in (events[:cut], events[cut:]):
                if part:
                    await view.at_least(await app.publish(*part))
            assert await rows(app) == folded(events)
            await view.rebuild()
            assert await rows(app) == folded(events)
            await view.at_least(await app.publish(Booked("ada", 1)))
            assert await rows(app) == folded([*events, Booked("ada", 1)])

    asyncio.run(run())


def test_as_of_a_moment(tmp_path: Path) -> None:
    async def run() -> None:
        events = some_events(2_500, seed=5)
        async with bank(f"sqlite:///{tmp_path}/bank.db") as app:
            await app.publish(*events[:1_700])
            await asyncio.sleep(0.02)
            moment = int(time.time() * 1000)
            await asyncio.sleep(0.02)
            await app.publish(*events[1_700:])
            projection, ground = app.projections["balances"], app.projections.ground
            for at, many in ((moment, 1_700), (None, 2_500), (0, 0)):
                place = tmp_path / f"as_of_{many}.db"
                async with connect_store(f"sqlite:///{place}") as store:
                    await project(projection, ground, store, at=at)
                with closing(sqlite3.connect(place)) as connection:
                    found = connection.execute("SELECT * FROM balances ORDER BY account").fetchall()
                    visits = connection.execute("SELECT * FROM visits ORDER BY guest, account").fetchall()
                assert (found, visits) == folded(events[:many])
            # The live one is neither read nor touched.
            assert await rows(app) == ([], [])
            async with connect_store(f"sqlite:///{tmp_path}/as_of_0.db") as store:
                with pytest.raises(ConfigurationError, match="already exists"):
                    await project(projection, ground, store, at=None)

    asyncio.run(run())


def test_as_of_names_the_event_that_fails(tmp_path: Path) -> None:
    async def run() -> None:
        async with bank("memory://") as app, connect_store("memory://") as store:
            await app.publish(Booked("ada", 1), Booked("ada", -13), Booked("ada", 2))
            with pytest.raises(ConfigurationError, match=r"fails at ledger.booked .* \(position 2 of ledger"):
                await project(app.projections["balances"], app.projections.ground, store, at=None)
            assert await store.query("SELECT * FROM balances") == [("ada", 1, 1)]

    asyncio.run(run())


def test_as_of_needs_the_whole_history() -> None:
    async def run() -> None:
        async with bank("memory://") as app, connect_store("memory://") as store:
            await app.publish(Booked("ada", 1))
            await asyncio.sleep(0.01)
            await app.store.trim("ledger", older_than=0.001, force=True)
            with pytest.raises(MissingHistoryError, match="--partial"):
                await project(app.projections["balances"], app.projections.ground, store, at=None)
            assert await project(app.projections["balances"], app.projections.ground, store, at=None, partial=True) == 0

    asyncio.run(run())
