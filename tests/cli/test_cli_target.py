"""Import strings, and what is said about wrong ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from eventmill.cli.target import load_app, load_apps
from eventmill.core.errors import ConfigurationError


def test_finds_an_app_by_name_alone_by_factory_and_in_a_list(folder: Path) -> None:
    (folder / "several.py").write_text(
        "from bakery import app\nfrom eventmill import App\n"
        "other = App('sqlite:///other.db', name='other')\n"
        "def make(): return other\n"
        "def all_of_them(): return [app, other]\n"
        "class Inner: app = other\n"
    )
    app = load_app("bakery:app")
    assert app.name == "bakery"
    assert load_app("bakery") is app
    assert load_app("several:make").name == "other"
    assert load_app("several:Inner.app").name == "other"
    assert [each.name for each in load_apps(["bakery", "several:all_of_them"])] == ["bakery", "other"]


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("bakry", "did you mean bakery?"),
        ("bakery:ap", "did you mean bakery:app?"),
        ("bakery:bake", "calling it failed: TypeError"),
        ("bakery:Ordered", "calling it failed: TypeError"),
        ("bakery:app.name", "is str, not an App"),
        ("bakery.py:app", "for a file write bakery"),
        ("bakery:", "write module:attribute"),
        ("-x", "write module:attribute"),
        ("nothing", "has no App"),
        ("twice", "say which: twice:one, twice:two"),
        ("broken", "broken.py, line 2"),
        ("lacking", "No module named 'not_there_at_all'"),
        ("leaving", "SystemExit: 3"),
        ("sqlite:///bakery.db", "not the URL of a store"),
    ],
)
def test_wrong_ones_are_refused_with_the_remedy(folder: Path, target: str, words: str) -> None:
    (folder / "nothing.py").write_text("")
    (folder / "broken.py").write_text("x = 1\n1 / 0\n")
    (folder / "lacking.py").write_text("import not_there_at_all\n")
    (folder / "leaving.py").write_text("raise SystemExit(3)\n")
    (folder / "twice.py").write_text(
        "from eventmill import App\none = App('sqlite:///a.db', name='a')\ntwo = App('sqlite:///b.db', name='b')\n"
    )
    with pytest.raises(ConfigurationError) as refusal:
        load_apps([target])
    assert words in str(refusal.value)


def test_an_error_of_ours_in_the_module_keeps_its_words(folder: Path) -> None:
    (folder / "wrong.py").write_text("from eventmill import App\napp = App('oracle://x')\n")
    with pytest.raises(ConfigurationError, match="no backend for oracle"):
        load_app("wrong")
