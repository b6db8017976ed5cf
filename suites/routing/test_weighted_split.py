"""Weighted routing: a VirtualService divides requests between functions."""

from suites.support import judges
from suites.support.manifests import Manifests
from suites.support.requirements import requirement
from suites.support.verdicting import Decide
from suites.support.verdicts import Evidence, Verdict
from workloads.caller.client import Caller

HOST = ("Host", "user-service.serverless.example.com")
DECLARED = {"standard": 0.90, "backup": 0.10}
# An exact test at 1e-5 needs about 2 000 calls to notice a shift of five points with a power of 99 %.
REQUESTS = 2_200
FALSE_ALARM = 1e-5
SHIFT = 0.05


def judge(evidence: Evidence) -> Verdict:
    """Every call is answered, and the two functions answer in the declared shares."""
    return Verdict.of(
        judges.no_failures("every-call-answered", evidence["rest"], excused=judges.UPSTREAM_GONE),
        judges.split("shares", evidence["rest"], declared=DECLARED, alpha=FALSE_ALARM, shift=SHIFT),
    )


@requirement("routing.weighted-split", level="MUST", judge=judge, alpha=FALSE_ALARM, detects=SHIFT)
def test_the_rest_is_shared_ninety_to_ten(functions: str, caller: Caller, manifests: Manifests, decide: Decide) -> None:
    """Requests without the premium header are shared 90 to 10 between the standard and the backup function.

    The sample is drawn once, after the configuration is known to have arrived: repeating it until it fits would test patience.
    """
    manifests.apply("weighted_split.yaml")

    decide(rest=caller.draw(functions, count=REQUESTS, concurrency=8, headers=[HOST]))
