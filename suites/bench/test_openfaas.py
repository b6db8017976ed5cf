"""What OpenFaaS's gateway adds to a call of a function: by way of it against Istio's own route to the function, in pairs that take turns."""

from collections.abc import Callable

from clusters.components.openfaas.client import OpenFaasClient, function_url, local_url
from clusters.timeouts import Timeouts
from suites.support import comparison
from workloads.caller.client import Caller
from workloads.fixtures import World
from workloads.image_processor import IMAGE
from workloads.openfaas_gateway import await_answered
from workloads.records import Draw

NAME = "bench-processor"
ROUNDS, CALLS = 40, 20
# The shortest process there is: what is measured is the way to it, not what it does.
HANDLER = "true"


def test_the_gateway_against_the_mesh_s_own_route(world: World, openfaas: OpenFaasClient, caller: Caller, timeouts: Timeouts, figures: Callable[[str, str], None]) -> None:
    """One call at a time, from the same caller to the same pod, by mutual TLS on every leg."""
    world.kube.apply([{
        "apiVersion": "openfaas.com/v1", "kind": "Function", "metadata": {"name": NAME},
        "spec": {"name": NAME, "image": world.image(IMAGE), "handler": HANDLER,
            # So many calls would have OpenFaaS add pods, by one of the two ways only.
            "labels": {"com.openfaas.scale.max": "1"}, "requests": {"cpu": "10m", "memory": "16Mi"}},
    }], world.namespace)
    openfaas.await_ready(world.namespace, NAME)
    ways = {"gateway": function_url(NAME, world.namespace), "direct": local_url(NAME, world.namespace)}
    await_answered(caller, *ways.values(), within=timeouts.propagation)

    def draw(way: str) -> Draw:
        return caller.draw(ways[way], count=CALLS, keep_headers=(), keep_seen=())

    rounds = [{way: draw(way) for way in (ways if number % 2 else reversed(ways))} for number in range(ROUNDS)]
    took = {way: [[record.latency_ms for record in one[way].records] for one in rounds] for way in ways}
    failed = {way: sum(record.status != 200 for one in rounds for record in one[way].records) for way in ways}

    for share in (0.5, 0.99):
        plain = ", ".join(f"{way} {comparison.quantile([ms for one in took[way] for ms in one], share):.2f} ms" for way in ways)
        added = comparison.bootstrap(list(zip(took["gateway"], took["direct"], strict=True)), share)
        figures(f"OpenFaaS's gateway against Istio's own route, p{100 * share:g}", "{}; added {:+.2f} ms ({:+.2f} to {:+.2f})".format(plain, *added))
    figures(f"calls of each way, {ROUNDS} rounds of {CALLS}", f"failed: {failed}")
