"""Replay: judge the saved evidence of a run again, compare it with what was recorded, and compare two runs."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from clusters.errors import UserError
from clusters.paths import runs_root
from suites.support import requirements
from suites.support.report import FILE, RunReport, read_json
from suites.support.requirements import Requirement
from suites.support.verdicts import FAILED, HELD, INCONCLUSIVE, NOT_RUN, Evidence, Verdict

FOLDER = "evidence"
SCHEMA = 1


@dataclass(frozen=True)
class Saved:
    """One evidence file: what a check drew for a requirement, on the mesh as declared or under a mutant.

    `verdict` is the one that was given when it was saved, None in a file that carries none.
    """

    file: Path
    requirement: str
    mutant: str | None
    evidence: Evidence
    verdict: Verdict | None


@dataclass(frozen=True)
class Replayed:
    """One verdict given again, beside the one of the run; `recorded` is None where the run recorded none."""

    saved: Saved
    verdict: Verdict
    recorded: str | None
    differences: tuple[str, ...]

    @property
    def differs(self) -> bool:
        """Whether the run said something else."""
        return bool(self.differences)


@dataclass(frozen=True)
class Difference:
    """What changed between two runs: ids with what they were and are, and versions by name."""

    regressed: tuple[str, ...]
    fixed: tuple[str, ...]
    newly_not_run: tuple[str, ...]
    appeared: tuple[str, ...]
    versions: tuple[str, ...]


def load(file: Path) -> Saved:
    """Read one evidence file; raises UserError when it is damaged or of another schema."""
    plain = read_json(file)
    shapes = {"requirement": str, "mutant": str | None, "evidence": dict, "verdict": dict | None}
    if plain.get("schema") != SCHEMA or not all(isinstance(plain.get(key), shape) for key, shape in shapes.items()):
        raise UserError(f"evidence {file}", expected=f"schema {SCHEMA} with {', '.join(shapes)}", seen=f"schema {plain.get('schema')!r} with {', '.join(sorted(plain)) or 'nothing'}", hint="the file is damaged or was saved by another version")
    try:
        verdict = Verdict.from_json(plain["verdict"]) if plain.get("verdict") else None
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"evidence {file}", expected="a verdict with claims", seen=repr(error), hint="the file is damaged or was saved by another version") from error
    return Saved(file=file, requirement=plain["requirement"], mutant=plain.get("mutant"), evidence=plain["evidence"], verdict=verdict)


def resolve(named: str) -> Path:
    """Return the folder or file that a person named; `latest` is the youngest run. Raises UserError when there is none."""
    if named == "latest":
        root = runs_root()
        runs = [folder for folder in root.iterdir() if folder.is_dir() and not folder.is_symlink() and ((folder / FILE).exists() or (folder / FOLDER).is_dir())] if root.is_dir() else []
        if not runs:
            raise UserError("run latest", expected=f"a run in {root}", seen="none", hint="run the suites first, or name a folder")
        return max(runs, key=_age)
    path = Path(named)
    if not path.exists():
        # A bare name is most likely the id that a report or a listing showed.
        path = runs_root() / named
    if not path.exists():
        raise UserError(f"run {named}", expected="a run's folder, a file in it, or latest", seen="no such path", hint=f"runs are kept in {runs_root()}")
    return path


def rejudge(path: Path, known: Mapping[str, Requirement] | None = None) -> list[Replayed]:
    """Judge one evidence file, or all of a run's folder, again with the judges of the checkout.

    Raises UserError for a folder without evidence, a damaged file, and a requirement that the checkout does not have.
    """
    run = path if path.is_dir() else path.parent.parent
    files = [path] if path.is_file() else sorted((path / FOLDER).glob("*.json"))
    if not files:
        raise UserError(f"run {path}", expected=f"evidence in {path / FOLDER}", seen="none", hint="a run that drew nothing cannot be replayed")
    judges = requirements.discover() if known is None else known
    reported = _reported(run)
    return [_rejudge(load(file), judges, reported) for file in files]


def compare(before: RunReport, after: RunReport) -> Difference:
    """Compare two runs: a requirement that held and no longer does has regressed; one that was not run is told apart."""
    old = {result.id: result.outcome for result in before.settled()}
    new = {result.id: result.outcome for result in after.settled()}
    changed = {each: (was, new.get(each, NOT_RUN)) for each, was in old.items() if new.get(each, NOT_RUN) != was}
    versions = sorted(name for name in {*before.versions, *after.versions} if before.versions.get(name) != after.versions.get(name))
    return Difference(
        regressed=tuple(f"{each}: {was} -> {now}" for each, (was, now) in changed.items() if now == FAILED or (now == INCONCLUSIVE and was == HELD)),
        fixed=tuple(f"{each}: {was} -> {now}" for each, (was, now) in changed.items() if now == HELD),
        newly_not_run=tuple(f"{each}: {was} -> {now}{'' if each in new else ' (absent)'}" for each, (was, now) in changed.items() if now == NOT_RUN),
        appeared=tuple(f"{each}: {now}" for each, now in new.items() if each not in old),
        versions=tuple(f"{name}: {before.versions.get(name, 'none')} -> {after.versions.get(name, 'none')}" for name in versions),
    )


def _rejudge(saved: Saved, judges: Mapping[str, Requirement], reported: Mapping[str, Verdict]) -> Replayed:
    if saved.requirement not in judges:
        raise UserError(f"evidence {saved.file}", expected="a requirement of this checkout", seen=repr(saved.requirement), hint=f"known are {', '.join(sorted(judges)) or 'none'}; replay with the version that ran it")
    verdict = requirements.judge(judges[saved.requirement], saved.evidence)
    # What the report says is what people acted on; what the evidence file says is all there is of a mutant.
    recorded = reported.get(saved.requirement, saved.verdict) if saved.mutant is None else saved.verdict
    if recorded is None:
        return Replayed(saved, verdict, None, ())
    was, now = ({claim.name: claim.outcome for claim in each.claims} for each in (recorded, verdict))
    differences = [] if recorded.outcome == verdict.outcome else [f"verdict {recorded.outcome} -> {verdict.outcome}"]
    differences += [f"{name} {was.get(name, 'absent')} -> {now.get(name, 'absent')}" for name in sorted({*was, *now}) if was.get(name) != now.get(name)]
    return Replayed(saved, verdict, recorded.outcome, tuple(differences))


def _reported(run: Path) -> dict[str, Verdict]:
    """Return the verdicts of a run's report before Holm: Holm weighs a whole run, a replay judges one check at a time."""
    if not (run / FILE).exists():
        return {}
    return {result.id: Verdict(result.claims) for result in RunReport.load(run).results.values() if result.claims}


def _age(folder: Path) -> float:
    file = folder / FILE
    return (file if file.exists() else folder).stat().st_mtime
