"""The report of a run: built as the run goes, one JSON of a published schema, rendered for people from that JSON."""

import json
import math
import os
import statistics
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from rich.table import Table

from clusters.errors import EXIT_FAILED, EXIT_HELD, UserError
from suites.support import sampling
from suites.support.requirements import FALSE_ALARM_BUDGET, MUST, Requirement
from suites.support.verdicts import FAILED, HELD, INCONCLUSIVE, NOT_RUN, Claim, Verdict

SCHEMA = "faasmesh/report"
VERSION = 1
HERE = Path(__file__).parent
SCHEMA_FILE = HERE / "schema" / f"report-{VERSION}.json"
FILE = "report.json"
PART = "report.part-"
PAGE = "report.html"

KILLED = "killed"
SURVIVED = "survived"
# The check turned red, but not by the claim that the mutant names: a red for the wrong reason proves nothing.
WRONG_CLAIM = "wrong-claim"

COLOURS: Mapping[str, str] = {HELD: "green", FAILED: "red", INCONCLUSIVE: "yellow", NOT_RUN: "bright_black"}


@dataclass(frozen=True)
class Propagation:
    """How long an applied file of objects of `kind` took until every one of `proxies` proxies held it; `by_proxy` in seconds."""

    kind: str
    name: str
    seconds: float
    proxies: int
    by_proxy: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Phase:
    """A stretch of the run's wall time, in seconds."""

    name: str
    seconds: float


@dataclass(frozen=True)
class Skip:
    """Something that did not run, and why."""

    what: str
    reason: str


@dataclass(frozen=True)
class Kill:
    """What became of one mutant: "killed", "survived", "wrong-claim" or "not-run"."""

    requirement: str
    mutant: str
    kills: str
    outcome: str
    failed_claims: tuple[str, ...] = ()
    reason: str = ""


@dataclass(frozen=True)
class Result:
    """What a run found about one requirement; `holm` holds the adjusted p-value of each claim that has a p-value."""

    id: str
    level: str
    sentence: str
    file: str
    alpha: float
    outcome: str = NOT_RUN
    reason: str = "not reached"
    claims: tuple[Claim, ...] = ()
    timings: Mapping[str, float] = field(default_factory=dict)
    propagation: tuple[Propagation, ...] = ()
    evidence: str | None = None
    artefacts: tuple[str, ...] = ()
    # Combinations of caller, target and request that its evidence holds, where it is a table of them.
    combinations: int = 0
    holm: Mapping[str, float] = field(default_factory=dict)

    @property
    def p_value(self) -> float | None:
        """The smallest p-value of its claims, None without statistics."""
        return min((claim.statistic.p_value for claim in self.claims if claim.statistic), default=None)

    @property
    def holm_adjusted_p(self) -> float | None:
        """The smallest p-value of its claims after Holm across the run."""
        return min(self.holm.values(), default=None)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON: statistics stand in a list of their own, each naming its claim."""
        return {
            "id": self.id, "level": self.level, "sentence": self.sentence, "file": self.file, "outcome": self.outcome, "reason": self.reason,
            "claims": [{key: value for key, value in claim.to_json().items() if key != "statistic"} for claim in self.claims],
            "statistics": [
                {"claim": claim.name, **claim.statistic.to_json(), "holm_adjusted_p": self.holm.get(claim.name)}
                for claim in self.claims
                if claim.statistic
            ],
            "alpha": self.alpha, "p_value": self.p_value, "holm_adjusted_p": self.holm_adjusted_p,
            "timings": dict(self.timings), "propagation": [asdict(each) for each in self.propagation],
            "evidence": self.evidence, "artefacts": list(self.artefacts), "combinations": self.combinations,
        }

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote."""
        statistics = {each["claim"]: {key: value for key, value in each.items() if key not in ("claim", "holm_adjusted_p")} for each in plain["statistics"]}
        return cls(
            id=plain["id"], level=plain["level"], sentence=plain["sentence"], file=plain["file"], alpha=plain["alpha"],
            outcome=plain["outcome"], reason=plain["reason"],
            claims=tuple(Claim.from_json({**claim, "statistic": statistics.get(claim["name"])}) for claim in plain["claims"]),
            timings=plain["timings"], propagation=tuple(Propagation(**each) for each in plain["propagation"]),
            evidence=plain["evidence"], artefacts=tuple(plain["artefacts"]), combinations=plain.get("combinations", 0),
            holm={each["claim"]: each["holm_adjusted_p"] for each in plain["statistics"] if each["holm_adjusted_p"] is not None},
        )


