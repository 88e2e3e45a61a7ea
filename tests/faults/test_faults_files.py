"""Files and disks that are full, read-only, damaged, foreign, too new, shared or forked."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import crowd
import filling
import mill as program
import opening
import pytest
from workers import ENVIRONMENT, PATIENCE

from eventmill.core.errors import BackendError, SchemaVersionError

pytestmark = pytest.mark.timeout(240)


async def use(place: Path) -> None:
    """What a service does with its file: open it, publish, handle."""
    async with program.mill(place) as app:
        await app.publish(program.Task("lane0", 1))
        running = asyncio.create_task(app.run())
        await asyncio.sleep(0.3)
        app.stop()
        await running


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own. Skipped where nothing may be mounted."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = shutil.which("mount")
    command = [str(mount), "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(place)]
    if mount is None or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("this test mounts a small tmpfs, which is not allowed here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_loses_nothing_and_heals_by_itself(disk: Path) -> None:
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(16 << 20))
    with (disk.parent / "output.txt").open("wb") as output:
        service = subprocess.Popen(
            [sys.executable, filling.__file__, str(disk)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=output,
            env=ENVIRONMENT,
        )
    try:
        assert service.stdin is not None
        assert service.stdout is not None
        assert service.stdout.readline() == b"full\n", (disk.parent / "output.txt").read_text()[-4000:]
        ballast.unlink()
        service.stdin.write(b"there is room\n")
        service.stdin.flush()
        assert service.wait(PATIENCE) == 0, (disk.parent / "output.txt").read_text()[-4000:]
    finally:
        service.kill()
        service.communicate()
    acknowledged = [int(number) for number in (disk / "acknowledged").read_text().split()]
    assert len(acknowledged) > filling.AFTERWARDS + 20
    with contextlib.closing(sqlite3.connect(disk / "mill.db")) as connection:
        done = [number for (number,) in connection.execute("SELECT number FROM done ORDER BY line")]
        assert sorted(done) == acknowledged, "what was acknowledged, and nothing else, once each"
        for lane in range(4):
            mine = [number for number in done if number % 4 == lane]
            assert mine == sorted(mine)
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("SELECT count(*) FROM eventmill_jobs").fetchone() == (0,)


READ_ONLY = """
import asyncio, os, sys
from pathlib import Path
import mill
from eventmill.core.errors import BackendUnavailableError
if os.geteuid() == 0:
    os.seteuid(65534)  # nothing is read-only to root
async def main():
    try:
        async with mill.mill(Path(sys.argv[1])) as app:
            await app.publish(mill.Task("lane0", 1))
    except BackendUnavailableError as error:
        assert "read-only" in str(error) or "may be written" in str(error), error
    else:
        raise SystemExit("it was written to")
