"""The commands: `python -m modern_di_replicas <command>`."""

import argparse
import collections.abc
import sys
import typing


DEMO_MODULES: typing.Final = frozenset({"fastapi", "httpx", "modern_di_fastapi", "psutil", "rich", "uvicorn"})
"""What the extra `demo` brings."""

MISSING_EXTRA: typing.Final = 1
HIGHEST_PORT: typing.Final = 65535


def main(arguments: collections.abc.Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.

    Args:
        arguments: those of the command line; None for the real ones.

    """
    options = _parser().parse_args(arguments)
    status: int = options.run(options)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m modern_di_replicas", description="modern-di-replicas")
    commands = parser.add_subparsers(title="commands", dest="command", required=True)

    about = "a real application over a real primary and two replicas, on this machine"
    demo = commands.add_parser("demo", help=about, description=f"Shows {about}; takes a few seconds, leaves nothing.")
    demo.add_argument("--serve", action="store_true", help="keep it running until Ctrl-C, to send requests yourself")
    demo.add_argument("--port", type=_port, default=0, help="of the application (default: a free one)")
    demo.set_defaults(run=_demo)
    return parser


def _demo(options: argparse.Namespace) -> int:
    try:
        from modern_di_replicas.demo import command  # noqa: PLC0415  # it needs the extra, other commands do not
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in DEMO_MODULES:
            raise
        sys.stderr.write(f"The demo needs {error.name!r}: pip install 'modern-di-replicas[demo]'\n")
        return MISSING_EXTRA
    return command.run(serve=options.serve, port=options.port)


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= HIGHEST_PORT:
        msg = f"a port is a number from 1 to {HIGHEST_PORT}, or 0 for a free one"
        raise argparse.ArgumentTypeError(msg)
    return port


if __name__ == "__main__":
    sys.exit(main())
