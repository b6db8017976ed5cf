"""Circuit breakers: calls beyond what a function is to bear are refused at once, and are taken again once it is free."""

from functools import partial

from clusters.components.istio.client import IstioClient
from suites.support import judges
from suites.support.held import held_load
from suites.support.manifests import Manifests
from suites.support.requirements import requirement
from suites.support.verdicting import Decide
from suites.support.verdicts import Claim, Evidence, Verdict
from workloads.caller.client import Caller
from workloads.greeter.client import Greeter

OVERFLOW = "upstream_rq_pending_overflow"
# Finding: a limit of a connection or two is not kept. A worker thread of the proxy that has no connection to a function opens one
# whatever the limit says (Envoy, ConnPoolImplBase::tryCreateNewConnections), so `maxConnections: 1` lets each of them have one.
# Of forty calls at least one falls to each thread, and then the limit is exact.
UNDER_WAY = 40
# More than the first calls: while connections are being made, the calls that they are for count as waiting too.
WAITING = 50
SURPLUS = 10
AFTERWARDS = 20


def judge(evidence: Evidence) -> Verdict:
    """What fits is answered, what does not is refused and counted, and afterwards everything is answered again."""
    broken, multiplexed, control = evidence["broken"], evidence["multiplexed"], evidence["control"]
    under_way, waiting, surplus = broken["waves"]
    streams, more_streams = multiplexed["waves"]
    return Verdict.of(
        judges.every_status("under-way-are-answered", under_way, 200, least=UNDER_WAY),
        judges.every_status("waiting-are-answered", waiting, 200, least=WAITING),
        judges.flagged("surplus-refused", surplus, 503, "UO", least=SURPLUS, by_proxy=True),
        judges.counter_rise("overflow-counted", broken["before"], broken["after"], OVERFLOW, SURPLUS),
        reached("function-sees-what-was-answered", broken, UNDER_WAY + WAITING),
        judges.every_status("closes-again", evidence["afterwards"], 200, least=AFTERWARDS),
        judges.every_status("multiplexed-under-way-are-answered", streams, 200, least=UNDER_WAY),
        judges.flagged("multiplexed-surplus-refused", more_streams, 503, "UO", least=SURPLUS, by_proxy=True),
        judges.counter_rise("multiplexed-overflow-counted", multiplexed["before"], multiplexed["after"], OVERFLOW, SURPLUS),
        judges.every_status("control-answered", control["waves"][2], 200, least=SURPLUS),
        judges.counter_rise("control-without-overflow", control["before"], control["after"], OVERFLOW, 0),
    )


def reached(name: str, load: Evidence, calls: int) -> Claim:
    """Claim that exactly `calls` calls of a load reached the function: a breaker's refusal costs it nothing."""
    total = load["function"]["total"]
    return Claim(name, total == calls, f"{total} calls reached the function", expected=str(calls), got=str(total))


@requirement("routing.circuit-breaker", level="MUST", judge=judge)
def test_a_breaker_opens_and_closes_again(
    user_function: Greeter, caller: Caller, istio: IstioClient, manifests: Manifests, decide: Decide,
) -> None:
    """Calls beyond a breaker's limits are refused without reaching the function, and when the others are done every call is taken again.

    Over HTTP/1.1 the limits are connections and waiting calls, over HTTP/2 the calls under way (`http2MaxRequests`).
    """
    manifests.apply("fresh_pool.yaml")
    manifests.apply("circuit_breaker.yaml")

    def load(host: str, *waves: int) -> object:
        upstream = partial(istio.upstream, caller.namespace, caller.pod, host)
        return held_load(caller, user_function, f"http://{host}/", waves, upstream=upstream)

    decide(
        broken=load("user-function", UNDER_WAY, WAITING, SURPLUS),
        afterwards=caller.draw("http://user-function/", count=AFTERWARDS),
        multiplexed=load("multiplexed-function", UNDER_WAY, SURPLUS),
        control=load("unlimited-function", UNDER_WAY, WAITING, SURPLUS),
    )
