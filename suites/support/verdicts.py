"""Claims and verdicts: what a judge says about evidence, in words and in JSON."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, Self

from suites.support.sampling import Statistic

HELD = "held"
FAILED = "failed"
INCONCLUSIVE = "inconclusive"
NOT_RUN = "not-run"

# A Draw's JSON or any other JSON, by the name under which the check saved it.
Evidence = Mapping[str, Any]

WORD: Mapping[bool | None, str] = {True: HELD, False: FAILED, None: INCONCLUSIVE}


@dataclass(frozen=True)
class Claim:
    """One fact that the evidence supports (True), refutes (False) or cannot settle (None).

    `said` is a full sentence about what was seen. `expected` and `got` are the two values that disagree when it is
    refuted; a claim that compares nothing leaves them empty.
    """

    name: str
    held: bool | None
    said: str
    statistic: Statistic | None = None
    expected: str = ""
    got: str = ""

    def __post_init__(self) -> None:
        """Refuse a claim that names or says nothing: mutants point at claims by name, people read what is said."""
        if not self.name or not self.said:
            msg = f"a claim needs a name and a sentence, got {self.name!r} and {self.said!r}"
            raise ValueError(msg)

    @property
    def outcome(self) -> str:
        """One of "held", "failed", "inconclusive"."""
        return WORD[self.held]

    def text(self) -> str:
        """Render as one line, with expected and got when it is refuted."""
        line = f"{self.outcome}: {self.name}: {self.said}"
        if self.held is False and (self.expected or self.got):
            line += f" (expected {self.expected or 'otherwise'}, got {self.got or 'that'})"
        return line

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON; `from_json` gives an equal claim back."""
        return {
            "name": self.name, "held": self.held, "said": self.said, "expected": self.expected, "got": self.got,
            "statistic": self.statistic.to_json() if self.statistic else None,
        }

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote; raises KeyError or TypeError on anything else."""
        statistic = plain["statistic"]
        return cls(
            name=plain["name"], held=plain["held"], said=plain["said"], expected=plain["expected"], got=plain["got"],
            statistic=Statistic.from_json(statistic) if statistic is not None else None,
        )


@dataclass(frozen=True)
class Verdict:
    """The claims of one judge; it holds only when every claim does, and there is at least one."""

    claims: tuple[Claim, ...]

    def __post_init__(self) -> None:
        """Refuse the verdict that nothing was claimed for, and two claims that a mutant could not tell apart."""
        names = [claim.name for claim in self.claims]
        if not names or len(set(names)) != len(names):
            msg = f"a verdict needs claims of different names, got {names}"
            raise ValueError(msg)

    @classmethod
    def of(cls, *claims: Claim) -> Self:
        """Join claims; raises ValueError for none, and for two of one name."""
        return cls(claims)

    @property
    def outcome(self) -> str:
        """Return "failed" if any claim is refuted, else "inconclusive" if any is unsettled, else "held"."""
        held = [claim.held for claim in self.claims]
        return FAILED if False in held else INCONCLUSIVE if None in held else HELD

    @property
    def failed_claims(self) -> tuple[Claim, ...]:
        """The refuted claims, in the judge's order."""
        return tuple(claim for claim in self.claims if claim.held is False)

    @property
    def open_claims(self) -> tuple[Claim, ...]:
        """The claims that the evidence cannot settle."""
        return tuple(claim for claim in self.claims if claim.held is None)

    @property
    def statistics(self) -> tuple[Statistic, ...]:
        """The statistics of all claims that rest on one."""
        return tuple(claim.statistic for claim in self.claims if claim.statistic)

    @property
    def reason(self) -> str:
        """Why it does not hold, in one line; empty when it does."""
        return "; ".join(f"{claim.name}: {claim.said}" for claim in self.failed_claims or self.open_claims)

    def text(self) -> str:
        """Render one line per claim, the refuted first."""
        ordered = [*self.failed_claims, *self.open_claims, *(claim for claim in self.claims if claim.held)]
        return "\n".join(claim.text() for claim in ordered)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON; `from_json` gives an equal verdict back."""
        return {"outcome": self.outcome, "claims": [claim.to_json() for claim in self.claims]}

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote; raises KeyError or TypeError on anything else."""
        return cls(tuple(Claim.from_json(claim) for claim in plain["claims"]))


class Judge(Protocol):
    """A pure function of the evidence: the same JSON gives the same verdict, on any machine, at any time."""

    def __call__(self, evidence: Evidence, /) -> Verdict:
        """Judge the evidence."""
        ...
