"""The trail of a call of OpenFaaS's: one request id in the logs of every proxy that it passes, its trace context at the function, and one trace of it all."""

import secrets
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pytest

from clusters.apiserver import ApiRefused
from clusters.bringup import Testbed
from clusters.components.istio.client import IstioClient
from clusters.components.jaeger.client import JaegerClient
from clusters.components.openfaas.client import PRINCIPAL, OpenFaasClient, function_url
from clusters.components.openfaas.manifests import GATEWAY, GATEWAY_PORT, NAMESPACE
from suites.support import judges, permissions, tracing
from suites.support.manifests import Manifests
from suites.support.requirements import requirement
from suites.support.verdicting import Decide
from suites.support.verdicts import Claim, Evidence, Verdict
from workloads.caller.client import Caller
from workloads.fixtures import World
from workloads.image_processor.client import as_told
from workloads.records import Draw, join_key

NAME = "trailed"
CALLS, TRACED = 10, 5
KEPT = ("request_id", "response_code", "upstream_cluster", "downstream_peer_principal", "upstream_peer_principal", "path")


# Finding: the gateway copies a request's headers to the function's, so the trace context of its caller arrives, and the spans of its two proxies are one
# below the other; it adds no span of its own. It writes down no request id: of a call it logs method, path, status and time.
def judge(evidence: Evidence) -> Verdict:
    """Each call is in each proxy's log once, with who asked whom; the function saw its id and its caller's trace context; its trace has both sides of both calls."""
    draw, logs, who = evidence["calls"], evidence["logs"], evidence["principals"]
    return Verdict.of(
        judges.every_status("answered", draw, 200, least=CALLS),
        once("by-the-caller-s-proxy-once", draw, logs["caller"], {"response_code": 200, "upstream_peer_principal": PRINCIPAL}),
        once("on-its-way-into-the-gateway-once", draw, logs["into"], {"response_code": 200, "downstream_peer_principal": who["caller"]}),
        once("on-its-way-out-of-the-gateway-once", draw, logs["out"], {"response_code": 200, "upstream_peer_principal": who["function"]}),
        once("by-the-function-s-proxy-once", draw, logs["function"], {"response_code": 200, "downstream_peer_principal": PRINCIPAL}),
        id_arrives("the-request-id-arrives", draw),
        context_arrives("the-trace-context-arrives", draw, evidence["context"]),
        tracing.each_whole("one-trace-by-way-of-the-gateway", evidence["traced"], evidence["sighting"], tracing.hops_of(evidence["services"]), least=TRACED),
    )


def once(name: str, draw: Mapping[str, Any], entries: list[Mapping[str, Any]], fields: Mapping[str, object]) -> Claim:
    """Claim that a log has exactly one entry for each call, with these values in it."""
    records, incomplete = judges.records_of(name, draw)
    by_key = permissions.by_request(entries)
    wrong = []
    for record in records:
        found = by_key.get(join_key(record["request_id"]), [])
        wrong += [f"{len(found)} entries"] if len(found) != 1 else [f"{field} {found[0][field]}" for field, value in fields.items() if found[0][field] != value]
    if wrong:
        got = ", ".join(sorted(set(wrong)))
        return Claim(name, held=False, said=f"{len(wrong)} of {len(records)} calls: {got}", expected=f"one entry each, {dict(fields)}", got=got)
    return incomplete or Claim(name, held=True, said=f"all {len(records)} calls are there exactly once")


def id_arrives(name: str, draw: Mapping[str, Any]) -> Claim:
    """Claim that the function saw each call's own id, from the gateway and by mutual TLS."""
    records, incomplete = judges.records_of(name, draw)
    wrong = [record for record in records if [join_key(one) for one in record["seen"].get("x-request-id", ())] != [join_key(record["request_id"])] or judges.peer_of(record) != PRINCIPAL]
    if wrong:
        got = f"{wrong[0]['seen'].get('x-request-id', 'none')} from {judges.peer_of(wrong[0]) or 'nobody known'}"
        return Claim(name, held=False, said=f"{len(wrong)} of {len(records)} calls arrived otherwise: {got}", expected="its own id, from the gateway", got=got)
    return incomplete or Claim(name, held=True, said=f"all {len(records)} calls arrived with their own id")


