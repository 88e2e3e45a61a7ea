"""The command line of scripts/servers."""

import argparse
import signal
import sys
from pathlib import Path
from types import FrameType

from serving.errors import NotInstalled, ServingError
from serving.fleet import KINDS, Fleet
from serving.packages import install
from serving.watch import watch

CHECKOUT = Path(__file__).resolve().parents[2]


def main() -> int:
    signal.signal(signal.SIGTERM, _interrupted)
    arguments = _parser().parse_args()
    fleet = Fleet(arguments.folder)
    try:
        match arguments.command:
            case "install":
                install()
            case "start":
                _start(fleet, arguments.names, available=arguments.available, owner=arguments.owner)
            case "stop":
                fleet.stop(arguments.names)
            case "restart":
                fleet.restart(arguments.name, kill=arguments.kill)
            case "status":
                return _status(fleet)
    except ServingError as error:
        print(f"scripts/servers: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _start(fleet: Fleet, names: list[str], *, available: bool, owner: int | None) -> None:
    installed, remedies = fleet.installed(names)
    if remedies and not available:
        raise NotInstalled("\n".join(remedies))
    for remedy in remedies:
        print(f"scripts/servers: left out: {remedy}", file=sys.stderr)
    if installed:
        if owner is not None:
            watch(fleet, owner)  # before there is anything to stop, so that no moment is unwatched
        fleet.start(installed)
        print(fleet.env.read_text(), end="")


def _status(fleet: Fleet) -> int:
    """Exit code 0 when every server that was started answers."""
    started = [server for server in fleet.servers() if server.record.exists()]
    states = {server.name: _state(server.alive(), server.alive() and server.answers()) for server in started}
    for server in started:
        ports = " ".join(f"{name}={port}" for name, port in server.ports.items())
        pid = server.processes[-1].pid if server.processes else "-"
        print(f"{server.name:10} {states[server.name]:10} pid={pid} {ports}")
    if not started:
        print(f"no servers in {fleet.folder}")
    return 0 if set(states.values()) <= {"serves"} else 1


def _state(alive: bool, answers: bool) -> str:
    return "serves" if answers else "hangs" if alive else "has ended"


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--folder", type=Path, default=CHECKOUT / ".servers", help="where they live (.servers)")
    parser = argparse.ArgumentParser(prog="scripts/servers", description="PostgreSQL, RabbitMQ and Kafka for the tests")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("install", parents=[common], help="install their packages, where missing")
    start = commands.add_parser("start", parents=[common], help="start them and print their addresses")
    start.add_argument("--available", action="store_true", help="leave out, with a warning, what is not installed")
    start.add_argument("--while", type=int, dest="owner", metavar="PID", help="stop all when this process has ended")
    stop = commands.add_parser("stop", parents=[common], help="end them, and remove their data")
    for command in (start, stop):
        command.add_argument("names", nargs="*", metavar="NAME", type=_kind, help=f"{', '.join(KINDS)}; else all")
    restart = commands.add_parser("restart", parents=[common], help="end one and start it on the same data and ports")
    restart.add_argument("name", choices=list(KINDS), metavar="NAME")
    restart.add_argument("--kill", action="store_true", help="with kill -9")
    commands.add_parser("status", parents=[common], help="which run, and where")
    return parser


def _kind(name: str) -> str:
    if name not in KINDS:
        raise argparse.ArgumentTypeError(f"{name} is not one of {', '.join(KINDS)}")
    return name


def _interrupted(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


sys.exit(main())
