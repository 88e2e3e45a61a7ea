"""The command line of scripts/servers."""

import argparse
import signal
import sys
from pathlib import Path
from types import FrameType

from serving.errors import ServingError
from serving.fleet import KINDS, Fleet
from serving.packages import install

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
                for warning in fleet.start(arguments.names):
                    print(f"scripts/servers: {warning}", file=sys.stderr)
                print(fleet.env.read_text(), end="")
            case "stop":
                fleet.stop(arguments.names)
            case "restart":
                fleet.restart(arguments.name, signal.SIGKILL if arguments.kill else None)
            case "status":
                return _status(fleet)
    except ServingError as error:
        print(f"scripts/servers: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _status(fleet: Fleet) -> int:
    """Exit code 0 when every server that was started answers."""
    started = [server for server in fleet.servers() if server.record.exists()]
    for server in started:
        state = "runs" if server.alive() and server.answers() else "hangs" if server.alive() else "has ended"
        ports = " ".join(f"{name}={port}" for name, port in server.ports.items())
        print(f"{server.name:10} {state:10} pid={server.processes[-1].pid if server.processes else '-'} {ports}")
    if not started:
        print(f"no servers in {fleet.folder}")
    return 0 if all(server.alive() and server.answers() for server in started) else 1


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--folder", type=Path, default=CHECKOUT / ".servers", help="where they live (.servers)")
    parser = argparse.ArgumentParser(prog="scripts/servers", description="PostgreSQL, RabbitMQ and Kafka for the tests")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("install", parents=[common], help="install their packages, where missing")
    for name, text in (("start", "start them and print their addresses"), ("stop", "end them, remove their data")):
        command = commands.add_parser(name, parents=[common], help=text)
        command.add_argument("names", nargs="*", metavar="NAME", type=_kind, help=", ".join(KINDS))
    restart = commands.add_parser("restart", parents=[common], help="end one and start it on the same data and ports")
    restart.add_argument("name", choices=list(KINDS))
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
