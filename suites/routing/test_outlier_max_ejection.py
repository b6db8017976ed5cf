"""The bound of outlier detection: how many of a function's endpoints may be ejected, and what becomes of the calls."""

from contextlib import suppress
from functools import partial

from clusters.components.istio.client import IstioClient
from clusters.waiting import TimedOut, eventually
from suites.support import judges
from suites.support.manifests import Manifests
from suites.support.requirements import requirement
from suites.support.verdicting import Decide
from suites.support.verdicts import Claim, Evidence, Verdict
from workloads.caller.client import Caller

HOSTS = ("tenth", "half", "all", "panicking")
EJECTED = "outlier_detection.ejections_enforced_total"
DETECTED = "outlier_detection.ejections_detected_consecutive_5xx"
FAIL = (("x-greeter-status", "500"),)
# Round robin gives each of the two pods seven errors in fourteen calls; twice that, because the main thread learns of them later.
ERRORS = 28
AFTERWARDS = 20
DETECTED_WITHIN_S = 5.0


def judge(evidence: Evidence) -> Verdict:
    """Of two failing pods a tenth is none, a half is one, and all are two; a panic threshold calls both all the same."""
    tenth, half, every, panicking = (evidence[host] for host in HOSTS)
    both = {("failing", 500): AFTERWARDS // 2, ("healthy", 500): AFTERWARDS // 2}
    return Verdict.of(
        # Finding: a tenth is Istio's default, and with it no pod of fewer than ten is ever ejected, however it fails. Envoy ejected at
        # least one whatever the percentage says until `always_eject_one_host` made that a choice, which Istio does not offer.
        judges.counter_rise("a-tenth-of-two-is-none", tenth["before"], tenth["after"], EJECTED, 0),
        judges.answers("a-tenth-keeps-both", tenth["afterwards"], both),
        judges.counter_rise("half-of-two-is-one", half["before"], half["after"], EJECTED, 1),
        one_answers_all("the-other-takes-every-call", half["afterwards"]),
        judges.counter_rise("all-of-two-are-two", every["before"], every["after"], EJECTED, 2),
        # Istio switches Envoy's panic threshold off unless it is asked for, so nobody is left to call.
        judges.flagged("nobody-is-left", every["afterwards"], 503, "UH", least=AFTERWARDS, by_proxy=True),
        judges.counter_rise("panicking-ejects-both", panicking["before"], panicking["after"], EJECTED, 2),
        judges.answers("panic-calls-both", panicking["afterwards"], both),
        judges.answers("control-keeps-both", evidence["control"], both),
    )


def one_answers_all(name: str, draw: Evidence) -> Claim:
    """Claim that one version, whichever was not ejected, answered every call."""
    versions = sorted({record["version"] for record in draw["records"]})
    if not versions:
        return Claim(name, held=None, said="no call was made")
    return judges.only_version(name, draw, versions[-1], least=AFTERWARDS)


@requirement("routing.outlier-max-ejection", level="MUST", judge=judge)
def test_no_more_are_ejected_than_allowed(pair: dict[str, str], caller: Caller, istio: IstioClient, manifests: Manifests, decide: Decide) -> None:
    """Of two failing pods `maxEjectionPercent` 100 ejects both, 50 one, and Istio's default of 10 none.

    With both ejected a call is answered 503 with flag UH, unless `minHealthPercent` has the proxy call them in its panic.
    """
    del pair

    def fail(host: str) -> dict[str, object]:
        url, counted = f"http://{host}-function/", partial(istio.upstream, caller.namespace, caller.pod, f"{host}-function")
        before = counted()
        caller.draw(url, count=ERRORS, headers=FAIL, keep_headers=(), keep_seen=())

        def counts_both() -> None:
            assert counted().get(DETECTED, 0) >= before.get(DETECTED, 0) + 2, "not every pod was found to fail"

        # Whether they were is for the judge: a mutant's wait ends without it.
        with suppress(TimedOut):
            eventually(counts_both, within=DETECTED_WITHIN_S, every=0.2)
        afterwards = caller.draw(url, count=AFTERWARDS, headers=FAIL, keep_headers=(), keep_seen=())
        return {"before": before, "afterwards": afterwards, "after": counted()}

    manifests.apply("outlier_max_ejection.control.yaml")
    control = caller.draw("http://all-function/", count=AFTERWARDS, headers=FAIL, keep_headers=(), keep_seen=())
    manifests.apply("outlier_max_ejection.yaml")

    decide(control=control, **{host: fail(host) for host in HOSTS})