UNREACHED = Result(id="", level="", sentence="", file="", alpha=0.0)


@dataclass
class RunReport:
    """One run; every call that adds to it also writes `report.json`, so that a killed run leaves what it knew.

    `environment` and `versions` are facts by name; `complete` stays false until `finish`.
    """

    folder: Path
    run: str
    began: str
    command: tuple[str, ...]
    profile: str
    provider: str
    image_origin: str
    environment: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    complete: bool = False
    results: dict[str, Result] = field(default_factory=dict)
    phases: list[Phase] = field(default_factory=list)
    skips: list[Skip] = field(default_factory=list)
    mutation: list[Kill] = field(default_factory=list)
    bench: dict[str, Any] | None = None
    # The process of a parallel run whose part of the report this is; empty for the report itself.
    part: str = ""
    _clock: float = field(default_factory=time.monotonic, repr=False, compare=False)

    @classmethod
    def begin(
        cls, folder: Path, *, command: Sequence[str], profile: str, provider: str, image_origin: str,
        environment: Mapping[str, Any] | None = None, versions: Mapping[str, str] | None = None, part: str = "",
    ) -> Self:
        """Open the report of a run in its folder, whose name is the run's id."""
        report = cls(
            folder=folder, run=folder.name, began=datetime.now(UTC).isoformat(timespec="seconds"), command=tuple(command), profile=profile,
            provider=provider, image_origin=image_origin, environment=dict(environment or {}), versions=dict(versions or {}), part=part,
        )
        report.write()
        return report

    def expect(self, *requirements: Requirement) -> None:
        """Enter requirements that are going to be tried; until recorded they stand as not run."""
        for entry in requirements:
            self.results.setdefault(entry.id, Result(id=entry.id, level=entry.level, sentence=entry.sentence, file=entry.file.as_posix(), alpha=entry.alpha))
        self.write()

    def record(
        self, requirement_id: str, verdict: Verdict, *, timings: Mapping[str, float] | None = None, propagation: Sequence[Propagation] = (),
        evidence: str | None = None, artefacts: Sequence[str] = (), combinations: int = 0,
    ) -> None:
        """Enter a verdict: `timings` in seconds by "setup", "settle", "draw", "judge"; paths relative to the run's folder."""
        self._change(
            requirement_id, outcome=verdict.outcome, reason=verdict.reason, claims=verdict.claims, timings=dict(timings or {}),
            propagation=tuple(propagation), evidence=evidence, artefacts=tuple(artefacts), combinations=combinations,
        )

    def broken(self, requirement_id: str, reason: str, *, timings: Mapping[str, float] | None = None, artefacts: Sequence[str] = ()) -> None:
        """Enter a requirement whose test ended in an error before there was a verdict: inconclusive, with the reason."""
        self._change(requirement_id, outcome=INCONCLUSIVE, reason=reason, timings=dict(timings or {}), artefacts=tuple(artefacts))

    def not_run(self, requirement_id: str, reason: str) -> None:
        """Enter a requirement that was skipped, and why."""
        self._change(requirement_id, outcome=NOT_RUN, reason=reason)

    def attach(self, requirement_id: str, *, artefacts: Sequence[str] = (), timings: Mapping[str, float] | None = None) -> None:
        """Add artefacts of a failure and timings that are known only after the verdict."""
        known = self.results[requirement_id]
        self._change(requirement_id, artefacts=(*known.artefacts, *artefacts), timings={**known.timings, **(timings or {})})

    def skip(self, what: str, reason: str) -> None:
        """Enter anything else that was left out."""
        self.skips.append(Skip(what, reason))
        self.write()

    def kill(self, kill: Kill) -> None:
        """Enter the fate of one mutant."""
        self.mutation.append(kill)
        self.write()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time a phase; one that raises is entered all the same."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.phases.append(Phase(name, round(time.monotonic() - began, 3)))
            self.write()

    def finish(self) -> None:
        """Close the report and write the page beside it."""
        self.complete = True
        self.write()
        write_page(self)
        for part in self.folder.glob(f"{PART}*.json"):
            part.unlink()

    def gather(self) -> None:
        """Take in what the processes of a parallel run have entered in their parts of the report so far; without parts, nothing."""
        parts = [RunReport.load(file) for file in sorted(self.folder.glob(f"{PART}*.json"))]
        if not parts:
            return
        for part in parts:
            for each in part.results.values():
                # Every process has collected every check; the one that got to it knows more than that.
                if each.id not in self.results or each.reason != UNREACHED.reason:
                    self.results[each.id] = each
        self.mutation = [kill for part in parts for kill in part.mutation]
        self.skips = list(dict.fromkeys(skip for part in parts for skip in part.skips))
        self.phases = [phase for part in parts for phase in part.phases]
        self.write()

    def settled(self) -> list[Result]:
        """Return the results after Holm across the run, ordered by id; see `settle`."""
        return settle(sorted(self.results.values(), key=lambda result: result.id))

    def write(self) -> None:
        """Write `report.json` so that a reader never sees half of it."""
        if not self.complete or not self.seconds:
            self.seconds = round(time.monotonic() - self._clock, 3)
        self.folder.mkdir(parents=True, exist_ok=True)
        replace_file(self.folder / (f"{PART}{self.part}.json" if self.part else FILE), json.dumps(self.to_json(), indent=1, ensure_ascii=False) + "\n")

    def to_json(self) -> dict[str, Any]:
        """Return the report in its published form."""
        results = self.settled()
        return {
            "schema": SCHEMA, "version": VERSION, "run": self.run, "began": self.began, "seconds": self.seconds, "complete": self.complete,
            "command": list(self.command), "profile": self.profile, "provider": self.provider, "image_origin": self.image_origin,
            "environment": self.environment, "versions": self.versions,
            "summary": dict(count(results)),
            "requirements": [result.to_json() for result in results],
            "false_alarm": {
                "budget": FALSE_ALARM_BUDGET, "declared_sum": math.fsum(result.alpha for result in results), "by_area": alpha_by_area(results),
                "family": sum(len(result.holm) for result in results),
                "holm_rejected": [
                    {"requirement": result.id, "claim": claim}
                    for result in results
                    for claim, adjusted in result.holm.items()
                    if adjusted <= FALSE_ALARM_BUDGET
                ],
            },
            "propagation": propagation_by_kind(results),
            "phases": [asdict(phase) for phase in self.phases], "skips": [asdict(skip) for skip in self.skips],
            "mutation": [{**asdict(kill), "failed_claims": list(kill.failed_claims)} for kill in self.mutation] or None,
            "bench": self.bench,
        }

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a `report.json` or the one in a run's folder; raises UserError when it is none of this version."""
        file = path / FILE if path.is_dir() else path
        plain = read_json(file)
        validate(plain, file)
        return cls(
            folder=file.parent, run=plain["run"], began=plain["began"], command=tuple(plain["command"]), profile=plain["profile"],
            provider=plain["provider"], image_origin=plain["image_origin"], environment=plain["environment"], versions=plain["versions"],
            seconds=plain["seconds"], complete=plain["complete"],
            results={each["id"]: Result.from_json(each) for each in plain["requirements"]},
            phases=[Phase(**each) for each in plain["phases"]], skips=[Skip(**each) for each in plain["skips"]],
            mutation=[Kill(**{**each, "failed_claims": tuple(each["failed_claims"])}) for each in plain["mutation"] or []], bench=plain["bench"],
        )

    def _change(self, requirement_id: str, **changes: Any) -> None:  # noqa: ANN401  # the fields of a Result
        self.results[requirement_id] = replace(self.results[requirement_id], **changes)
        self.write()


