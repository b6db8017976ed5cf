"""Requirements: what a test promises, the register of them, their catalogue and their false-alarm budget."""

import importlib.util
import inspect
import math
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest

from clusters.errors import UserError
from clusters.paths import CHECKOUT
from suites.support import disturbance, mutants
from suites.support.verdicts import Claim, Evidence, Judge, Verdict

MUST = "MUST"
SHOULD = "SHOULD"
LEVELS = (MUST, SHOULD)

# How often a run of everything may cry wolf: once in ten thousand.
FALSE_ALARM_BUDGET = 1e-4

ID = re.compile(r"[a-z][a-z0-9]*\.[a-z0-9]+(-[a-z0-9]+)*")
SUITES = CHECKOUT / "suites"
CATALOGUE = SUITES / "requirements.md"

Test = TypeVar("Test", bound=Callable[..., object])


@dataclass(frozen=True)
class Requirement:
    """One promise: its sentence is the first of the test's docstring, its judge decides from evidence alone.

    `alpha` bounds the false alarm of the judge as a whole; `detects` is the shift in share points that it must notice
    with a power of 99 %, None for a judge without statistics. `file` is relative to the checkout where it lies in it.
    """

    id: str
    level: str
    sentence: str
    judge: Judge
    alpha: float
    detects: float | None
    file: Path
    function: str
    # It changes what the whole cluster shares, so nothing may run beside it.
    alone: bool = False

    @property
    def area(self) -> str:
        """The part of the id before the dot, which is the folder of the test."""
        return self.id.partition(".")[0]

    @property
    def path(self) -> Path:
        """The test file as an absolute path."""
        return CHECKOUT / self.file


_register: dict[str, Requirement] = {}


def requirement(
    requirement_id: str, *, level: str, judge: Judge, alpha: float = 0.0, detects: float | None = None, alone: bool = False,
) -> Callable[[Test], Test]:
    """Declare that a test function shows one requirement, and enter it in the register.

    A test that changes what the whole cluster shares says `alone`: no other process of a parallel run checks anything meanwhile.

    Raises UserError for an id that is not `area.kebab-sentence` or is taken by another test, an unknown level, a test
    without a docstring, and an alpha outside 0..budget.
    """

    def declare(test: Test) -> Test:
        where = f"requirement {requirement_id!r} on {test.__module__}.{test.__name__}"
        if not ID.fullmatch(requirement_id):
            raise UserError(where, expected="an id such as routing.weighted-split", seen=repr(requirement_id), hint="area.kebab-sentence, the area is the test's folder")
        if level not in LEVELS:
            raise UserError(where, expected="level MUST or SHOULD", seen=repr(level), hint="a MUST that does not hold fails the run")
        if not 0 <= alpha <= FALSE_ALARM_BUDGET or (detects is not None and not 0 < detects < 1):
            raise UserError(where, expected=f"alpha in 0..{FALSE_ALARM_BUDGET:g} and detects between 0 and 1", seen=f"alpha {alpha:g}, detects {detects}", hint="alpha is the false alarm of the whole judge")
        file = Path(inspect.getsourcefile(test) or test.__code__.co_filename).resolve()
        entry = Requirement(
            id=requirement_id, level=level, sentence=_first_sentence(where, test.__doc__), judge=judge, alpha=alpha, detects=detects,
            file=file.relative_to(CHECKOUT) if file.is_relative_to(CHECKOUT) else file, function=test.__name__, alone=alone,
        )
        taken = _register.get(requirement_id)
        # The same test may be imported twice, by pytest and by a replay in one process.
        if taken is not None and (taken.file, taken.function) != (entry.file, entry.function):
            raise UserError(where, expected="one test per id", seen=f"{taken.file}::{taken.function} has it", hint="give this test an id of its own")
        _register[requirement_id] = entry
        marked: Test = pytest.mark.requirement(entry)(test)
        return marked

    return declare


@contextmanager
def collecting() -> Iterator[Mapping[str, Requirement]]:
    """Give the block an empty register of its own, and bring the former one back afterwards."""
    before = dict(_register)
    _register.clear()
    try:
        yield _register
    finally:
        _register.clear()
        _register.update(before)


def discover(suites: Path = SUITES) -> dict[str, Requirement]:
    """Import every `test_*.py` below an area folder and return the requirements they declare, by id.

    Nothing is run: a test file has no side effects on import. `selftest` and `support` are not areas. Raises UserError
    naming the file when one cannot be imported.
    """
    with collecting() as found:
        for file in sorted(suites.glob("*/test_*.py")):
            if file.parent.name not in ("selftest", "support"):
                _import(file)
        return dict(sorted(found.items()))


def problems(requirements: Iterable[Requirement]) -> list[str]:
    """Return what is wrong with a set of requirements as sentences: ids that lie outside their folder."""
    return [
        f"{entry.id} lies in folder {entry.path.parent.name}, its area is {entry.area}: {entry.file}::{entry.function}"
        for entry in requirements
        if entry.path.parent.name != entry.area
    ]


