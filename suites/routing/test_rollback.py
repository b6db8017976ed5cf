"""Rollbacks: a release that was given half of the requests is taken back, while the function is used."""


from suites.support import judges, rollouts
from suites.support.manifests import Manifests
from suites.support.requirements import requirement
from suites.support.verdicting import Decide
from suites.support.verdicts import Evidence, Verdict
from workloads.caller.client import Caller
from workloads.fixtures import Steady

HOST = "rollback.serverless.example.com"
# 3 000 calls notice at 1e-6 that half is 7 points off; 1 % that was left behind escapes 1 500 with a probability of 3e-7.
CALLS = 3_000
CALLS_AFTER = 1_500
ALPHA = 1e-6
SHIFT = 0.07


def judge(evidence: Evidence) -> Verdict:
    """Both releases answer in halves before, only the stable one after, and no call of the load fails."""
    load, stages = evidence["load"], evidence["stages"]
    return Verdict.of(
        rollouts.uninterrupted("no-request-failed", load, stages, ("stable", "candidate")),
        judges.split("shares-before", evidence["before"], declared={"stable": 0.5, "candidate": 0.5}, alpha=ALPHA, shift=SHIFT),
        rollouts.served("stable-after", load, stages, "taken-back", ["stable"]),
        judges.only_version("stable-after-inside", evidence["after"], "stable", least=CALLS_AFTER),
    )


@requirement("routing.rollback", level="MUST", judge=judge, alpha=ALPHA, detects=SHIFT)
def test_a_release_is_taken_back(releases: str, caller: Caller, manifests: Manifests, steady_load: Steady, decide: Decide) -> None:
    """A candidate that answers half of the requests answers none once it is rolled back, and no request of steady load fails."""
    manifests.apply("rollback.yaml", stable=50, candidate=50)
    with steady_load(HOST, "/") as load:
        half = rollouts.in_place(load, "half")
        before = caller.draw(releases, count=CALLS, concurrency=8, headers=[("Host", HOST)], keep_headers=[], keep_seen=[])
        taken_back = rollouts.stage(load, manifests, "rollback.yaml", "taken-back", stable=100, candidate=0)
        after = caller.draw(releases, count=CALLS_AFTER, concurrency=8, headers=[("Host", HOST)], keep_headers=[], keep_seen=[])

    decide(load=load.draw(), stages=[half, taken_back], before=before, after=after)
