"""Connection recycling: a connection to a function carries a declared number of requests and is then replaced."""

import math

from clusters.components.istio.client import IstioClient
from suites.support import judges
from suites.support.manifests import Manifests
from suites.support.requirements import requirement
from suites.support.verdicting import Decide
from suites.support.verdicts import Evidence, Verdict
from workloads.caller.client import Caller
from workloads.greeter.client import Greeter

HOST = "user-function"
PER_CONNECTION = 10
# The least number that takes another number of connections with 9 and with 11 requests to each: 13, 11 and 10.
CALLS = 110
CONNECTIONS = math.ceil(CALLS / PER_CONNECTION)


def judge(evidence: Evidence) -> Verdict:
    """A hundred and ten calls take eleven connections, each closed because it had carried ten; the control takes one."""
    recycled, kept = evidence["recycled"], evidence["kept"]
    return Verdict.of(
        judges.every_status("every-call-answered", recycled["draw"], 200, least=CALLS),
        judges.connections("connections-of-ten-requests", recycled, CONNECTIONS, calls=CALLS),
        # A connection that has carried its last request is closed at once, the eleventh too.
        judges.counter_rise("closed-by-the-limit", recycled["before"], recycled["after"], "upstream_cx_max_requests", CONNECTIONS),
        judges.every_status("control-answered", kept["draw"], 200, least=CALLS),
        judges.connections("control-keeps-one", kept, 1, calls=CALLS),
    )


@requirement("routing.connection-recycling", level="MUST", judge=judge)
def test_a_connection_is_replaced_after_ten_requests(
    user_function: Greeter, caller: Caller, istio: IstioClient, manifests: Manifests, decide: Decide,
) -> None:
    """A connection to the function is closed after its tenth request, and the next request opens another.

    The calls are made one after another over one connection of the caller, so one worker thread of its proxy makes them all.
    """

    def draw() -> dict[str, object]:
        user_function.reset_counts()
        before = istio.upstream(caller.namespace, caller.pod, HOST)
        made = caller.draw(f"http://{HOST}/", count=CALLS, keep_headers=(), keep_seen=())
        after = istio.upstream(caller.namespace, caller.pod, HOST)
        return {"draw": made, "before": before, "after": after, "function": user_function.counts().without_ids()}

    manifests.apply("connection_recycling.control.yaml")
    kept = draw()
    manifests.apply("connection_recycling.yaml")
    recycled = draw()

    decide(kept=kept, recycled=recycled)