def settle(results: Sequence[Result]) -> list[Result]:
    """Apply Holm across all p-values of a run at the level of its false-alarm budget.

    A claim that Holm rejects turns its requirement to failed even if its own test, at its smaller alpha, did not. The
    chance that either of the two raises a false alarm anywhere in the run stays within the budget, because Holm is
    weighted by the declared alphas: a test that rejects by itself has p_i <= alpha_i, so p_i / alpha_i times the sum of
    any of the alphas is at most the sum of them all, which `requirements.budget` keeps within the budget; hence
    whatever a single test rejects, Holm rejects too, and the union is Holm's own set. (With m equal alphas this is the
    plain procedure and the condition reads m * alpha <= budget.)

    Claims that the evidence could not settle are no part of the family: their p-value belongs to a broken draw.
    """
    family = [(index, claim.name, claim.statistic) for index, result in enumerate(results) for claim in result.claims if claim.statistic and claim.held is not None]
    adjusted = sampling.holm([statistic.p_value for _, _, statistic in family], [statistic.alpha for _, _, statistic in family])
    by_result: dict[int, dict[str, float]] = {}
    for (index, name, _), value in zip(family, adjusted, strict=True):
        by_result.setdefault(index, {})[name] = value
    settled = []
    for index, result in enumerate(results):
        values = by_result.get(index, {})
        own = {claim.name for claim in result.claims if claim.held is False}
        added = [name for name, value in values.items() if value <= FALSE_ALARM_BUDGET and name not in own]
        changed = replace(result, holm=values)
        if added and result.outcome != FAILED:
            said = ", ".join(f"{name} (adjusted p = {values[name]:.2g})" for name in added)
            changed = replace(changed, outcome=FAILED, reason=f"refuted by Holm across the run at {FALSE_ALARM_BUDGET:g}: {said}")
        settled.append(changed)
    return settled


