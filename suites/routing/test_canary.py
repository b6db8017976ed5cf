"""Canary releases: a candidate takes over in steps while the function is used."""

from typing import Any

from suites.support import judges, rollouts
from suites.support.manifests import Manifests
from suites.support.requirements import requirement
from suites.support.verdicting import Decide
from suites.support.verdicts import Evidence, Verdict
from workloads.caller.client import Caller
from workloads.fixtures import Steady
from workloads.load.generator import Load

HOST = "canary.serverless.example.com"
RAMP = (1, 10, 50)
# At 1 % an exact test at 2e-7 notices 2 points in 2 500 calls, at 50 % seven and a half.
CALLS = 2_500
# One share in a hundred that was left behind escapes these with a probability of 4e-5, and is then found by the load.
CALLS_AT_100 = 1_000
ALPHA = 2e-7
SHIFT = 0.076


def judge(evidence: Evidence) -> Verdict:
    """No call of the load fails, every step has its share, and before and after the ramp there is one release only."""
    load, steps = evidence["load"], evidence["steps"]
    stages = [step["stage"] for step in steps.values()]
    return Verdict.of(
        rollouts.uninterrupted("no-request-failed", load, stages, ("stable", "candidate")),
        rollouts.served("stable-before", load, stages, "0", ["stable"]),
        *(
            judges.split(f"shares-at-{weight}", steps[str(weight)]["drawn"], declared={"candidate": weight / 100, "stable": 1 - weight / 100}, alpha=ALPHA, shift=SHIFT)
            for weight in RAMP
        ),
        rollouts.served("candidate-at-100", load, stages, "100", ["candidate"]),
        judges.only_version("candidate-at-100-inside", steps["100"]["drawn"], "candidate", least=CALLS_AT_100),
    )


@requirement("routing.canary", level="MUST", judge=judge, alpha=len(RAMP) * ALPHA, detects=SHIFT)
def test_a_candidate_takes_over_in_steps(releases: str, caller: Caller, manifests: Manifests, steady_load: Steady, decide: Decide) -> None:
    """A candidate release takes 1, 10, 50 and 100 % of the requests in turn, exactly, and no request of steady load fails meanwhile."""

    def step(load: Load, weight: int) -> dict[str, Any]:
        reached = rollouts.stage(load, manifests, "canary.yaml", str(weight), stable=100 - weight, candidate=weight)
        drawn = caller.draw(releases, count=CALLS if weight in RAMP else CALLS_AT_100, concurrency=8, headers=[("Host", HOST)], keep_headers=[], keep_seen=[])
        return {"stage": reached, "drawn": drawn}

    manifests.apply("canary.yaml", stable=100, candidate=0)
    with steady_load(HOST, "/") as load:
        steps = {"0": {"stage": rollouts.in_place(load, "0")}, **{str(weight): step(load, weight) for weight in (*RAMP, 100)}}

    decide(load=load.draw(), steps=steps)
