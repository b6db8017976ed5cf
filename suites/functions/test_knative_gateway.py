"""The ingress gateway before a Knative function: a Gateway and a VirtualService of ours let one host and one path in."""

from clusters.components.knative.client import KnativeClient, local_host
from suites.support import judges
from suites.support.manifests import Manifests
from suites.support.requirements import requirement
from suites.support.verdicting import Decide
from suites.support.verdicts import Evidence, Verdict
from workloads.fixtures import World
from workloads.ingress import Ingress

HOST = "functions.serverless.example.com"
CALLS = 20
OTHER_PATHS = ("/", "/goodbye", "/Hello", "/api/hello")
OTHER_HOSTS = ("example.com", "www.serverless.example.com", "relayed")


# The row `routing.gateway` with the function that the reference world names; area `routing` does without Knative.
# Finding: Knative's own route for a function's host lives at the same port of the same gateway and is not touched by ours: who names that host
# gets in by every path.
def judge(evidence: Evidence) -> Verdict:
    """The Knative function answers its path on its host; every other path and host gets 404 from the gateway itself."""
    return Verdict.of(
        *judges.let_in(evidence["hello"], evidence["below"], evidence["other-paths"], evidence["other-hosts"], "relayed", least=CALLS),
        judges.header_seen("host-is-the-function-s", evidence["hello"], "host", evidence["host"], least=CALLS),
        judges.only_version("knative-s-own-host-takes-every-path", judges.joined(evidence["own-host"]), "relayed", least=CALLS * len(OTHER_PATHS)),
    )


@requirement("functions.knative-gateway", level="MUST", judge=judge)
def test_one_host_and_one_path_lead_to_the_knative_function(
    world: World, knative: KnativeClient, standing: dict[str, str], ingress: Ingress, manifests: Manifests, decide: Decide,
) -> None:
    """The gateway serves `/hello` of its host from a Knative function, whose host it writes in place of its own; other paths and other hosts are answered 404 and reach nothing."""
    del standing  # deployed before it is called
    manifests.apply("knative_gateway.yaml")
    own = knative.function(world.namespace, "relayed").host

    decide(
        host=local_host("relayed", world.namespace),
        hello=ingress.draw(HOST, "/hello", count=CALLS),
        below=ingress.draw(HOST, "/hello/again?name=x", count=CALLS),
        **{"other-paths": {path: ingress.draw(HOST, path, count=CALLS) for path in OTHER_PATHS}},
        **{"other-hosts": {name: ingress.draw(name, "/hello", count=CALLS) for name in OTHER_HOSTS}},
        **{"own-host": {path: ingress.draw(own, path, count=CALLS) for path in OTHER_PATHS}},
    )
