"""Run measurements: `python -m bench [--quick] [NAME …]`.

One line of JSON a measurement on standard output, a table at the end on standard error. A missed
target is not an error: the machine may be busy or slow, and what counts is the ratio to bare
`sqlite3` measured in the same minute.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path

from bench import kafka, rabbitmq
from bench.aggregates import aggregates
from bench.aggregation import aggregation
from bench.cdc import cdc
from bench.consume import one_worker, two_workers
from bench.latency import latency
from bench.measurement import Measurement, table
from bench.memory import memory
from bench.postgres import beside, postgres
from bench.projection import projection, projection_postgres
from bench.publish import alone, concurrent
from bench.rounds import Plan
from bench.saga import saga, saga_postgres
from bench.sourcing import sourcing
from bench.sourcing_postgres import sourcing_postgres
from bench.statements import statements
from bench.tasks import tasks, tasks_postgres

WORK: dict[str, Callable[[Plan], Coroutine[None, None, list[Measurement]]]] = {
    "statements": statements,
    "publish": concurrent,
    "alone": alone,
    "consume": one_worker,
    "two": two_workers,
    "latency": latency,
    "memory": memory,
    "saga": saga,
    "tasks": tasks,
    "projection": projection,
    "aggregation": aggregation,
    "sourcing": sourcing,
    "aggregates": aggregates,
}
SERVERS: dict[str, Callable[[Plan], Coroutine[None, None, list[Measurement]]]] = {
    "cdc": cdc,
    "kafka": kafka.kafka,
    "kafka-postgres": kafka.from_postgres,
    "postgres": postgres,
    "postgres-beside": beside,
    "saga-postgres": saga_postgres,
    "sourcing-postgres": sourcing_postgres,
    "tasks-postgres": tasks_postgres,
    "projection-postgres": projection_postgres,
    "rabbitmq-relay": rabbitmq.relay,
    "rabbitmq-consume": rabbitmq.consume,
    "rabbitmq-postgres": rabbitmq.from_postgres,
    "rabbitmq-latency": rabbitmq.latency,
}
"""These need a server, and run when they are named."""

DISK = Path("/var/tmp")
"""Kept over a restart, so it is on a disk, where the folder for temporary files may be memory."""


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=(__doc__ or "").split("\n\n")[1])
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"which, out of: {', '.join(WORK)}; all of these by default. With servers: {', '.join(SERVERS)}",
    )
    parser.add_argument("--quick", action="store_true", help="fewer messages and three rounds: a rough picture")
    parser.add_argument("--rounds", type=int, help="rounds of each contender; 5, or 3 with --quick")
    parser.add_argument("--folder", type=Path, help="where the databases are made: a folder on the disk to measure")
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in WORK | SERVERS]
    if unknown:
        parser.error(f"no measurement {unknown[0]!r}; there are {', '.join(WORK | SERVERS)}")
    if options.rounds is not None and options.rounds < 1:
        parser.error(f"--rounds {options.rounds}: give 1 or more")
    if options.folder is not None and not options.folder.is_dir():
        parser.error(f"--folder {options.folder}: no such folder")
    return options


def main() -> int:
    options = _parse()
    folder = options.folder or (DISK if DISK.is_dir() else Path(tempfile.gettempdir()))
    plan = Plan(folder, quick=options.quick, rounds=options.rounds or (3 if options.quick else 5))
    found: list[Measurement] = []
    for name in options.names or WORK:
        for measurement in asyncio.run((WORK | SERVERS)[name](plan)):
            print(measurement.line(), flush=True)
            found.append(measurement)
    print(f"\n{table(found)}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
