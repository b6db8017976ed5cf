"""The command line over runs that are over: `python -m suites replay|report|validate|diff|requirements`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from clusters.errors import EXIT_FAILED, EXIT_HELD, EXIT_USAGE, UserError
from suites.support import replay, report, requirements

RUN = "a run's folder or id, or `latest`"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 good, 1 a verdict against the run, 2 a mistake of the person's."""
    chosen = _parser().parse_args(argv)
    try:
        return int(chosen.func(chosen))
    except UserError as error:
        print(error, file=sys.stderr)  # noqa: T201  # the one line a person gets
        return EXIT_USAGE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m suites", description="Judge again, render, check and compare what runs left behind. No cluster is needed.")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    command = commands.add_parser("replay", help="judge a run's saved evidence again", description="Judge saved evidence with the judges of this checkout. Exit 1 when any verdict differs from the recorded one.")
    command.add_argument("run", metavar="RUN", help=f"{RUN}, or one evidence file")
    command.add_argument("--suites", type=Path, default=requirements.SUITES, metavar="FOLDER", help="where the judges are (default: the suites of this checkout)")
    command.set_defaults(func=_replay)

    command = commands.add_parser("report", help="render report.html again", description="Render report.html from report.json, and print the table of requirements.")
    command.add_argument("run", metavar="RUN", help=RUN)
    command.set_defaults(func=_report)

    command = commands.add_parser("validate", help="hold a report against its schema", description="Check a report.json against the published JSON Schema of its version.")
    command.add_argument("file", metavar="FILE", help=f"a report.json, {RUN}")
    command.set_defaults(func=_validate)

    command = commands.add_parser("diff", help="compare two runs", description="Say what regressed, was fixed, is no longer run, and which versions changed. Exit 1 on a regression.")
    command.add_argument("before", metavar="BEFORE", help=RUN)
    command.add_argument("after", metavar="AFTER", help=RUN)
    command.add_argument("--enforce", action="store_true", help="what is no longer run counts as a regression")
    command.set_defaults(func=_diff)

    command = commands.add_parser("requirements", help="print, write or check the catalogue", description="The catalogue of requirements, generated from the tests.")
    either = command.add_mutually_exclusive_group()
    either.add_argument("--write", action="store_true", help=f"write {requirements.CATALOGUE.name}")
    either.add_argument("--check", action="store_true", help=f"exit 1 when {requirements.CATALOGUE.name} is not what the tests say")
    command.add_argument("--suites", type=Path, default=requirements.SUITES, metavar="FOLDER", help=argparse.SUPPRESS)
    command.set_defaults(func=_requirements)
    return parser


def _replay(chosen: argparse.Namespace) -> int:
    found = replay.rejudge(replay.resolve(chosen.run), requirements.discover(chosen.suites))
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("verdict", "recorded", "requirement", "mutant", "why"):
        shown.add_column(title, overflow="fold")
    for each in found:
        why = "; ".join(each.differences) or each.verdict.reason
        shown.add_row(each.verdict.outcome, each.recorded or "none", each.saved.requirement, each.saved.mutant or "", why.replace("[", "\\["), style="red" if each.differs else None)
    _console().print(shown)
    differing = sum(each.differs for each in found)
    _say(f"replay: {len(found) - differing} as recorded, {differing} different" if any(each.recorded for each in found) else f"replay: {len(found)} judged, none had been recorded")
    return EXIT_FAILED if differing else EXIT_HELD


def _report(chosen: argparse.Namespace) -> int:
    loaded = report.RunReport.load(replay.resolve(chosen.run))
    page = report.write_page(loaded)
    _console().print(report.table(loaded))
    if loaded.mutation:
        _console().print(report.kill_table(loaded))
        _say(report.kill_line(loaded))
    _say(f"page: {page}")
    _say(report.last_line(loaded))
    return EXIT_HELD


def _validate(chosen: argparse.Namespace) -> int:
    path = replay.resolve(chosen.file)
    file = path / report.FILE if path.is_dir() else path
    report.validate(report.read_json(file), file)
    _say(f"{file}: valid, {report.SCHEMA} version {report.VERSION}")
    return EXIT_HELD


def _diff(chosen: argparse.Namespace) -> int:
    found = replay.compare(report.RunReport.load(replay.resolve(chosen.before)), report.RunReport.load(replay.resolve(chosen.after)))
    for title, lines in (
        ("regressed", found.regressed), ("fixed", found.fixed), ("no longer run", found.newly_not_run),
        ("new", found.appeared), ("versions", found.versions),
    ):
        if lines:
            _say("\n  ".join((f"{title}:", *lines)))
    _say(f"diff: {len(found.regressed)} regressed, {len(found.fixed)} fixed, {len(found.newly_not_run)} no longer run, {len(found.versions)} versions changed")
    return EXIT_FAILED if found.regressed or (chosen.enforce and found.newly_not_run) else EXIT_HELD


def _requirements(chosen: argparse.Namespace) -> int:
    found = requirements.discover(chosen.suites).values()
    requirements.refuse_misplaced(found)
    requirements.budget(found)
    text = requirements.render(found)
    catalogue = chosen.suites / requirements.CATALOGUE.name
    if chosen.write:
        report.replace_file(catalogue, text)
        _say(f"{catalogue}: {len(found)} requirements")
    elif chosen.check:
        if not catalogue.exists() or catalogue.read_text() != text:
            _say(f"{catalogue}: not what the tests say; write it with: python -m suites requirements --write")
            return EXIT_FAILED
        _say(f"{catalogue}: {len(found)} requirements, as the tests say")
    else:
        _say(text.rstrip())
    return EXIT_HELD


def _console() -> Console:
    """Tables go to whoever reads stdout; a pipe gets lines that are not folded at 80 columns."""
    return Console(width=None if sys.stdout.isatty() else 200, highlight=False)


def _say(text: str) -> None:
    print(text)  # noqa: T201  # this is the command's output


if __name__ == "__main__":
    sys.exit(main())
