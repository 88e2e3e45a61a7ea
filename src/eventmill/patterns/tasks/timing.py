"""When a schedule fires: a pure function of its last planned moment and of now."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal
from zoneinfo import ZoneInfo

import msgspec

from eventmill.core.checks import check_seconds
from eventmill.core.errors import ConfigurationError

Missed = Literal["once", "skip", "all"]

MOST = 1_000
"""Fires that one commit may send, where all missed ones are made up for."""


class Timing(msgspec.Struct, frozen=True, omit_defaults=True):
    """Cron in a time zone, or an interval.

    every: seconds, counted from 1970 on, so that all processes agree. missed: what becomes of moments at which nobody was
    there: `once` makes up for all of them with one fire, for the latest of them; `skip` with none where that is more than
    `tolerance` seconds ago; `all` with one for each.
    """

    cron: str | None = None
    every: float | None = None
    tz: str = "UTC"
    missed: Missed = "once"
    tolerance: float = 60.0

    def check(self, name: str) -> None:
        """Refuse what never fires, or is not understood, naming what is wrong."""
        where = f"schedule {name}"
        if (self.cron is None) == (self.every is None):
            raise ConfigurationError(f'{where}: say when: cron="0 3 * * *" or every=seconds, one of them')
        if self.every is not None and not 0.1 <= check_seconds(self.every, where, "every") < 10**9:
            raise ConfigurationError(f"{where}: every={self.every}; give seconds, 0.1 or more")
        if self.cron is not None and not isinstance(self.cron, str):
            raise ConfigurationError(f'{where}: cron={self.cron!r}; give an expression such as "0 3 * * *"')
        if self.missed not in ("once", "skip", "all"):
            raise ConfigurationError(f"{where}: missed={self.missed!r}; choose 'once', 'skip' or 'all'")
        check_seconds(self.tolerance, where, "tolerance", zero=True)
        try:
            zone = ZoneInfo(self.tz)
        except Exception as error:
            raise ConfigurationError(
                f"{where}: tz={self.tz!r} is no time zone known here, such as Europe/Berlin"
            ) from error
        if self.cron is not None:
            try:
                next(_cron(self.cron, datetime.fromtimestamp(0, zone)))
            except ConfigurationError:
                raise
            except StopIteration:
                raise ConfigurationError(f"{where}: cron={self.cron!r} names a day that never comes") from None
            except Exception as error:
                raise ConfigurationError(f"{where}: cron={self.cron!r} is not understood: {error}") from error

    def following(self, moment: int) -> int:
        """The first moment of the schedule after this one, both in milliseconds since 1970 UTC.

        A local time that a change to summer time leaves out comes right after it; one that comes twice when it ends
        fires once, except where the expression names every hour.
        """
        if self.every is not None:
            step = round(self.every * 1000)
            return (moment // step + 1) * step
        assert self.cron is not None
        local = datetime.fromtimestamp(moment / 1000, ZoneInfo(self.tz))
        following: datetime
        for following in _cron(self.cron, local):
            after = round(following.timestamp() * 1000)
            # In the hour that comes twice, the next local time may be one that was there the first time.
            if after > moment:
                return after
        raise ConfigurationError(f"cron={self.cron!r} names no moment after {local.isoformat()}")

    def fires(self, planned: int, now: int) -> tuple[Sequence[int], int]:
        """What to fire, and the moment planned next. planned: the moment that was; all in milliseconds."""
        if planned > now:
            return (), planned
        if self.missed == "all":
            due: list[int] = []
            while planned <= now and len(due) < MOST:
                due.append(planned)
                planned = self.following(planned)
            return due, planned
        latest = self._latest(planned, now)
        if self.missed == "skip" and now - latest > self.tolerance * 1000:
            return (), self.following(now)
        return (latest,), self.following(max(latest, now))

    def _latest(self, planned: int, now: int) -> int:
        """The last moment of the schedule up to now."""
        if self.every is not None:
            step = round(self.every * 1000)
            return max(planned, now // step * step)
        assert self.cron is not None
        local = datetime.fromtimestamp(now / 1000 + 1, ZoneInfo(self.tz))
        moment: datetime
        for moment in _cron(self.cron, local, reverse=True):
            before = round(moment.timestamp() * 1000)
            if before <= now:
                return max(planned, before)
        return planned


def _cron(expression: str, moment: datetime, *, reverse: bool = False) -> Any:
    try:
        from cronsim import CronSim
    except ImportError:
        raise ConfigurationError(
            "cron= needs a package that is not installed: pip install 'eventmill[schedule]'"
        ) from None
    return CronSim(expression, moment, reverse=reverse)
