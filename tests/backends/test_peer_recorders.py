"""The recorder tests of the `eventsourcing` library, run against eventmill's streams where it is installed."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest

pytest.importorskip("eventsourcing")
pytest.importorskip("Crypto")  # as `eventsourcing[crypto]` has it; their tests import it

import peer_recorder
from eventsourcing.tests import persistence as theirs


class Recorders:
    """A store for each of their tests."""

    url: ClassVar[str] = ""
    loop: peer_recorder.Loop | None = None

    @pytest.fixture(autouse=True, params=["sqlite", "postgres"])
    def _place(self, request: pytest.FixtureRequest, tmp_path: Path) -> object:
        type(self).url = (
            f"sqlite:///{tmp_path}/peer.db" if request.param == "sqlite" else request.getfixturevalue("postgres_url")
        )
        yield
        if self.loop is not None:
            self.loop.close()
            self.loop = None

    def opened(self) -> peer_recorder.Loop:
        self.loop = peer_recorder.Loop(self.url)
        return self.loop


class TestAggregateRecorder(Recorders):
    """Their cases are methods of a `unittest.TestCase`, which pytest gives no parameters: they are called from here."""

    def test_insert_and_select(self) -> None:
        self._run(theirs.AggregateRecorderTestCase, "test_insert_and_select", peer_recorder.PeerAggregateRecorder)

    @pytest.mark.parametrize(
        "name", ["test_insert_select", "test_concurrent_no_conflicts", "test_concurrent_throughput"]
    )
    def test_application_recorder(self, name: str) -> None:
        self._run(theirs.ApplicationRecorderTestCase, name, peer_recorder.PeerApplicationRecorder)

    def test_what_is_inserted_together_stands_together(self) -> None:
        self._run(theirs.NonInterleavingNotificationIDsBaseCase, "test", peer_recorder.PeerApplicationRecorder)

    def _run(self, suite: type, name: str, recorder: type[peer_recorder.PeerAggregateRecorder]) -> None:
        opened = self.opened

        class Case(suite):  # type: ignore[misc]
            def create_recorder(self) -> peer_recorder.PeerAggregateRecorder:
                return recorder(opened())

        getattr(Case(name), name)()