def refuse_misplaced(requirements: Iterable[Requirement]) -> None:
    """Raise UserError naming the requirements whose ids lie outside their folder."""
    if misplaced := problems(requirements):
        raise UserError("requirements", expected="every id in the folder of its area", seen="; ".join(misplaced), hint="move the test or rename the id")


def budget(requirements: Iterable[Requirement]) -> float:
    """Return the sum of the declared false alarms; raise UserError when a run of them could exceed the budget.

    The sum bounds the chance that any of them fails on a correct mesh, however they depend on one another (Boole).
    """
    chosen = sorted(requirements, key=lambda entry: -entry.alpha)
    total = math.fsum(entry.alpha for entry in chosen)
    # A sum of decimal fractions may exceed their decimal sum in the last digit.
    if total > FALSE_ALARM_BUDGET * (1 + 1e-9):
        largest = ", ".join(f"{entry.id} {entry.alpha:g}" for entry in chosen[:3])
        raise UserError("false-alarm budget of the run", expected=f"at most {FALSE_ALARM_BUDGET:g}", seen=f"{total:g} over {len(chosen)} requirements (largest: {largest})", hint="lower an alpha and enlarge its sample with sampling.sample_size")
    return total


def judge(entry: Requirement, evidence: Evidence) -> Verdict:
    """Judge evidence and hold the judge to what its requirement declares.

    A world that changed meanwhile makes it inconclusive (`disturbance.weigh`). Statistics whose alphas sum to more than the declared one, or that could not notice the declared shift, add a claim
    that is inconclusive: such a verdict is not the one that was promised. Raises UserError when the evidence lacks
    what the judge asks for.
    """
    try:
        verdict = entry.judge(evidence)
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"evidence of {entry.id}", expected="what its judge asks for", seen=f"{type(error).__name__}: {error}", hint=f"compare it with the judge in {entry.file}") from error
    extra = []
    spent = math.fsum(statistic.alpha for statistic in verdict.statistics)
    if spent > entry.alpha * (1 + 1e-9):
        extra.append(Claim("declared-false-alarm", None, f"the tests spend {spent:g} of false alarm, {entry.alpha:g} is declared"))
    blunt = [statistic for statistic in verdict.statistics if entry.detects is not None and (statistic.smallest_detectable_shift is None or statistic.smallest_detectable_shift > entry.detects)]
    if blunt or (entry.detects is not None and not verdict.statistics and verdict.outcome == "held"):
        least = ", ".join("none" if statistic.smallest_detectable_shift is None else f"{statistic.smallest_detectable_shift:.3g}" for statistic in blunt) or "no statistic"
        extra.append(Claim("declared-power", None, f"a shift of {entry.detects:g} is to be noticed, the draw notices {least}"))
    return disturbance.weigh(Verdict.of(*verdict.claims, *extra), evidence)


def render(requirements: Iterable[Requirement]) -> str:
    """Return the catalogue as Markdown: which requirements need the cluster for themselves, then one row for each, ordered by id."""
    requirements = list(requirements)
    alone = ", ".join(f"`{entry.id}`" for entry in sorted(requirements, key=lambda each: each.id) if entry.alone)
    rows = ["| id | level | sentence | false alarm | notices | mutants | test |", "|---|---|---|---|---|---|---|"]
    for entry in sorted(requirements, key=lambda each: each.id):
        killed = ", ".join(f"`{mutant.name}`" for mutant in mutants.of(entry)) or "none"
        rows.append(" | ".join((
            f"| `{entry.id}`", entry.level, entry.sentence.replace("|", "\\|"), f"{entry.alpha:g}" if entry.alpha else "exact",
            f"{entry.detects * 100:g} points" if entry.detects else "any", killed, f"`{entry.file.as_posix()}::{entry.function}` |",
        )))
    return f"{HEAD}Checked with nothing beside them, in a parallel run too: {alone or 'none'}.\n\n" + "\n".join(rows) + "\n"


HEAD = f"""# Requirements

Generated by `python -m suites requirements --write` from the tests; a self-test compares. "False alarm" is the probability
of a red on a mesh that is right (all of them together at most {FALSE_ALARM_BUDGET:g} per run), "notices" the shift found with a
probability of 99 %, "mutants" the declared faults of the mesh that must turn the requirement red.

"""


def _first_sentence(where: str, docstring: str | None) -> str:
    paragraph = " ".join(inspect.cleandoc(docstring or "").split("\n\n")[0].split())
    # A full stop ends a sentence only before a space and a capital: "X-Forwarded-For.v1", "e.g. this" do not.
    sentence = re.split(r"(?<=\.)\s+(?=[A-Z])", paragraph)[0]
    if not sentence:
        raise UserError(where, expected="a docstring that states the requirement as a fact", seen="none", hint="one sentence, present tense")
    return sentence


def _import(file: Path) -> None:
    name = f"_faasmesh_discovered.{file.parent.name}.{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise UserError(f"import of {file}", expected="a Python file", seen="something else", hint="rename it")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"import of {file}", expected="a test file without side effects", seen=f"{type(error).__name__}: {error}", hint="run pytest --collect-only on it") from error
    finally:
        del sys.modules[name]

