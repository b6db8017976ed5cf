"""`python -m clusters`: doctor, images, up, down, status."""

import argparse
import importlib
import importlib.util
import sys
from collections.abc import Sequence
from typing import NoReturn

from clusters.errors import EXIT_USAGE, UserError

# Which module offers which commands. Only the one that is asked for is imported: doctor has to answer where others cannot.
OFFERS = {
    "clusters.host": ("doctor",),
    "clusters.images.cli": ("images",),
    "clusters.kind": ("up", "down", "status"),
}
PROGRAM = "python -m clusters"
INTERRUPTED = 130


class Parser(argparse.ArgumentParser):
    """argparse, but a mistake is answered with one line in the project's own form."""

    def error(self, message: str) -> NoReturn:
        """Leave with exit code 2."""
        mistake = UserError(self.prog, expected="a valid command line", seen=message, hint=f"{self.prog} --help")
        self.exit(EXIT_USAGE, f"{mistake}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; a user's mistake is one line on standard error."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        namespace = _parser(arguments).parse_args(arguments)
        return int(namespace.func(namespace))
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_USAGE
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; the next run cleans up or goes on from here\n")
        return INTERRUPTED


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    parser = Parser(prog=PROGRAM, description="The testbed's host, images and cluster.", allow_abbrev=False)
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    for module in _needed(arguments):
        if importlib.util.find_spec(module) is not None:
            importlib.import_module(module).add_parser(subparsers)
    return parser


def _needed(arguments: Sequence[str]) -> list[str]:
    """Return the modules to import: the asked command's, or all of them where help is asked for."""
    if arguments and arguments[0].startswith("-"):
        return list(OFFERS)
    asked = [module for module, commands in OFFERS.items() if arguments and arguments[0] in commands]
    if not asked:
        known = ", ".join(command for commands in OFFERS.values() for command in commands)
        raise UserError(PROGRAM, expected=f"one of {known}", seen=arguments[0] if arguments else "no command", hint=f"{PROGRAM} --help")
    return asked


if __name__ == "__main__":
    sys.exit(main())
