"""What a newcomer gets wrong first, and what is said about it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from eventmill import App, ConfigurationError, Event, Message, Transaction, UnknownEventError
from eventmill.core.registry import REGISTRY


class Lit(Event, name="torch.lit", key="lamp"):
    lamp: str


class Dimmed(Event, name="torch.dimmed", key="lamp"):
    lamp: str


def bare(app: App) -> None:
    @app.on  # type: ignore[arg-type]
    async def light(event: Lit) -> None: ...


def another_event(app: App) -> None:
    @app.on(Lit)
    async def light(event: Dimmed) -> None: ...


def no_event(app: App) -> None:
    @app.on(Lit)
    async def light(event: str) -> None: ...


def another_batch(app: App) -> None:
    @app.on(Lit, batch=5)
    async def light(events: list[Dimmed]) -> None: ...


def retry_count(app: App) -> None:
    @app.on(Lit, retry=3)  # type: ignore[arg-type]
    async def light(event: Lit) -> None: ...


def plain_setup(app: App) -> None:
    @app.setup  # type: ignore[arg-type]
    def tables(tx: Transaction) -> None: ...


def no_scheme(app: App) -> None:
    App("lamps.db")


@pytest.mark.parametrize(
    ("mistake", "text"),
    [
        (bare, r"light: write @app\.on\(\.\.\.\) above it, with the parentheses"),
        (another_event, "handles Lit, but its parameter is annotated as Dimmed"),
        (no_event, "annotated as str"),
        (another_batch, "annotated as Dimmed"),
        (retry_count, r"retry=3; give a policy"),
        (plain_setup, r"async def tables\(tx\)"),
        (no_scheme, r"^lamps\.db: no backend for a URL without a scheme; use one of sqlite:///"),
    ],
)
def test_it_is_refused_where_it_is_written(mistake: Callable[[App], None], text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        mistake(App("memory://", name="lamps"))


def test_what_only_looks_mistaken_is_taken() -> None:
    app = App("memory://", name="lamps")

    @app.on(Lit, Dimmed)
    async def either(event: Lit | Dimmed) -> None: ...

    @app.on(Lit, Dimmed)
    async def base(event: Event) -> None: ...

    @app.on("torch.*")
    async def pattern(event: Lit) -> None: ...

    @app.on(Lit)
    async def envelope(message: Message) -> None: ...

    assert len(app.consumers) == 4


def test_publishing_what_is_no_event() -> None:
    with pytest.raises(UnknownEventError, match=r"Lit is a class: publish an instance of it, Lit\(\.\.\.\)"):
        REGISTRY.of(Lit)
    with pytest.raises(UnknownEventError, match="a text does not say which event it is"):
        REGISTRY.of("torch.lit")
