"""A policy that locks everybody out: it does, it leaves the testbed its own way in, and it can be taken back."""

from collections.abc import Mapping
from dataclasses import replace

from clusters.components.istio.client import IstioClient
from suites.support import permissions
from suites.support.manifests import Manifests
from suites.support.permissions import ALLOWED_BY_POLICY, CLOSED, DENIED, Case, Client, Target
from suites.support.requirements import requirement
from suites.support.verdicting import Decide
from suites.support.verdicts import Evidence, Verdict

LOCKED = (
    Case("member", DENIED, "function-sa"),
    Case("member-elsewhere", DENIED, "function-sa-elsewhere"),
    Case("intruder", CLOSED, "intruder"),
    Case("another-function", DENIED, "function-sa", "open"),
)
OPEN = tuple(replace(case, expected=ALLOWED_BY_POLICY, policy="policy[lockout]") for case in LOCKED)


def judge(evidence: Evidence) -> Verdict:
    """Everybody is refused, then everybody is answered; the functions were asked for their counts all the while."""
    unlocked = evidence["open"]
    alive = {"function": unlocked["draws"]["member"], "open": unlocked["draws"]["another-function"]}
    return Verdict.of(
        *permissions.claims(LOCKED, evidence["locked"], prefix="locked-", alive=alive),
        *permissions.claims(OPEN, unlocked, prefix="open-"),
    )


@requirement("security.lockout", level="MUST", judge=judge)
def test_a_lockout_can_be_taken_back(
    clients: Mapping[str, Client], targets: Mapping[str, Target], istio: IstioClient, manifests: Manifests, decide: Decide, *, audited: bool,
) -> None:
    """A namespace-wide STRICT mode with a policy that allows nothing refuses everybody, and once both are taken back everybody is answered again.

    The testbed asks its pods on ports that the mesh leaves alone: no policy of a check can keep it from asking, or from tidying up.
    """
    manifests.apply("lockout.yaml")
    locked = permissions.try_all(LOCKED, clients, targets, istio, audited=audited)
    manifests.apply("lockout.control.yaml")

    decide(locked=locked, open=permissions.try_all(OPEN, clients, targets, istio, audited=audited))
