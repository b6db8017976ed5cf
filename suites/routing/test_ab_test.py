"""A/B tests: who a user is decides which release answers, by header and by cookie, from one moment on."""

from suites.support import judges, rollouts
from suites.support.manifests import Manifests
from suites.support.requirements import requirement
from suites.support.verdicting import Decide
from suites.support.verdicts import Evidence, Verdict
from workloads.caller.client import Caller
from workloads.fixtures import Steady
from workloads.load import Persona

HOST = "ab-test.serverless.example.com"
GROUP_A = Persona("group-a", {"cookie": "session=1; group=a"})
BY_HEADER = Persona("group-b-by-header", {"x-group": "b"})
BY_COOKIE = Persona("group-b-by-cookie", {"cookie": "session=1; group=b"})

MATCHES = (("x-group", "b"), ("Cookie", "group=b"), ("Cookie", "group=b; session=1"), ("Cookie", "session=1;group=b"), ("Cookie", "a=1; group=b; c=2"))
# What almost looks like group b: other values, other names, other cases.
NEAR_MISSES = (
    ("x-group", "bb"), ("x-group", "B"), ("x-group", ""), ("x-groups", "b"),
    ("Cookie", "group=bb"), ("Cookie", "subgroup=b"), ("Cookie", "group=a; note=group=b"), ("Cookie", "group=B"), ("Cookie", "Group=b"),
)
# A rule is right or wrong for every call alike.
CALLS = 20


def judge(evidence: Evidence) -> Verdict:
    """Before the test everybody gets the stable release, then group b the candidate and nobody else, and no call of the load fails."""
    load, stages = evidence["load"], evidence["stages"]
    return Verdict.of(
        rollouts.uninterrupted("no-request-failed", load, stages, ("stable", "candidate")),
        rollouts.served("stable-for-all-before", load, stages, "before", ["stable"]),
        rollouts.served("group-a", load, stages, "test", ["stable"], persona=GROUP_A.name),
        rollouts.served("group-b-by-header", load, stages, "test", ["candidate"], persona=BY_HEADER.name),
        rollouts.served("group-b-by-cookie", load, stages, "test", ["candidate"], persona=BY_COOKIE.name),
        judges.only_version("matches-inside", judges.joined(evidence["matches"]), "candidate", least=CALLS * len(MATCHES)),
        judges.only_version("near-misses-inside", judges.joined(evidence["near-misses"]), "stable", least=CALLS * len(NEAR_MISSES)),
    )


@requirement("routing.ab-test", level="MUST", judge=judge)
def test_a_group_gets_the_candidate(releases: str, caller: Caller, manifests: Manifests, steady_load: Steady, decide: Decide) -> None:
    """Users of group b, told by header or by cookie, get the candidate and nobody else does, and no request of steady load fails."""
    manifests.apply("ab_test.before.yaml")
    with steady_load(HOST, "/", personas=[GROUP_A, BY_HEADER, BY_COOKIE]) as load:
        before = rollouts.in_place(load, "before")
        test = rollouts.stage(load, manifests, "ab_test.yaml", "test")
        matches, near_misses = ({f"{name}: {value}": caller.draw(releases, count=CALLS, headers=[("Host", HOST), (name, value)]) for name, value in group} for group in (MATCHES, NEAR_MISSES))

    decide(load=load.draw(), stages=[before, test], matches=matches, **{"near-misses": near_misses})
