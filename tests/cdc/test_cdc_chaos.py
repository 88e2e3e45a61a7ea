"""Random changes during the snapshot and after it, and a capturing process that is killed again and again."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter
from pathlib import Path

import cdc_mirror
import pytest
from cdc_copies import Copies, differences, in_order, start
from cdc_legacy import Legacy

KILLS = int(os.environ.get("EVENTMILL_CDC_KILLS", "15"))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", [1])
def test_the_copy_is_the_source_row_by_row_however_often_it_is_killed(
    postgres_url: str, tmp_path: Path, seed: int
) -> None:
    seed = int(os.environ.get("EVENTMILL_CDC_SEED", seed))
    rng = random.Random(seed)
    legacy = Legacy(postgres_url, seed)
    legacy.create(rows=6_000)
    store = f"sqlite:///{tmp_path}/mirror.db"
    asyncio.run(cdc_mirror.init(store, postgres_url))
    output = tmp_path / "output.txt"
    copies = Copies(tmp_path / "mirror.db")
    with legacy.busy() as transactions:
        process = start(store, postgres_url, output)
        try:
            for _ in range(KILLS):
                time.sleep(0.6 + rng.random() * rng.choice((0.3, 1.0)))
                assert process.poll() is None, output.read_text()[-4000:]
                process.kill()
                process.wait()
                process = start(store, postgres_url, output)
            deadline = time.monotonic() + 60
            while copies.query("SELECT count(*) FROM copies") == [(0,)] and time.monotonic() < deadline:
                time.sleep(0.1)
            time.sleep(1)
        except BaseException:
            process.kill()
            process.wait()
            raise
    try:
        source = legacy.rows()
        deadline = time.monotonic() + 120
        while (found := differences(copies.rows(), source)) and time.monotonic() < deadline:
            assert process.poll() is None, output.read_text()[-4000:]
            time.sleep(0.2)
        assert not found, (len(found), found[:5], output.read_text()[-3000:])
    finally:
        process.terminate()
        code = process.wait(30)
    assert code == 0
    assert transactions[0] > 100
    told = copies.told()
    assert [identity for identity, count in Counter(identity for identity, *_ in told).items() if count > 1] == []
    in_order(told)
    assert copies.query("SELECT count(*) FROM eventmill_jobs") == [(0,)]