def count(results: Sequence[Result]) -> Counter[str]:
    """Count results by outcome, all four outcomes present."""
    counted = Counter({HELD: 0, FAILED: 0, INCONCLUSIVE: 0, NOT_RUN: 0})
    counted.update(result.outcome for result in results)
    return counted


def alpha_by_area(results: Sequence[Result]) -> dict[str, float]:
    """Return the declared false alarms summed per area."""
    areas: dict[str, list[float]] = {}
    for result in results:
        areas.setdefault(result.id.partition(".")[0], []).append(result.alpha)
    return {area: math.fsum(alphas) for area, alphas in sorted(areas.items())}


def combinations_by_area(results: Sequence[Result]) -> dict[str, int]:
    """Return the combinations of caller, target and request that were tried, summed per area that has any."""
    areas = Counter[str]()
    for result in results:
        areas[result.id.partition(".")[0]] += result.combinations
    return {area: count for area, count in sorted(areas.items()) if count}


def propagation_by_kind(results: Sequence[Result]) -> list[dict[str, Any]]:
    """Return, per combination of kinds that was applied together, how often, and the median and longest seconds to the last proxy."""
    seconds: dict[str, list[float]] = {}
    for result in results:
        for each in result.propagation:
            seconds.setdefault(each.kind, []).append(each.seconds)
    return [
        {"kind": kind, "applied": len(values), "median": round(statistics.median(values), 3), "longest": round(max(values), 3)}
        for kind, values in sorted(seconds.items())
    ]


def exit_code(report: RunReport, *, enforce: bool = False) -> int:
    """Return 0 only when something held and no MUST failed or stayed inconclusive, and no mutant got away.

    A MUST that was not run fails under `enforce`. A SHOULD never fails a run. A run of mutants alone is judged by them.
    """
    results = report.settled()
    refusing = (FAILED, INCONCLUSIVE, NOT_RUN) if enforce else (FAILED, INCONCLUSIVE)
    if any(result.level == MUST and result.outcome in refusing for result in results):
        return EXIT_FAILED
    if any(kill.outcome != KILLED for kill in report.mutation):
        return EXIT_FAILED
    tried = [result for result in results if result.outcome != NOT_RUN]
    shown = any(result.outcome == HELD for result in tried) or (not tried and bool(report.mutation))
    return EXIT_HELD if shown else EXIT_FAILED


def last_line(report: RunReport) -> str:
    """Return the one line a person reads: `requirements: 4 held, 0 failed, 0 not run`."""
    counted = count(report.settled())
    line = f"requirements: {counted[HELD]} held, {counted[FAILED]} failed, {counted[NOT_RUN]} not run"
    return line + (f", {counted[INCONCLUSIVE]} inconclusive" if counted[INCONCLUSIVE] else "")


def figures(report: RunReport) -> list[str]:
    """Return how many combinations the run tried, and what it cost in false alarm and in waiting for proxies, one line each."""
    results = report.settled()
    tried = ", ".join(f"{area} {count}" for area, count in combinations_by_area(results).items())
    areas = ", ".join(f"{area} {alpha:.2g}" for area, alpha in alpha_by_area(results).items())
    waits = "; ".join(f"{each['kind']} {each['median']:.1f} s ({each['applied']} times, longest {each['longest']:.1f} s)" for each in propagation_by_kind(results))
    return [
        *([f"combinations of caller, target and request tried: {tried}"] if tried else []),
        f"false alarm: {math.fsum(result.alpha for result in results):.2g} declared of {FALSE_ALARM_BUDGET:g} ({areas})",
        *([f"propagation to the last proxy, median: {waits}"] if waits else []),
    ]


def kill_line(report: RunReport) -> str:
    """Return the line that sums up a mutation run: `mutants: 3 killed, 0 survived`."""
    counted = Counter(kill.outcome for kill in report.mutation)
    line = f"mutants: {counted[KILLED]} killed, {counted[SURVIVED]} survived"
    return line + "".join(f", {counted[word]} {said}" for word, said in ((WRONG_CLAIM, "red for another reason"), (NOT_RUN, "not run")) if counted[word])


