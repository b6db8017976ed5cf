"""The reference's ServiceEntry for OpenFaaS's functions: a wildcard with resolution DNS, and what becomes of it."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from clusters.apiserver import ApiRefused
from clusters.components.istio.client import SIDECAR, IstioClient
from clusters.components.openfaas.client import PRINCIPAL, function_url, local_url
from clusters.components.openfaas.manifests import NAMESPACE
from clusters.waiting import TimedOut, eventually
from suites.support import judges
from suites.support.manifests import Manifests
from suites.support.requirements import requirement
from suites.support.verdicting import Decide
from suites.support.verdicts import Claim, Evidence, Verdict
from workloads.caller.client import Caller
from workloads.fixtures import World
from workloads.image_processor.client import as_told

NAME = "entered"
CALLS = 5
BAD_REQUEST = 400
# Who refuses it, and for what.
REFUSAL = ("validation.istio.io", "hosts must be FQDN", "resolution mode DNS")
# What a proxy says of a table of routes that it does not take.
REJECTED = "Only a single wildcard domain is permitted in route 8080"
# What the mesh answers by the route that comes later.
TEAPOT = 418
# A route is there within two seconds, and within six on a busy machine.
ARRIVES_WITHIN_S = 6.0
EVERYWHERE = "*"


# Finding: Istio rejects the reference's entry, by its webhook and when it is applied: a proxy cannot look up a name with an asterisk. With
# resolution NONE it is taken, and shown to the gateway it changes nothing: each function has a Service of its own, whose host is more specific, and
# the mesh knows its pods and their certificates by that. The entry was of use where the gateway called pods that no Service led to; it does not any more.
# Shown to everybody, as it is by default, it takes the routes away from the namespace that it names: there the short form of its host is `*`, which
# every table of routes has already, and Envoy takes no table with two of them. The proxies of that namespace go on by the table that they had, and no
# route of port 8080 that is changed from then on arrives there.
def judge(evidence: Evidence) -> Verdict:
    """The entry is refused as it stands, in one line that says why; without a resolution it is taken; the gateway reaches the function by mutual TLS before and after; shown to all, a proxy of its own namespace rejects it and every later route."""
    return Verdict.of(
        refused_for("the-reference-is-refused", evidence["reference"]),
        taken("without-resolution-it-is-taken", evidence["without"]),
        judges.peer_identity("mutual-tls-without-any", evidence["before"], PRINCIPAL, least=CALLS),
        judges.peer_identity("mutual-tls-beside-it", evidence["after"], PRINCIPAL, least=CALLS),
        rejected("its-own-namespace-rejects-it", evidence["everywhere"], evidence["rejection"]),
        judges.every_status("no-later-route-arrives", evidence["beside"], 200, least=CALLS),
        judges.every_status("the-route-arrives-once-it-is-gone", evidence["gone"], TEAPOT, least=CALLS),
    )


def refused_for(name: str, tried: Mapping[str, Any]) -> Claim:
    """Claim that Istio's own webhook refused an object, and said why."""
    missing = [words for words in REFUSAL if words not in tried["said"]]
    said = f"status {tried['status']}: {tried['said']}" if tried["status"] else "it was taken"
    if tried["status"] and (tried["status"] != BAD_REQUEST or REFUSAL[0] not in tried["said"]):
        return Claim(name, held=None, said=f"somebody else refused it: {said}")
    return Claim(name, held=not missing, said=said, expected=f"{BAD_REQUEST} and {', '.join(REFUSAL)}", got=said)


def taken(name: str, tried: Mapping[str, Any]) -> Claim:
    """Claim that the API server took an object."""
    said = f"it was refused with {tried['status']}: {tried['said']}" if tried["status"] else "it was taken"
    return Claim(name, held=not tried["status"], said=said, expected="taken", got=said)


def rejected(name: str, tried: Mapping[str, Any], rejection: str) -> Claim:
    """Claim that the API server took an object, and that a proxy said that it does not take the routes in which it is."""
    if tried["status"]:
        return Claim(name, held=None, said=f"it did not come to that: {tried['said']}")
    said = rejection or "the proxy says nothing of the kind"
    return Claim(name, held=REJECTED in rejection, said=said, expected=REJECTED, got=said)


@pytest.mark.slow
@requirement("functions.openfaas-service-entry", level="MUST", judge=judge)
def test_a_wildcard_with_dns_is_refused(
    world: World, served: Callable[..., None], at_gateway: Callable[[str], None], istio: IstioClient, caller: Caller, manifests: Manifests, processor_image: str,
    decide: Decide,
) -> None:
    """Istio refuses a ServiceEntry for `*.<namespace>.svc.cluster.local` with resolution DNS in one line that says why, and the gateway reaches the functions of the namespace by mutual TLS without it; without resolution it is taken, and shown to all it keeps every later route from the namespace's own proxies until it is gone."""
    manifests.apply("openfaas_service_entry.function.yaml", image=processor_image)
    served(NAME)
    url = function_url(NAME, world.namespace)
    reference = tried(manifests, "DNS", EVERYWHERE)
    before = as_told(caller.draw(url, count=CALLS, keep_body=True), NAME)
    without = tried(manifests, "NONE", NAMESPACE)
    if not without["status"]:
        # What the gateway does not come to hold changes nothing there either.
        with suppress(TimedOut):
            at_gateway(f"*.{world.namespace}.svc.cluster.local")
    after = as_told(caller.draw(url, count=CALLS, keep_body=True), NAME)
    began = datetime.now(UTC).isoformat()
    everywhere = tried(impatient(manifests), "NONE", EVERYWHERE)
    with suppress(TimedOut):
        impatient(manifests).apply("openfaas_service_entry.route.yaml")
    local = local_url(NAME, world.namespace)

    def later_route() -> object:
        """Return calls of the host that the later route is for, once that is there or is no longer to be expected."""
        def there() -> None:
            status = caller.draw(local).records[0].status
            assert status == TEAPOT, f"answered {status}"

        with suppress(TimedOut):
            eventually(there, within=ARRIVES_WITHIN_S, every=0.2)
        return caller.draw(local, count=CALLS)

    beside = later_route()
    log = istio.kube.logs(caller.pod, world.namespace, SIDECAR, since=began)
    world.kube.delete_one("ServiceEntry", "openfaas-functions", world.namespace)
    world.removed(["ServiceEntry"])

    decide(
        reference=reference, without=without, before=before, after=after, everywhere=everywhere, beside=beside, gone=later_route(),
        rejection=next((line for line in log.splitlines() if "rejected" in line), ""),
    )


def impatient(manifests: Manifests) -> Manifests:
    """Return the same manifests, which do not wait for long until a proxy holds what it may never hold."""
    return replace(manifests, istio=replace(manifests.istio, timeouts=replace(manifests.istio.timeouts, propagation=ARRIVES_WITHIN_S)))


def tried(manifests: Manifests, resolution: str, shown_to: str) -> dict[str, Any]:
    """Return the status and the words with which the entry was refused; 0 where it was taken, whether it arrived or not."""
    try:
        manifests.apply("openfaas_service_entry.yaml", resolution=resolution, shown_to=shown_to)
    except ApiRefused as refusal:
        return {"status": refusal.status, "said": str(refusal)}
    except TimedOut:
        return {"status": 0, "said": ""}
    return {"status": 0, "said": ""}
