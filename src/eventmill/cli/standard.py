"""A command that is also the name of its commonest subcommand."""

from __future__ import annotations

import sys

import click


class StandardGroup(click.Group):
    """`topics APP` means `topics list APP`; the other subcommands are named."""

    standard = "list"

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = [self.standard, *args]
        return super().parse_args(ctx, args)


def confirm(what: str, *, yes: bool) -> None:
    """Ask before something that cannot be undone; where nobody can answer, `--yes` must have been given."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(f"{what}: this cannot be undone; add --yes to do it")
    click.confirm(f"{what}. Go on?", abort=True, err=True)