def table(report: RunReport) -> Table:
    """Return the terminal's table of requirements."""
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("outcome", "requirement", "level"):
        shown.add_column(title, no_wrap=True)
    for title in ("n", "p", "notices", "seconds"):
        shown.add_column(title, justify="right", no_wrap=True)
    shown.add_column("reason", overflow="fold")
    for result in report.settled():
        statistics = [claim.statistic for claim in result.claims if claim.statistic]
        shift = max((statistic.smallest_detectable_shift for statistic in statistics if statistic.smallest_detectable_shift is not None), default=None)
        shown.add_row(
            f"[{COLOURS[result.outcome]}]{result.outcome}[/]", result.id, result.level, str(max(statistic.n for statistic in statistics)) if statistics else "",
            "" if result.p_value is None else f"{result.p_value:.2g}", "" if shift is None else f"{shift:.1%}",
            f"{sum(result.timings.values()):.1f}" if result.timings else "", result.reason.replace("[", "\\["),
        )
    return shown


def kill_table(report: RunReport) -> Table:
    """Return the terminal's kill matrix."""
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("outcome", "mutant", "requirement", "claim to kill", "claims refuted", "reason"):
        shown.add_column(title, overflow="fold")
    for kill in report.mutation:
        colour = "green" if kill.outcome == KILLED else "red"
        shown.add_row(f"[{colour}]{kill.outcome}[/]", kill.mutant, kill.requirement, kill.kills, ", ".join(kill.failed_claims), kill.reason.replace("[", "\\["))
    return shown


def write_page(report: RunReport) -> Path:
    """Render `report.html` beside `report.json`: one file, no scripts, nothing fetched."""
    environment = Environment(loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    page = report.folder / PAGE
    replace_file(page, environment.get_template("report.html.j2").render(
        report=report.to_json(), line=last_line(report), kill_line=kill_line(report), bars=_bars,
    ))
    return page


def validate(plain: Mapping[str, Any], file: Path) -> None:
    """Hold a report against the published schema; raises UserError naming the first field that does not fit."""
    from jsonschema import Draft202012Validator  # noqa: PLC0415  # 0.15 s that only readers of reports should pay

    if plain.get("schema") != SCHEMA or plain.get("version") != VERSION:
        raise UserError(f"report {file}", expected=f"schema {SCHEMA} version {VERSION}", seen=f"{plain.get('schema')!r} version {plain.get('version')!r}", hint="read it with the version of faasmesh that wrote it")
    errors = sorted(Draft202012Validator(json.loads(SCHEMA_FILE.read_text())).iter_errors(plain), key=lambda error: list(map(str, error.absolute_path)))
    if errors:
        raise UserError(f"report {file}", expected=f"what {SCHEMA_FILE.name} says", seen=f"{errors[0].json_path}: {errors[0].message[:200]}", hint=f"{len(errors)} fields do not fit")


def read_json(file: Path) -> dict[str, Any]:
    """Read one JSON object; raises UserError when there is no file, or no JSON, or no object in it."""
    try:
        plain = json.loads(file.read_text())
    except OSError as error:
        raise UserError(f"file {file}", expected="a readable file", seen=error.strerror or str(error), hint="name a run's folder or a file in it") from error
    except ValueError as error:
        raise UserError(f"file {file}", expected="JSON", seen=str(error), hint="the file is damaged; a run writes it in one step") from error
    if not isinstance(plain, dict):
        raise UserError(f"file {file}", expected="a JSON object", seen=type(plain).__name__, hint="name a report or an evidence file")
    return plain


def replace_file(file: Path, text: str) -> None:
    """Write a file in one step: beside it, to the disk, then renamed over it."""
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with draft.open("w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(file)
    finally:
        draft.unlink(missing_ok=True)


def _bars(statistic: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return, per leg, where count, declared share and accepted band lie on a bar from 0 to 100."""
    n = max(1, statistic["n"])
    return [
        {
            "leg": leg, "count": count_, "share": 100 * count_ / n, "declared": 100 * statistic["declared"].get(leg, 0.0),
            "low": 100 * statistic["bands"][leg][0] / n, "width": max(0.4, 100 * (statistic["bands"][leg][1] - statistic["bands"][leg][0]) / n),
            "band": statistic["bands"][leg], "interval": statistic["intervals"][leg],
            "inside": statistic["bands"][leg][0] <= count_ <= statistic["bands"][leg][1],
        }
        for leg, count_ in statistic["counts"].items()
    ]
