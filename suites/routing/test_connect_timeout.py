"""Connect time-outs: a call to an address that does not answer is given up after the declared time."""

from statistics import median

from clusters.components.istio.client import IstioClient
from suites.support import judges
from suites.support.manifests import Manifests
from suites.support.requirements import requirement
from suites.support.verdicting import Decide
from suites.support.verdicts import Claim, Evidence, Verdict
from workloads.caller.client import Caller
from workloads.greeter.client import Greeter

DEAF = "deaf-function"
LISTENING = "user-function"
CALLS = 20
TIMEOUT_MS = 30.0
CONTROL_CALLS = 2
CONTROL_TIMEOUT_MS = 1000.0
# Half the control's time: the middle one of twenty calls is that late only where a machine stands still for seconds.
LATE_MS = 500.0
# An attempt that is not given up ends here, so that a policy that is missing costs seconds and not minutes.
PATIENCE_S = 1.5


def judge(evidence: Evidence) -> Verdict:
    """The proxy gives each call up once, not before the time-out and long before the control; what listens is answered."""
    short, long = evidence["short"], evidence["long"]
    return Verdict.of(
        judges.flagged("refused-by-the-proxy", short["draw"], 503, "UF", least=CALLS, by_proxy=True),
        judges.not_before("not-before-the-time-out", short["draw"], TIMEOUT_MS),
        in_the_middle_before("long-before-the-control", short["draw"], LATE_MS),
        judges.counter_rise("one-attempt-a-call", short["before"], short["after"], "upstream_cx_connect_timeout", CALLS),
        judges.every_status("listener-is-answered", evidence["listening"], 200, least=CALLS),
        judges.flagged("control-refused-by-the-proxy", long["draw"], 503, "UF", least=CONTROL_CALLS, by_proxy=True),
        judges.not_before("control-not-before-its-time-out", long["draw"], CONTROL_TIMEOUT_MS),
        judges.counter_rise("control-one-attempt-a-call", long["before"], long["after"], "upstream_cx_connect_timeout", CONTROL_CALLS),
    )


def in_the_middle_before(name: str, draw: Evidence, most_ms: float) -> Claim:
    """Claim that the median call ended before `most_ms`; single calls may be late on a busy machine."""
    times = [record["latency_ms"] for record in draw["records"]]
    if not times:
        return Claim(name, None, "no call was made")
    return Claim(name, median(times) < most_ms, f"the median of {len(times)} calls ended after {median(times):.1f} ms", expected=f"less than {most_ms:g} ms", got=f"{median(times):.1f} ms")


@requirement("routing.connect-timeout", level="MUST", judge=judge)
def test_an_address_that_does_not_answer_is_given_up(
    user_function: Greeter, caller: Caller, istio: IstioClient, manifests: Manifests, decide: Decide,
) -> None:
    """A call to an address that does not answer a SYN ends with 503 and flag UF after the connect time-out of 30 ms.

    The address is a port of the function's own pod that drops every SYN (workloads/greeter/app/deaf.go), so no packet leaves the cluster.
    """
    del user_function

    def draw(count: int) -> dict[str, object]:
        before = istio.upstream(caller.namespace, caller.pod, DEAF)
        made = caller.draw(f"http://{DEAF}/", count=count, timeout_s=PATIENCE_S)
        return {"draw": made, "before": before, "after": istio.upstream(caller.namespace, caller.pod, DEAF)}

    manifests.apply("connect_timeout.control.yaml")
    long = draw(CONTROL_CALLS)
    manifests.apply("connect_timeout.yaml")

    decide(long=long, short=draw(CALLS), listening=caller.draw(f"http://{LISTENING}/", count=CALLS))
