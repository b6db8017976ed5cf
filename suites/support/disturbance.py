"""What happened to the pods of a check while its evidence was drawn: a changed world supports no verdict, for or against."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from clusters.errors import UserError
from suites.support.verdicts import Claim, Evidence, Verdict

# The name under which every check's evidence keeps what its pods were before and after; no check may use it for its own.
WORLD = "world"
CLAIM = "world-undisturbed"

State = Mapping[str, Any]


def disturbances(before: State, after: State) -> list[str]:
    """Return what happened to the pods of `before` that nobody asked for, as sentences; pods that came later are no matter.

    Both are what `World.state` returns. A pod that is gone, restarted a container, or lost its readiness (even if it is ready
    again) disturbed what was drawn meanwhile.
    """
    on_purpose = set(after["ended_on_purpose"])
    found = []
    for uid, was in before["pods"].items():
        now = after["pods"].get(uid)
        # Whoever was on its way out when the evidence began, an earlier check's pod, took no part in it.
        if was["pod"] in on_purpose or was.get("leaving"):
            continue
        if now is None:
            found.append(f"pod {was['pod']} ended")
        elif now["restarts"] != was["restarts"]:
            found.append(f"pod {was['pod']} restarted {now['restarts'] - was['restarts']} containers")
        elif not now["ready_since"]:
            found.append(f"pod {was['pod']} is no longer ready")
        elif now["ready_since"] != was["ready_since"]:
            found.append(f"pod {was['pod']} was not ready for a while")
    return found


def weigh(verdict: Verdict, evidence: Evidence) -> Verdict:
    """Return the verdict as it stands in the world that the evidence was drawn in.

    In a disturbed one nothing is held against the mesh, and the whole is inconclusive even where every claim held: it was
    not drawn under the conditions that the requirement speaks of. Raises UserError for evidence whose world cannot be read.
    """
    if WORLD not in evidence:
        return verdict
    try:
        found = disturbances(evidence[WORLD]["before"], evidence[WORLD]["after"])
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError("evidence of the world", expected="pods before and after", seen=repr(error), hint="the evidence file is damaged or was saved by another version") from error
    if not found:
        return verdict
    why = "; ".join(found)
    claims = [
        replace(claim, held=None, said=f"{claim.said} (not held against the mesh: {why})", expected="", got="") if claim.held is False else claim
        for claim in verdict.claims
    ]
    return Verdict.of(*claims, Claim(CLAIM, None, f"the pods changed while the evidence was drawn: {why}"))
