"""x."""
from suites.support.manifests import Manifests
from suites.support.requirements import requirement
from suites.support.verdicting import Decide
from suites.support.verdicts import Claim, Evidence, Verdict
from workloads.caller.client import Caller
from clusters.components.istio.client import IstioClient
from clusters.waiting import *
from contextlib import suppress

def judge(evidence: Evidence) -> Verdict:
    return Verdict.of(Claim("x", False, "y"))

@requirement("routing.outlier-max-ejection", level="MUST", judge=judge)
def test_x(pair, caller: Caller, istio: IstioClient, manifests: Manifests, decide: Decide) -> None:
    """Explore."""
    manifests.apply("outlier_max_ejection.yaml")
    def draw(host):
        up = lambda: {k: v for k, v in istio.upstream(caller.namespace, caller.pod, host).items() if 'outlier' in k or 'panic' in k}
        b = up()
        first = caller.draw(f"http://{host}/", count=40, headers=[("x-greeter-status", "500")])
        def s():
            assert up().get("outlier_detection.ejections_detected_consecutive_5xx",0) >= 2
        with suppress(TimedOut):
            eventually(s, within=5)
        second = caller.draw(f"http://{host}/", count=20, headers=[("x-greeter-status", "500")])
        return {"before": b, "after": up(), "ejected": istio.ejected(caller.namespace, caller.pod, host), "first": first, "second": second}
    decide(pair=pair, **{h: draw(h+"-function") for h in ("tenth","half","all","panicking")})