def context_arrives(name: str, draw: Mapping[str, Any], context: Mapping[str, str]) -> Claim:
    """Claim that the function saw the trace that its caller named, in both of its forms."""
    records, incomplete = judges.records_of(name, draw)
    wrong = [record for record in records if any(context["trace_id"] not in "".join(record["seen"].get(header, ())) for header in ("traceparent", "x-b3-traceid"))]
    if wrong:
        got = ", ".join(f"{header} {''.join(wrong[0]['seen'].get(header, ())) or 'none'}" for header in ("traceparent", "x-b3-traceid"))
        return Claim(name, held=False, said=f"{len(wrong)} of {len(records)} calls arrived otherwise: {got}", expected=context["trace_id"], got=got)
    return incomplete or Claim(name, held=True, said=f"all {len(records)} calls arrived in trace {context['trace_id']}")


@pytest.fixture
def our_log(testbed: Testbed) -> None:
    """Say why the log is not looked at where it is not ours."""
    if testbed.cluster is None or not testbed.cluster.owned:
        pytest.skip("what the proxies log, and in which form, is the mesh's own configuration, and this mesh is somebody's")


@pytest.mark.usefixtures("our_log")
@requirement("functions.openfaas-trail", level="MUST", judge=judge)
def test_a_call_leaves_one_trail(
    world: World, faas: OpenFaasClient, served: Callable[..., None], istio: IstioClient, jaeger: JaegerClient, caller: Caller, manifests: Manifests,
    processor_image: str, decide: Decide,
) -> None:
    """A call of a function by OpenFaaS's gateway is in the access logs of the caller's, the gateway's and the function's proxy once each under one request id, with who asked whom, arrives with its caller's trace context, and is one trace with the spans of all of them."""
    manifests.apply("openfaas_trail.yaml", image=processor_image)
    served(NAME)
    (function,), (gateway,) = faas.pods(world.namespace, NAME), faas.own_pods(GATEWAY)
    context = {"trace_id": secrets.token_hex(16), "span_id": secrets.token_hex(8)}
    headers = [
        ("traceparent", f"00-{context['trace_id']}-{context['span_id']}-01"), ("x-b3-traceid", context["trace_id"]),
        ("x-b3-spanid", context["span_id"]), ("x-b3-sampled", "1"),
    ]
    draw = caller.draw(function_url(NAME, world.namespace), count=CALLS, headers=headers, keep_body=True)
    traced = tracing.send(caller, function_url(NAME, world.namespace), TRACED, propagation=tracing.B3, sampled="1")
    through = entries_of(istio, NAMESPACE, gateway, draw, times=2)

    decide(
        calls=as_told(draw, NAME), context=context, traced=traced,
        services=(*tracing.service_names(["caller"], world.namespace), *tracing.service_names([GATEWAY], NAMESPACE), *tracing.service_names([NAME], world.namespace)),
        principals={"caller": f"spiffe://cluster.local/ns/{world.namespace}/sa/caller", "function": f"spiffe://cluster.local/ns/{world.namespace}/sa/default"},
        logs={
            "caller": entries_of(istio, world.namespace, caller.pod, draw),
            "into": [one for one in through if str(one["upstream_cluster"]).startswith(f"inbound|{GATEWAY_PORT}|")],
            "out": [one for one in through if str(one["upstream_cluster"]).startswith("outbound|")],
            "function": entries_of(istio, world.namespace, str(function["metadata"]["name"]), draw),
        },
        sighting=tracing.sighted(jaeger, traced, spans=4),
    )


def entries_of(istio: IstioClient, namespace: str, pod: str, draw: Draw, *, times: int = 1) -> list[dict[str, Any]]:
    """Return what a pod's proxy wrote down of a draw, once all of it is there, each call so many times, or after a bounded wait what is."""
    wanted = {join_key(record.request_id) for record in draw.records}

    def log() -> list[Mapping[str, Any]]:
        try:
            return istio.access_log(namespace, pod, draw.began)
        except ApiRefused:
            # A pod without a proxy has no log of one, which is for the verdict to tell.
            return []

    # An entry is written when its call has ended, so what is there so many times is complete.
    found: Iterable[Mapping[str, Any]] = permissions.written(lambda: whole(log(), times), wanted)
    return [{field: entry.get(field) for field in KEPT} for entry in found if join_key(str(entry["request_id"])) in wanted]


def whole(entries: list[Mapping[str, Any]], times: int) -> list[Mapping[str, Any]]:
    """Return the entries of those requests that are in a log at least so many times."""
    by_key = permissions.by_request([one for one in entries if one["request_id"]])
    return [one for found in by_key.values() if len(found) >= times for one in found]
