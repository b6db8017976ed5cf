"""How a check hands over its evidence: saved first, judged then."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from suites.support import permissions, report, requirements
from suites.support.disturbance import WORLD
from suites.support.requirements import Requirement
from suites.support.verdicts import FAILED, HELD, Evidence, Verdict

EVIDENCE_SCHEMA = 1


class CheckFailed(AssertionError):  # noqa: N818  # states what happened
    """The evidence refutes the requirement."""

    def __init__(self, requirement: Requirement, verdict: Verdict, evidence: Path) -> None:
        self.verdict = verdict
        super().__init__(f"{requirement.id}: {requirement.sentence}\n{verdict.text()}\nevidence: {evidence}")


class CheckInconclusive(CheckFailed):
    """The evidence neither supports nor refutes the requirement: not green, and not the mesh's fault."""


@dataclass
class Decide:
    """Called once by a check with its named evidence; a second call would be a second throw of the dice.

    Values may be draws or anything else with `to_json`, mappings of them, or JSON.
    """

    requirement: Requirement
    folder: Path
    mutant: str | None
    # What the pods are, asked when the check begins and when it decides.
    state: Callable[[], Mapping[str, Any]]
    before: Mapping[str, Any] = field(init=False)
    began: float = field(default_factory=time.monotonic)
    judge_seconds: float = 0.0
    combinations: int = 0
    verdict: Verdict | None = None

    def __post_init__(self) -> None:
        """Look at the world as the check finds it."""
        self.before = self.state()

    @property
    def file(self) -> Path:
        """The evidence file of this check, or of this check under this mutant."""
        name = self.requirement.id if self.mutant is None else f"{self.requirement.id}+{self.mutant}"
        return self.folder / "evidence" / f"{name}.json"

    def __call__(self, **evidence: Any) -> None:  # noqa: ANN401  # whatever the check observed
        """Save the evidence, judge it, save the verdict beside it.

        Raises:
            CheckFailed: the requirement does not hold.
            CheckInconclusive: the evidence cannot settle it.

        """
        # What a reader needs is the check's line and the verdict, not how it is kept.
        __tracebackhide__ = True
        if self.verdict is not None:
            raise TypeError(f"{self.requirement.id} decides a second time; evidence is drawn once")
        if WORLD in evidence:
            raise TypeError(f"{self.requirement.id} calls evidence {WORLD!r}, which is what the pods were before and after")
        plain: Evidence = {**_plain(evidence), WORLD: {"before": dict(self.before), "after": dict(self.state())}}
        self.file.parent.mkdir(parents=True, exist_ok=True)
        saved = {"schema": EVIDENCE_SCHEMA, "requirement": self.requirement.id, "mutant": self.mutant, "evidence": plain}
        report.replace_file(self.file, json.dumps(saved))
        self.combinations = permissions.tried(plain)
        began = time.monotonic()
        verdict = requirements.judge(self.requirement, plain)
        self.judge_seconds = time.monotonic() - began
        self.verdict = verdict
        report.replace_file(self.file, json.dumps({**saved, "verdict": verdict.to_json()}))
        if verdict.outcome != HELD:
            raise (CheckFailed if verdict.outcome == FAILED else CheckInconclusive)(self.requirement, verdict, self.file)


def _plain(value: Any) -> Any:  # noqa: ANN401  # JSON has no narrower type
    if hasattr(value, "to_json"):
        return value.to_json()
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value
