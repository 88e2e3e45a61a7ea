"""The command `eventmill`."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Any

import click

from eventmill import __version__
from eventmill.cli.output import safe
from eventmill.core.errors import BackendUnavailableError, ConfigurationError, EventmillError

COMMANDS = {
    "run": "Handle events with one or more apps until told to stop.",
    "demo": "Run a shop of five services and check that nothing is lost, doubled or out of order.",
    "publish": "Publish events, from the command line or from lines of JSON.",
    "tail": "Print events as they are in the log.",
    "topics": "List topics, or trim one.",
    "groups": "List consumer groups and how far each is behind, or forget one.",
    "projections": "List projections, build one anew, let readers see another generation, compare two.",
    "project": "Fold a projection as of a moment into another database.",
    "dead": "List dead letters, show one, replay or skip them.",
    "sagas": "List sagas, show the history of one, and help on what needs attention.",
    "aggregations": "List what aggregators have collected and not closed, show a key, close one.",
    "lineage": "What an aggregated event was made of, and what an event went into.",
    "tasks": "List tasks, show, cancel or run one, pause and resume queues.",
    "schedules": "List schedules, pause, resume, edit or run one.",
    "outbox": "Show what a service has yet to publish to its broker.",
    "cdc": "Capture changes of other databases as events: init, run, status, drop.",
    "history": "Print everything that happened to one entity.",
    "check": "Decode all that is stored, and name what this code cannot read.",
    "doctor": "Examine a store, and say what to do about what is found.",
}

UNAVAILABLE = 69
CONFIGURATION = 78


class Commands(click.Group):
    """Loads a command's module only when it is asked for, and turns our errors into exit codes."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command = getattr(import_module(f"eventmill.cli.{cmd_name}"), cmd_name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            # The reader has seen enough, as in `eventmill tail … | head`. Python would complain at exit
            # when it flushes what is left, so that goes nowhere.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(0)
        except KeyboardInterrupt:
            ctx.exit(130)
        except ConfigurationError as error:
            _complain(error)
            ctx.exit(CONFIGURATION)
        except BackendUnavailableError as error:
            _complain(error)
            ctx.exit(UNAVAILABLE)
        except EventmillError as error:
            _complain(error)
            ctx.exit(1)


def _complain(error: EventmillError) -> None:
    click.echo(f"eventmill: {safe(str(error), lines=True)}", err=True)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="eventmill")
def cli() -> None:
    """Event-driven architecture on one log and one transaction.

    APP is an import string: module:attribute, looked up from the current folder. The attribute may be
    an App, a list of Apps or a function that makes them, and may be left out where the module has one App.
    Wherever APP_OR_URL is asked for, a store's URL does, too: sqlite:///file.db
    """


def main() -> None:
    """Entry point of the command."""
    cli()
