"""Connection pools: a DestinationRule bounds the connections to a function and the calls that wait for one."""

from functools import partial

from clusters.components.istio.client import IstioClient
from suites.support import judges
from suites.support.held import held_load
from suites.support.manifests import Manifests
from suites.support.requirements import requirement
from suites.support.verdicting import Decide
from suites.support.verdicts import Evidence, Verdict
from workloads.caller.client import Caller
from workloads.greeter.client import Greeter

CONNECTIONS = 100
PENDING = 1000
# Above both limits; each of these is one call too many.
SURPLUS = 50
OVERFLOW = "upstream_rq_pending_overflow"
WAVES = (CONNECTIONS, PENDING, SURPLUS)


def judge(evidence: Evidence) -> Verdict:
    """At the limits nothing is refused, above them everything is, and the counter and the function say the same."""
    limited, unlimited = evidence["limited"], evidence["unlimited"]
    connected, waiting, surplus = limited["waves"]
    return Verdict.of(
        judges.every_status("connected-are-answered", connected, 200, least=CONNECTIONS),
        judges.every_status("waiting-are-answered", waiting, 200, least=PENDING),
        judges.flagged("surplus-refused", surplus, 503, "UO", least=SURPLUS, by_proxy=True),
        judges.counter_rise("overflow-counted", limited["before"], limited["after"], OVERFLOW, SURPLUS),
        judges.most_in_hand("connections-bounded", limited, CONNECTIONS),
        *(judges.every_status(f"control-wave-{number}-answered", draw, 200) for number, draw in enumerate(unlimited["waves"], 1)),
        judges.counter_rise("control-without-overflow", unlimited["before"], unlimited["after"], OVERFLOW, 0),
        judges.most_in_hand("control-unbounded", unlimited, sum(WAVES)),
    )


@requirement("routing.connection-pool-limits", level="MUST", judge=judge)
def test_connections_and_waiting_calls_are_bounded(
    user_function: Greeter, caller: Caller, istio: IstioClient, manifests: Manifests, decide: Decide,
) -> None:
    """One hundred calls to the function are under way, one thousand wait, and every further one is answered 503 with flag UO.

    The limits are the caller's proxy's for all its worker threads together. The check is exact because the calls are held at
    the function until the last wave was offered.
    """
    manifests.apply("fresh_pool.yaml")
    manifests.apply("connection_pool_limits.yaml")

    def load(host: str) -> object:
        upstream = partial(istio.upstream, caller.namespace, caller.pod, host)
        return held_load(caller, user_function, f"http://{host}/", WAVES, upstream=upstream)

    decide(limited=load("user-function"), unlimited=load("unlimited-function"))
