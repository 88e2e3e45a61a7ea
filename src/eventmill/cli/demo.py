"""`eventmill demo`: the shop at work, its workers killed, and the verdict."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import json
import logging
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

import click

import eventmill
from eventmill.backends.url import Url
from eventmill.runtime.parent import end_with_parent
from eventmill.runtime.service import Service

SHOP = "eventmill._shop"
LEASE = 2.0
"""Seconds: short, so that a worker that was killed or paused is soon replaced."""

BROKER = "EVENTMILL_SHOP_BROKER"

FAILURES = ("lost", "duplicated", "out_of_order", "dead", "fold_mismatches", "view_mismatches", "violations")


class Figure(click.FloatRange):
    """A number within bounds; click's own lets NaN pass."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        figure = float(super().convert(value, param, ctx))
        if not math.isfinite(figure):
            self.fail(f"{figure} is not a finite number.", param, ctx)
        return figure


@click.command()
@click.option(
    "--orders",
    type=click.Path(exists=True, dir_okay=False, readable=True, path_type=Path),
    help="Invoice lines, .csv or .csv.gz; orders are made up without it.",
)
@click.option("--seconds", type=Figure(min=0.1), default=15.0, show_default=True, help="How long to make up orders.")
@click.option("--rate", type=Figure(min=0.1), default=150.0, show_default=True, help="Made-up orders a second.")
@click.option("--processes", type=click.IntRange(1, 64), default=2, show_default=True, help="Worker processes.")
@click.option("--chaos", is_flag=True, help="Kill and pause worker processes at random, at least once a second.")
@click.option(
    "--store", metavar="URL", help="The services' databases, in schemas of one PostgreSQL database, not in files."
)
@click.option(
    "--broker", metavar="URL", help="What carries the events: amqp://, kafka://, postgresql:// or sqlite:///."
)
@click.option(
    "--restart", metavar="COMMAND", help="With --chaos: a shell command that restarts a server, run now and then."
)
@click.option(
    "--saga", type=click.Choice(["orchestrated", "choreographed"]), default="orchestrated", show_default=True,
    help="Whether a saga directs each checkout, or the services react to each other.",
)  # fmt: skip
@click.option(
    "--fail",
    type=Figure(min=0.0, max=1.0),
    default=0.0,
    show_default=True,
    help="Share of payments that fail for good.",
)
@click.option("--seed", type=int, default=1, show_default=True, help="What orders and chaos are drawn from.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, and nothing else, on standard output.")
@click.option(
    "--keep",
    type=click.Path(file_okay=False, writable=True, path_type=Path),
    help="Leave the services' databases in this folder, and what is in the broker where it is.",
)
@click.option("--worker", is_flag=True, hidden=True)
def demo(
    orders: Path | None,
    seconds: float,
    rate: float,
    processes: int,
    chaos: bool,
    store: str | None,
    broker: str | None,
    restart: str | None,
    saga: str,
    fail: float,
    seed: int,
    as_json: bool,
    keep: Path | None,
    worker: bool,
) -> None:
    """Run a shop of five services and a read view on real or made-up orders, and judge the result.

    Every figure is read from the services' own databases at the end. Exit code 1 when anything was
    lost, handled twice or out of order, or does not add up between the services.
    """
    if worker:
        # Under chaos a worker always finds that another took something over: that is the plan.
        _work(logging.ERROR if chaos else logging.WARNING)
        return
    if restart is not None and not chaos:
        raise click.UsageError("--restart is a part of --chaos: give that, too")
    with _folder(keep) as folder, _provider(folder, seed, fail) as provider:
        places = _places(store, broker)
        os.environ.update(
            EVENTMILL_SHOP=str(folder), EVENTMILL_SHOP_LEASE=str(LEASE), EVENTMILL_SHOP_SAGA=saga,
            EVENTMILL_SHOP_PROVIDER=provider, **places,
        )  # fmt: skip
        trial = _shop("trial.run")
        files = _shop("trial.orders_file")
        if orders is not None:
            # Refused before anything is started; the trial opens it again.
            try:
                files.OrdersFile(orders).__exit__(None, None, None)
            except files.OrdersFileError as error:
                raise click.BadParameter(str(error), param_hint="--orders") from error
        options = trial.Options(
            orders=orders,
            seconds=seconds,
            rate=rate,
            processes=processes,
            chaos=chaos,
            restart=restart,
            keep=keep is not None,
            own_broker=broker is None or places.get(BROKER) != broker,
            seed=seed,
            saga=saga,
            fail=fail,
            worker=(sys.executable, "-m", "eventmill", "demo", "--worker", *(["--chaos"] if chaos else [])),
        )
        screen = Screen()
        source = orders or f"{rate:g} made-up orders a second for {seconds:g} s"
        screen.say(f"a shop of five services in {processes} worker processes, under {folder}; {source}")
        result = _interruptible(trial.trial(options, screen), (trial.TrialError, files.OrdersFileError))
    if as_json:
        click.echo(json.dumps(result, ensure_ascii=False))
    else:
        _tell(result)
    if any(result[name] for name in FAILURES):
        sys.exit(1)


