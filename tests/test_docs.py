"""The documentation: its programs run, its links lead somewhere, and nothing that can be typed is left out."""

from __future__ import annotations

import ast
import dataclasses
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from eventmill import Settings
from eventmill.cli.main import cli

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")])
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FILE = re.compile(r"# (\w+\.py)\n")

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTHONWARNINGS": "default"}


def programs(page: Path) -> list[str]:
    return BLOCK.findall(page.read_text(encoding="utf-8"))


def eventmill(*arguments: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "eventmill", *arguments],
        cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("page", [page for page in PAGES if programs(page)], ids=lambda page: page.name)
def test_programs_run(page: Path, tmp_path: Path) -> None:
    """Each block of Python is a whole program; its first line may name its file, which later ones may import."""
    for number, text in enumerate(programs(page), 1):
        named = FILE.match(text)
        path = tmp_path / (named[1] if named else f"program_{number}.py")
        path.write_text(text, encoding="utf-8")
        done = subprocess.run(
            [sys.executable, path.name],
            cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{page.name}, {path.name}:\n{done.stderr}"


def test_readme_word_by_word(tmp_path: Path) -> None:
    """Its dozen lines, run and published to with the commands that stand below them."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (tmp_path / "shop.py").write_text(programs(ROOT / "README.md")[0], encoding="utf-8")
    for command in ("run shop:app", """publish shop:app order.placed '{"customer": "ada", "total": 30}'""", "groups"):
        assert f"\n.venv/bin/eventmill {command}" in readme, f"the README no longer says: eventmill {command}"
    worker = subprocess.Popen(
        [sys.executable, "-m", "eventmill", "run", "shop:app"],
        cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        said = eventmill("publish", "shop:app", "order.placed", '{"customer": "ada", "total": 30}', folder=tmp_path)
        assert "published 1 message of order.placed" in said
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ada ordered for 30\n"
        assert "shop.book" in eventmill("groups", "shop:app", folder=tmp_path)
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(timeout=30) == 0
    finally:
        worker.kill()
        worker.communicate()
    connection = sqlite3.connect(tmp_path / "shop.db")
    assert connection.execute("SELECT customer, total FROM orders").fetchall() == [("ada", 30)]
    connection.close()


def test_the_readme_survives_kill(tmp_path: Path) -> None:
    """As the README says: kill -9 the worker whenever you like, and each order is there once."""
    (tmp_path / "shop.py").write_text(programs(ROOT / "README.md")[0], encoding="utf-8")
    lines = "".join(f'{{"customer": "c{n % 7}", "total": {n}}}\n' for n in range(2_000))
    subprocess.run(
        [sys.executable, "-m", "eventmill", "publish", "shop:app", "order.placed"],
        cwd=tmp_path, env=ENVIRONMENT, input=lines, text=True, timeout=60, check=True, capture_output=True,
    )  # fmt: skip
    connection = sqlite3.connect(tmp_path / "shop.db")
    try:
        for goal in (200, 2_000):
            worker = subprocess.Popen(
                [sys.executable, "-m", "eventmill", "run", "shop:app"],
                cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            try:
                until = time.monotonic() + 60
                while connection.execute("SELECT count(*) FROM orders").fetchone()[0] < goal:
                    assert worker.poll() is None, "the worker ended by itself"
                    assert time.monotonic() < until, f"fewer than {goal} orders after a minute"
                    time.sleep(0.005)
            finally:
                worker.kill()
                worker.wait()
        rows = connection.execute("SELECT customer, total FROM orders ORDER BY rowid").fetchall()
    finally:
        connection.close()
    assert sorted(rows) == sorted((f"c{n % 7}", n) for n in range(2_000))
    for customer in {row[0] for row in rows}:
        totals = [total for who, total in rows if who == customer]
        assert totals == sorted(totals), f"{customer}'s orders were booked out of order"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for link in LINK.findall(text):
        if link.startswith(("https://", "http://")):
            continue
        target, _, anchor = link.partition("#")
        place = (page.parent / target).resolve() if target else page
        assert place.exists(), f"{link} is not there"
        if anchor:
            assert anchor in anchors(place), f"{link}: no such heading"


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("folder", ["docs/decisions", "docs/how-to", "docs/reference"])
def test_every_page_is_listed(folder: str) -> None:
    listed = set(LINK.findall((ROOT / folder / "README.md").read_text(encoding="utf-8")))
    assert {page.name for page in (ROOT / folder).glob("*.md")} - {"README.md"} <= listed


def commands(group: click.Group, path: str) -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield f"{path} {name}", command
        if isinstance(command, click.Group):
            yield from commands(command, f"{path} {name}")


def sections() -> dict[str, str]:
    """The reference's text below each heading that is a command."""
    text = (ROOT / "docs/reference/cli.md").read_text(encoding="utf-8")
    parts = re.split(r"^#{2,3} (eventmill .+)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


ALL_COMMANDS = dict(commands(cli, "eventmill"))


@pytest.mark.parametrize("path", ALL_COMMANDS)
def test_command_is_documented(path: str) -> None:
    text = sections().get(path)
    assert text is not None, f"docs/reference/cli.md has no section '{path}'"
    for parameter in ALL_COMMANDS[path].params:
        if isinstance(parameter, click.Option) and not parameter.hidden:
            for option in parameter.opts:
                assert re.search(rf"`{re.escape(option)}\b", text), f"{path}: {option} is not documented"


def test_documented_commands_exist() -> None:
    assert set(sections()) == set(ALL_COMMANDS)
    for path, text in sections().items():
        real = {
            option for parameter in ALL_COMMANDS[path].params for option in (*parameter.opts, *parameter.secondary_opts)
        }
        rows = re.findall(r"^\| `.+?\|", text, re.MULTILINE)
        documented = {option for row in rows for option in re.findall(r"`(--?[a-z][a-z-]*)", row)}
        assert documented <= real, f"{path} has no {', '.join(documented - real)}"


def test_every_setting_is_documented() -> None:
    """With the default it really has."""
    text = (ROOT / "docs/reference/settings.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", text.partition("## URLs")[0], re.MULTILINE))
    assert rows == {field.name: str(field.default) for field in dataclasses.fields(Settings)}


def test_every_public_setting_of_an_app_is_documented() -> None:
    tree = ast.parse((ROOT / "src/eventmill/app.py").read_text(encoding="utf-8"))
    (init,) = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == "__init__"]
    text = (ROOT / "docs/reference/settings.md").read_text(encoding="utf-8")
    for argument in [*init.args.args[1:], *init.args.kwonlyargs]:
        assert re.search(rf"`{argument.arg}=?`", text), f"App({argument.arg}=…) is not in docs/reference/settings.md"
