"""SyncApp: the App without `await`."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from eventmill import App, ConfigurationError, ConflictError, SyncApp, SyncTransaction, named


def counted(client: SyncApp) -> int:
    with client.transaction() as tx:
        return int(tx.execute("SELECT count(*) FROM t")[0][0])


def fail(client: SyncApp, error: type[Exception]) -> None:
    with client.transaction() as tx:
        tx.execute("INSERT INTO t VALUES (2)")
        tx.publish(named("thing.done", {"n": 2}))
        raise error


@pytest.mark.parametrize("url", ["sqlite:///{folder}/sync.db", "memory://"])
def test_transactions_commit_or_leave_nothing(url: str, tmp_path: Path) -> None:
    with SyncApp(App(url.format(folder=tmp_path))) as client:
        with client.transaction() as tx:
            tx.execute("CREATE TABLE t (n INTEGER)")
        with client.transaction() as tx:
            tx.execute("INSERT INTO t VALUES (1)")
            tx.publish(named("thing.done", {"n": 1}))
        for error in (ZeroDivisionError, StopIteration):
            with pytest.raises(error):
                fail(client, error)
        assert counted(client) == 1
        assert client.publish(named("thing.done", {"n": 3})) == [2], "the undone transactions published nothing"


def test_threads_share_a_client(tmp_path: Path) -> None:
    with SyncApp(App(f"sqlite:///{tmp_path}/sync.db")) as client:
        with client.transaction() as tx:
            tx.execute("CREATE TABLE t (n INTEGER)")

        def add(number: int) -> None:
            with client.transaction() as tx:
                tx.execute("INSERT INTO t VALUES (?)", (number,))
                tx.publish(named("thing.done", number))

        with ThreadPoolExecutor(8) as threads:
            list(threads.map(add, range(40)))
        assert counted(client) == 40


def test_a_commit_that_fails_raises(tmp_path: Path) -> None:
    def store(tx: SyncTransaction) -> None:
        tx.put("key", b"1", expected=7)

    with SyncApp(App(f"sqlite:///{tmp_path}/sync.db")) as client:
        with pytest.raises(ConflictError, match="expected version 7"), client.transaction() as tx:
            store(tx)
        assert client.publish(named("thing.done", 1)) == [1]


def test_outside_of_its_block_it_says_so(tmp_path: Path) -> None:
    client = SyncApp(App(f"sqlite:///{tmp_path}/sync.db"))
    with pytest.raises(ConfigurationError, match="with SyncApp"):
        client.publish(named("thing.done", 1))
    with pytest.raises(ConfigurationError, match="with SyncApp"), client.transaction():
        pass