def _places(store: str | None, broker: str | None) -> dict[str, str]:
    """What `wiring` is to know of the servers: names that no other run has, so that nothing old is counted."""
    run = f"shop_{uuid4().hex[:8]}"
    places = {}
    if store is not None:
        url = Url.parse(store)
        if url.scheme not in ("postgresql", "postgres"):
            raise click.BadParameter(f"{url}: give a postgresql:// URL; files go into --keep", param_hint="--store")
        if url.get("schema") is not None:
            raise click.BadParameter("each service gets a schema of its own: leave schema= out", param_hint="--store")
        places["EVENTMILL_SHOP_STORE"] = _with(store, f"schema={run}_{{service}}")
    if broker is not None:
        url = Url.parse(broker)
        name = {"postgresql": "schema", "postgres": "schema", "amqp": "prefix", "amqps": "prefix", "kafka": "prefix"}
        apart = name.get(url.scheme)
        places[BROKER] = broker if apart is None or url.get(apart) else _with(broker, f"{apart}={run}")
    return places


def _with(url: str, option: str) -> str:
    return f"{url}{'&' if '?' in url else '?'}{option}"


class Screen:
    """Standard error: what happens, and progress bars where there is a terminal."""

    def say(self, text: str) -> None:
        click.echo(text, err=True)

    @contextmanager
    def bar(self, label: str, length: int) -> Iterator[Callable[[int], None]]:
        if not sys.stderr.isatty():
            yield lambda position: None
            return
        with click.progressbar(length=length, label=f"{label:22}", file=sys.stderr, width=0) as bar:
            yield lambda position: bar.update(max(0, min(position, length) - bar.pos))


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    """Where the databases live: a temporary folder, or one that the user wants to keep."""
    if keep is None:
        # A worker that had to be killed may still be on its way out.
        with TemporaryDirectory(prefix="eventmill-demo-", ignore_cleanup_errors=True) as name:
            yield Path(name)
        return
    keep.mkdir(parents=True, exist_ok=True)
    if any(keep.iterdir()):
        raise click.BadParameter(f"{keep} is not empty: give a new folder", param_hint="--keep")
    yield keep.absolute()


@contextmanager
def _provider(folder: Path, seed: int, fail: float) -> Iterator[str]:
    """The payment provider, which is somebody else's: a process with a ledger of its own. Yields where it listens."""
    program = _shop("trial.provider").__file__
    process = subprocess.Popen(  # noqa: S603 - our own program and figures
        [sys.executable, program, str(folder / "provider.db"), str(seed), str(fail)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        port = process.stdout.readline().strip()
        if not port:
            raise click.ClickException(f"the payment provider did not start (exit code {process.wait()})")
        yield f"127.0.0.1:{port}"
    finally:
        process.stdin.close()  # which ends it
        process.stdout.close()
        process.wait()


def _shop(module: str) -> Any:
    """A module of the shop: part of the installed package, or the checkout's `examples/shop` under the same name."""
    if importlib.util.find_spec(SHOP) is None:
        place = Path(eventmill.__file__).parents[2] / "examples" / "shop"
        spec = importlib.util.spec_from_file_location(
            SHOP, place / "__init__.py", submodule_search_locations=[str(place)]
        )
        if not place.is_dir() or spec is None or spec.loader is None:
            raise click.ClickException("the shop is not part of this installation; install eventmill again")
        sys.modules[SHOP] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[SHOP])
    try:
        return importlib.import_module(f"{SHOP}.{module}")
    except ModuleNotFoundError as error:
        if error.name != "sqlalchemy":
            raise
        raise click.ClickException(
            "the shop's old customer administration is an SQLAlchemy application: pip install 'eventmill[demo]'"
        ) from None


def _work(level: int) -> None:
    """Be one worker process: run all services until told to stop. level: of what is logged to standard error."""
    logging.basicConfig(level=level, format="worker %(process)d: %(message)s", stream=sys.stderr)
    end_with_parent(grace=10.0)
    asyncio.run(Service(_shop("services").APPS).run())


def _interruptible(work: Any, refusals: tuple[type[Exception], ...]) -> dict[str, Any]:
    """Run the trial; Ctrl-C ends it in good order with exit code 130, SIGTERM with 143."""
    terminated = False

    async def run() -> dict[str, Any]:
        task = asyncio.ensure_future(work)

        def end() -> None:
            nonlocal terminated
            terminated = True
            task.cancel()

        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, end)
        result: dict[str, Any] = await task
        return result

    try:
        return asyncio.run(run())
    except KeyboardInterrupt:
        click.echo("interrupted; the workers are stopped", err=True)
        sys.exit(130)
    except asyncio.CancelledError:
        if not terminated:
            raise
        click.echo("terminated; the workers are stopped", err=True)
        sys.exit(143)
    except refusals as error:
        raise click.ClickException(str(error)) from error


MONEY = ("gross", "refunded", "net", "money_captured", "money_refunded", "money_shipped")


def _tell(result: dict[str, Any]) -> None:
    """The verdict for people: a table, the lines that could not be read, and one sentence."""
    left_out = ("malformed_lines", "violations")
    for name, value in result.items():
        if name not in left_out:
            click.echo(f"{name.replace('_', ' '):18}{_figure(name, value):>24}")
    for bad in result["malformed_lines"]:
        click.echo(f"line {bad['line']:,}: {bad['reason']}")
    hidden = result["malformed"] - len(result["malformed_lines"])
    if hidden:
        click.echo(f"and {hidden:,} more malformed lines")
    reasons = [f"{result[name]:,} {name.replace('_', ' ')}" for name in FAILURES[:-1] if result[name]]
    reasons += result["violations"]
    click.echo(f"VERDICT: FAILED because {', '.join(reasons)}" if reasons else "VERDICT: ok")


def _figure(name: str, value: object) -> str:
    if name in MONEY and isinstance(value, int):
        sign = "-" if value < 0 else ""
        return f"{sign}£{abs(value) // 1000:,}.{abs(value) % 1000:03}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value if len(value) <= 24 else f"{value[:21]}..."
    return f"{value:,}"