asyncio.run(main())
"""


@pytest.mark.parametrize("folder_too", [False, True])
def test_a_read_only_file_is_refused_with_a_reason(folder_too: bool) -> None:
    place = Path(tempfile.mkdtemp())
    try:
        asyncio.run(use(place))
        (place / "mill.db").chmod(0o444)
        place.chmod(0o555 if folder_too else 0o777)
        ended = subprocess.run(
            [sys.executable, "-c", READ_ONLY, str(place)],
            env={**ENVIRONMENT, "PYTHONPATH": f"{ENVIRONMENT['PYTHONPATH']}{os.pathsep}{Path(__file__).parent}"},
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr.decode()
    finally:
        place.chmod(0o755)
        shutil.rmtree(place)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mill.db").write_bytes(b"lane,number\n" * 1000)
    with pytest.raises(BackendError, match="not an SQLite database"):
        asyncio.run(use(tmp_path))
    assert (tmp_path / "mill.db").read_bytes() == b"lane,number\n" * 1000


@pytest.mark.parametrize("keep", [0.05, 0.3, 0.6, 0.95])
def test_a_truncated_file_is_refused_and_left_as_it_is(tmp_path: Path, keep: float) -> None:
    async def fill() -> None:
        async with program.mill(tmp_path) as app:
            await app.publish(*(program.Task(f"lane{number}", number, padding="x" * 500) for number in range(300)))

    asyncio.run(fill())
    file = tmp_path / "mill.db"
    size = file.stat().st_size
    with file.open("r+b") as opened:
        opened.truncate(int(size * keep))
    with pytest.raises(BackendError, match="damaged"):
        asyncio.run(use(tmp_path))


def test_a_newer_schema_is_refused_with_the_remedy(tmp_path: Path) -> None:
    asyncio.run(use(tmp_path))
    with contextlib.closing(sqlite3.connect(tmp_path / "mill.db")) as connection:
        connection.execute("INSERT INTO eventmill_schema VALUES (9999, 'of a later build', 0)")
        connection.commit()
    with pytest.raises(SchemaVersionError, match=r"schema version 9999.*upgrade eventmill"):
        asyncio.run(use(tmp_path))


def test_a_schema_of_another_text_is_refused(tmp_path: Path) -> None:
    asyncio.run(use(tmp_path))
    with contextlib.closing(sqlite3.connect(tmp_path / "mill.db")) as connection:
        connection.execute("UPDATE eventmill_schema SET checksum = 'another' WHERE version = 1")
        connection.commit()
    with pytest.raises(SchemaVersionError, match="checksum differs"):
        asyncio.run(use(tmp_path))


FORKED = """
import asyncio, os, sys, warnings
from pathlib import Path
import mill
from eventmill.core.errors import BackendError
warnings.simplefilter("ignore", DeprecationWarning)  # forking with threads: just what is tried here
async def main():
    async with mill.mill(Path(sys.argv[1])) as app:
        await app.publish(mill.Task("lane0", 1))
        child = os.fork()
        if child == 0:
            try:
                await app.publish(mill.Task("lane0", 2))
            except BackendError as error:
                os._exit(0 if "before a fork" in str(error) else 3)
            os._exit(4)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0, status
        await app.publish(mill.Task("lane0", 3))
asyncio.run(main())
"""


def test_an_app_opened_before_a_fork_is_refused_in_the_child(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", FORKED, str(tmp_path)],
        env={**ENVIRONMENT, "PYTHONPATH": f"{ENVIRONMENT['PYTHONPATH']}{os.pathsep}{Path(__file__).parent}"},
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr.decode()
    with contextlib.closing(sqlite3.connect(tmp_path / "mill.db")) as connection:
        assert connection.execute(
            "SELECT json_extract(CAST(data AS TEXT), '$.number') FROM eventmill_log"
        ).fetchall() == [
            (1,),
            (3,),
        ]


def test_four_processes_publish_at_once_on_one_file(tmp_path: Path) -> None:
    crowds = [
        subprocess.Popen([sys.executable, crowd.__file__, str(tmp_path), str(number)], env=ENVIRONMENT)
        for number in range(crowd.PROCESSES)
    ]
    try:
        assert [each.wait(PATIENCE) for each in crowds] == [0] * crowd.PROCESSES
    finally:
        for each in crowds:
            each.kill()
            each.wait()
    told: list[tuple[int, str]] = []
    for number in range(crowd.PROCESSES):
        for line in (tmp_path / f"positions{number}").read_text().splitlines():
            position, id_ = line.split()
            told.append((int(position), id_))
    with contextlib.closing(sqlite3.connect(tmp_path / "crowd.db")) as connection:
        stored = connection.execute(
            "SELECT position, json_extract(CAST(data AS TEXT), '$.text') FROM eventmill_log ORDER BY position"
        ).fetchall()
        assert len(stored) == crowd.PROCESSES * crowd.MESSAGES
        assert sorted(told) == stored, "what each caller was told is what is there"
        assert [position for position, _ in stored] == list(range(1, len(stored) + 1))
        counts: dict[str, int] = {}
        for key, sequence in connection.execute("SELECT key, sequence FROM eventmill_log ORDER BY position"):
            counts[key] = counts.get(key, 0) + 1
            assert sequence == counts[key]
        assert len(counts) == crowd.KEYS
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_a_new_file_may_be_opened_by_several_at_once(tmp_path: Path) -> None:
    """SQLite tells those that come second at once, and whatever the timeout, that the file is locked."""
    subprocess.run(
        [sys.executable, opening.__file__, str(tmp_path), "40"], env=ENVIRONMENT, timeout=PATIENCE, check=True
    )
