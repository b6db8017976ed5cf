"""Timeouts: a VirtualService ends a request that its function does not answer in time."""

from suites.support import judges
from suites.support.manifests import Manifests
from suites.support.requirements import requirement
from suites.support.verdicting import Decide
from suites.support.verdicts import Evidence, Verdict
from workloads.caller.client import Caller
from workloads.greeter.client import Greeter

HOST = ("Host", "timed-function.serverless.example.com")
# A timer is set for every request alike; ten at once show as much as a hundred, and take no longer than one.
CALLS = 10
TIMEOUT_MS = 1_000
# Half a second on either side of the time-out: a status says on which side the limit lies, whatever the machine is busy with.
SLOW = ("x-greeter-delay", "1500ms")
QUICK = ("x-greeter-delay", "500ms")


def judge(evidence: Evidence) -> Verdict:
    """A slow request ends with 504 and was sent once; its quick twin is answered, and so is a slow one on the other route."""
    slow, counts = evidence["slow"], evidence["counts"]
    return Verdict.of(
        judges.flagged("slow-is-ended", slow, 504, "UT"),
        judges.not_before("not-before-the-timeout", slow, TIMEOUT_MS),
        judges.reached("slow-reached-once", slow, counts, 1),
        judges.every_status("quick-is-answered", evidence["quick"], 200),
        judges.every_status("control-waits", evidence["control"], 200),
    )


@requirement("routing.timeout", level="MUST", judge=judge)
def test_a_slow_request_is_ended(functions: str, standard: Greeter, caller: Caller, manifests: Manifests, decide: Decide) -> None:
    """A request that takes longer than its route's timeout ends with 504 at the timeout and is not sent again; a quicker one is answered.

    Finding: a route without a timeout has none. Envoy's own 15 s do not apply: Istio sets 0, which means none, on every route that
    says nothing (pilot, route.go, Notimeout).
    """
    manifests.apply("timeout.yaml")
    standard.reset_counts()

    def draw(path: str, delay: tuple[str, str]) -> object:
        return caller.draw(functions, path=path, count=CALLS, concurrency=CALLS, headers=[HOST, delay])

    decide(slow=draw("/timed", SLOW), quick=draw("/timed", QUICK), control=draw("/untimed", SLOW), counts=standard.counts())
