"""The commands: `python -m modern_di_replicas <command>`."""

import argparse
import collections.abc
import os
import sys
import typing


DEMO_MODULES: typing.Final = frozenset(
    {"fastapi", "flask", "httpx", "modern_di_fastapi", "modern_di_flask", "psutil", "psycopg", "rich", "uvicorn"}
)
"""The packages of the extra `demo`."""

CLI_MODULES: typing.Final = frozenset({"rich"})
"""The packages of the extra `cli`."""

MISSING_EXTRA: typing.Final = 1
HIGHEST_PORT: typing.Final = 65535


def main(arguments: collections.abc.Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.

    Args:
        arguments: the command line; None for `sys.argv`.

    """
    options = _parser().parse_args(arguments)
    status: int = options.run(options)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m modern_di_replicas", description="modern-di-replicas")
    commands = parser.add_subparsers(title="commands", dest="command", required=True)

    about = "a real application over a real primary and two replicas, on this machine"
    demo = commands.add_parser("demo", help=about, description=f"Shows {about}; takes a few seconds, leaves nothing.")
    demo.add_argument(
        "--serve",
        action="store_true",
        help="keep it running until Ctrl-C, with a live page and commands that break servers",
    )
    demo.add_argument("--tour", action="store_true", help="exit after the tour, without breaking the servers")
    demo.add_argument("--port", type=_port, default=0, help="of the application (default: a free one)")
    demo.set_defaults(run=_demo)

    about = (
        "check a topology: roles, lag, slots, poolers, privileges, connections; exit status 1 when something is wrong"
    )
    doctor = commands.add_parser("doctor", help=about, description=about)
    _add_targets(doctor)
    doctor.add_argument(
        "--workers",
        type=_positive,
        default=os.environ.get("WEB_CONCURRENCY", "1"),
        help="processes that run the application (default: $WEB_CONCURRENCY, or 1)",
    )
    doctor.add_argument("--json", action="store_true", help="print JSON")
    doctor.set_defaults(run=_doctor)

    about = "the topology live in the terminal: roles, lag and events"
    watch = commands.add_parser("watch", help=about, description=f"Shows {about}; until Ctrl-C.")
    _add_targets(watch)
    limits = watch.add_mutually_exclusive_group()
    limits.add_argument("--once", dest="seconds", action="store_const", const=0.0, help="print the state and exit")
    limits.add_argument("--seconds", type=float, help="exit after this many seconds")
    watch.set_defaults(run=_watch)
    return parser


def _add_targets(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "targets",
        nargs="+",
        metavar="URL | module:settings",
        help="the URL of the primary and those of the replicas; or where your ReplicationSettings are",
    )


def _demo(options: argparse.Namespace) -> int:
    try:
        from modern_di_replicas.demo import command  # noqa: PLC0415  # it needs the extra, other commands do not
    except ModuleNotFoundError as error:
        return _missing_extra(error, "demo", "demo", DEMO_MODULES)
    return command.run(serve=options.serve, tour=options.tour, port=options.port)


def _doctor(options: argparse.Namespace) -> int:
    try:
        from modern_di_replicas.doctor import command  # noqa: PLC0415  # it needs the extra, other commands do not
    except ModuleNotFoundError as error:
        return _missing_extra(error, "doctor", "cli", CLI_MODULES)
    return command.run(options.targets, workers=options.workers, as_text=not options.json)


def _watch(options: argparse.Namespace) -> int:
    try:
        from modern_di_replicas.watch import command  # noqa: PLC0415  # it needs the extra, other commands do not
    except ModuleNotFoundError as error:
        return _missing_extra(error, "watch", "cli", CLI_MODULES)
    return command.run(options.targets, seconds=options.seconds)


def _missing_extra(error: ModuleNotFoundError, command: str, extra: str, modules: collections.abc.Set[str]) -> int:
    if error.name is None or error.name.partition(".")[0] not in modules:
        raise error
    sys.stderr.write(f"The {command} needs {error.name!r}: pip install 'modern-di-replicas[{extra}]'\n")
    return MISSING_EXTRA


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        msg = "use a whole number from 1"
        raise argparse.ArgumentTypeError(msg)
    return number


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= HIGHEST_PORT:
        msg = f"a port is a number from 1 to {HIGHEST_PORT}, or 0 for a free one"
        raise argparse.ArgumentTypeError(msg)
    return port


if __name__ == "__main__":
    sys.exit(main())
