"""Blue-green releases: all requests move from one release to the other at once, while the function is used."""


from suites.support import judges, rollouts
from suites.support.manifests import Manifests
from suites.support.requirements import requirement
from suites.support.verdicting import Decide
from suites.support.verdicts import Evidence, Verdict
from workloads.caller.client import Caller
from workloads.fixtures import Steady

HOST = "blue-green.serverless.example.com"
# Once a proxy has the route it is right for every call alike; 200 over several connections show that both of its workers have it.
CALLS = 200


def judge(evidence: Evidence) -> Verdict:
    """Only blue answers before the switch, only green after it, and no call of the load fails."""
    load, stages = evidence["load"], evidence["stages"]
    return Verdict.of(
        rollouts.uninterrupted("no-request-failed", load, stages, ("stable", "candidate")),
        rollouts.served("blue-before", load, stages, "blue", ["stable"]),
        judges.only_version("blue-before-inside", evidence["before"], "stable", least=CALLS),
        rollouts.served("green-after", load, stages, "green", ["candidate"]),
        judges.only_version("green-after-inside", evidence["after"], "candidate", least=CALLS),
    )


@requirement("routing.blue-green", level="MUST", judge=judge)
def test_all_requests_move_at_once(releases: str, caller: Caller, manifests: Manifests, steady_load: Steady, decide: Decide) -> None:
    """A switch from blue to green moves every request, none is answered by blue once it is in effect, and no request of steady load fails.

    Blue is the stable release and green the candidate.
    """
    manifests.apply("blue_green.yaml", live="blue")
    with steady_load(HOST, "/") as load:
        blue = rollouts.in_place(load, "blue")
        before = caller.draw(releases, count=CALLS, concurrency=8, headers=[("Host", HOST)])
        green = rollouts.stage(load, manifests, "blue_green.yaml", "green", live="green")
        after = caller.draw(releases, count=CALLS, concurrency=8, headers=[("Host", HOST)])

    decide(load=load.draw(), stages=[blue, green], before=before, after=after)
