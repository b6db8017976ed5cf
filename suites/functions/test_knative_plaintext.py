"""STRICT in a function's namespace, with an activator that is not in the mesh: what its callers get."""

from contextlib import suppress

from clusters.components.istio.client import IstioClient
from clusters.components.knative.client import ACTIVATOR, KnativeClient, local_host
from clusters.components.knative.manifests import NAMESPACE
from clusters.waiting import TimedOut, eventually
from suites.support import judges
from suites.support.manifests import Manifests
from suites.support.requirements import requirement
from suites.support.verdicting import Decide
from suites.support.verdicts import Evidence, Verdict
from workloads.caller.client import Caller
from workloads.fixtures import World

CALLS = 5


# Finding: this is what becomes of functions in a STRICT namespace where `knative-serving` is not labelled for injection. Knative goes on
# reporting them as ready: their pods are, and nobody asks whether the activator reaches them. Here its proxy is told to use no
# certificate, for one revision, which is the same to the function and harms nobody else.
def judge(evidence: Evidence) -> Verdict:
    """By way of the activator every call is lost, past it none, and before both were served."""
    before, after = evidence["before"], evidence["after"]
    return Verdict.of(
        judges.every_status("both-served-before", judges.joined(before), 200, least=2 * CALLS),
        judges.every_status("relayed-is-lost", after["relayed"], 503, least=CALLS),
        judges.every_status("direct-is-served", after["direct"], 200, least=CALLS),
    )


@requirement("functions.knative-plaintext-activator", level="MUST", judge=judge)
def test_an_activator_without_a_certificate_reaches_nobody(
    world: World, standing: dict[str, str], istio: IstioClient, caller: Caller, knative: KnativeClient, manifests: Manifests, decide: Decide,
) -> None:
    """In a STRICT namespace a function that the activator calls without a certificate is answered 503, and one that is called past the activator is served."""
    urls = {name: f"http://{local_host(name, world.namespace)}/" for name in standing}
    # Waited for, and with it the end of what the check before this one had applied to the same functions.
    manifests.apply("knative_plaintext.before.yaml")
    before = {name: caller.draw(url, count=CALLS) for name, url in urls.items()}
    manifests.apply("knative_plaintext.yaml", revision=standing["relayed"])
    await_plaintext(istio, knative, f"{standing['relayed']}-private.{world.namespace}.svc.cluster.local")

    decide(before=before, after={name: caller.draw(url, count=CALLS, timeout_s=30) for name, url in urls.items()})


def await_plaintext(istio: IstioClient, knative: KnativeClient, host: str) -> None:
    """Return once the activator's proxy knows that it is to use no certificate; what it is not told is seen by the calls."""

    def told() -> None:
        for pod in knative.own_pods(ACTIVATOR):
            held = istio.proxy_admin(NAMESPACE, pod, f"config_dump?resource=dynamic_active_clusters&name_regex=outbound.80..{host}")
            assert host in held, f"{pod} does not know {host}"
            assert "tlsMode" not in held, f"{pod} uses a certificate for {host}"

    with suppress(TimedOut):
        eventually(told, within=10.0, every=0.5)
