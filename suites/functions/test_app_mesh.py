"""App Mesh and Cloud Map: what AWS had of a mesh, registered through boto3, done by Istio for a function that runs where Cloud Map says."""

import json
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from clusters import progress
from clusters.components.jaeger.client import CLIENT, JaegerClient
from clusters.waiting import CLOCK
from suites.support import awscalls, judges, tracing
from suites.support.manifests import Manifests
from suites.support.requirements import requirement
from suites.support.tracing import B3, Hop, Sent
from suites.support.verdicting import Decide
from suites.support.verdicts import Claim, Evidence, Verdict
from workloads.aws import migration
from workloads.aws.discovery import discover, endpoints
from workloads.aws.execution import Environment
from workloads.aws.resources import Resources
from workloads.aws.server import Aws
from workloads.fixtures import World
from workloads.media import STRANGER_HOST
from workloads.media.client import Media
from workloads.records import join_key

FUNCTION = "serverless-function"
MESH, NAMESPACE, SERVICE = "serverless-mesh", "serverless.local", "lambda-function"
VARIABLES = {"APP_MESH_ENDPOINT": "http://lambda-function.serverless.local", "ENVOY_LOG_LEVEL": "info"}
CLUSTER = f"outbound|80||{SERVICE}.{NAMESPACE}"
# Whether a call takes its way is decided by configuration, not by chance.
CALLS = 20
FEW = 3
CROWD = 8
# The function takes this long, so that a crowd finds it busy; two of these are less than the mesh's limit of 2 s.
BUSY_MS = 400
# More than the mesh's limit and less than the function's own of 4 s.
LATE_MS = 2600
APPLIED = ("ServiceEntry", "VirtualService", "DestinationRule")
# AWS ended it on that day; what is registered has to be said otherwise, or is lost.
FINDING = f"App Mesh ended on {migration.END_OF_LIFE}"


def judge(evidence: Evidence) -> Verdict:
    """Calls go to the discovered instance and nowhere else; the mesh's limits hold; and Istio says what was registered."""
    answered, log, ran = evidence["answered"], evidence["log"], evidence["ran"]
    instance = evidence["instances"][0] if evidence["instances"] else {"address": "nobody", "port": 0}
    caller, media = evidence["services"]
    return Verdict.of(
        awscalls.said_the_same("istio-says-what-was-registered", evidence["rows"], evidence["applied"]),
        awscalls.ended("calls-are-answered", answered, 200, least=CALLS),
        judges.logged("the-instance-is-called", log["answered"], {
            "upstream_host": f"{instance['address']}:{instance['port']}", "upstream_cluster": CLUSTER, "response_flags": "-",
        }, CALLS),
        awscalls.ran("each-call-ran-the-function-once", ran["answered"], CALLS),
        variables("the-variables-arrive", answered, VARIABLES),
        # The function's environment is beside the mesh and reports nothing; the call of it is the last span.
        tracing.each_whole("each-call-is-one-trace-under-its-id", evidence["traced"], evidence["sighting"], [Hop(caller, media), Hop(media, "")], least=FEW),
        ends_at("traces-end-at-the-instance", evidence["sighting"], media, CLUSTER),
        awscalls.ended("late-calls-are-given-up", judges.joined(evidence["late"]), 504, "504", least=FEW),
        judges.logged("late-calls-are-given-up-by-the-proxy", log["late"], {"response_flags": "UT"}, FEW),
        awscalls.ended("what-broke-is-tried-again", judges.joined(evidence["broken"]), 200, least=FEW),
        awscalls.ran("what-broke-ran-twice", ran["broken"], 2 * FEW),
        awscalls.ended("errors-arrive", evidence["thrown"], 200, "RangeError", least=FEW),
        awscalls.ran("errors-are-not-tried-again", ran["thrown"], FEW),
        surplus("the-surplus-is-refused", evidence["crowd"], ran["crowd"]),
        flags("the-surplus-is-refused-by-the-proxy", evidence["crowd"], log["crowd"], "UO"),
        Claim("the-environment-lives", held=bool(evidence["lives"]), said=f"the function's environment {'runs' if evidence['lives'] else 'has ended or never comes to rest'} after all that"),
        awscalls.ended("strangers-are-refused", evidence["stranger"], 502, "502", least=FEW),
        judges.logged("strangers-are-refused-by-block-all", log["stranger"], {"route_name": "block_all", "response_code_details": "direct_response"}, FEW),
    )


def variables(name: str, draw: Mapping[str, Any], wanted: Mapping[str, str]) -> Claim:
    """Claim that the function that answered each call had these variables."""
    records, incomplete = judges.records_of(name, draw)
    told = [json.loads(record["headers"]["x-aws-said"][0]) for record in records if awscalls.outcome(record) == ("200", "")]
    wrong = [one for one in told if one["variables"] != wanted]
    if wrong:
        return Claim(name, held=False, said=f"{len(wrong)} of {len(records)} answers tell of other variables", expected=str(wanted), got=str(wrong[0]["variables"]))
    if incomplete or len(told) < len(records):
        return incomplete or Claim(name, held=None, said=f"{len(records) - len(told)} of {len(records)} calls were not answered")
    return Claim(name, held=True, said=f"each of {len(records)} answers tells of {', '.join(wanted)}")


def ends_at(name: str, sighting: Mapping[str, Any], service: str, cluster: str) -> Claim:
    """Claim that every client span of a service names this cluster of its proxy; a Jaeger that has none settles nothing."""
    spans = [span for trace in sighting["traces"].values() for span in tracing.spans_of(trace) if (span.service, span.kind) == (service, CLIENT)]
    told = Counter(str(span.tags.get("upstream_cluster", "none")).rstrip(";") for span in spans)
    got = ", ".join(f"{count} x {one}" for one, count in sorted(told.items())) or "nothing"
    return Claim(name, held=set(told) == {cluster} if told else None, said=f"the client spans of {service} name {got}", expected=cluster, got=got)


def surplus(name: str, draw: Mapping[str, Any], ran: int) -> Claim:
    """Claim that of calls that come at once some are served, each by one run of the function, and the others, of which there are some, refused with 503."""
    records, incomplete = judges.records_of(name, draw, least=CROWD)
    told = Counter(awscalls.outcome(record) for record in records)
    served, refused = told[("200", "")], told[("503", "503")]
    got = ", ".join(f"{count} x {' '.join(one).strip() or 'no answer'}" for one, count in sorted(told.items()))
    said = f"of {len(records)} calls at once: {got}; the function ran {ran} times"
    if ran > served + told[()] or served + refused < len(records) - told[()]:
        return Claim(name, held=False, said=said, expected="served or refused with 503, and one run for each that was served", got=got)
    if incomplete or told[()] or ran < served or not (served and refused):
        return incomplete or Claim(name, held=None, said=said)
    return Claim(name, held=True, said=said)


def flags(name: str, draw: Mapping[str, Any], entries: list[Mapping[str, Any]], flag: str) -> Claim:
    """Claim that the proxy wrote down `flag` for each refused call of a draw and for no served one."""
    refused = {join_key(str(record["request_id"])) for record in draw["records"] if awscalls.outcome(record) == ("503", "503")}
    wrong = [entry for entry in entries if (entry["response_flags"] == flag) != (join_key(str(entry["request_id"])) in refused)]
    if wrong:
        got = str(Counter(f"{entry['response_code']} {entry['response_flags']}" for entry in wrong))
        return Claim(name, held=False, said=f"{len(wrong)} of {len(entries)} entries of the log say otherwise: {got}", expected=f"{flag} for what was refused", got=got)
    if len(entries) < len(draw["records"]):
        return Claim(name, held=None, said=f"{len(entries)} of {len(draw['records'])} calls are in the log")
    return Claim(name, held=bool(refused) or None, said=f"{len(refused)} of {len(entries)} entries have {flag}, those of the refused calls")


@pytest.mark.slow
@requirement("functions.app-mesh", level="MUST", judge=judge)
def test_a_function_is_called_where_cloud_map_says_under_the_limits_that_app_mesh_had(
    aws: Aws, cloud: Resources, environments: Callable[[str, str], Environment], jaeger: JaegerClient, media_function: Media, world: World, manifests: Manifests,
    decide: Decide,
) -> None:
    """The instance that boto3 discovers for a virtual node is what a ServiceEntry and a VirtualService send a mesh function's calls to, under the node's limits and an allow-list.

    App Mesh ended on 2026-09-30: each setting that is registered is printed with what says the same in Istio, and what is applied is held to it.
    """
    nowhere = {"instance": json.dumps({"stage": "live"}), "endpoints": "[]"}
    cloud.apply(one for one in manifests.of_aws("app_mesh.yaml", **nowhere) if one.kind != "Instance")
    environment = environments(FUNCTION, "live-1")
    there = {**nowhere, "instance": json.dumps({**environment.attributes, "stage": "live"})}
    cloud.apply(manifests.of_aws("app_mesh.yaml", **there))
    found = migration.registered(aws.account, MESH, [FUNCTION])
    node = next(one["settings"] for one in found if one["kind"] == "VirtualNode")
    instances = discover(aws.account, NAMESPACE, SERVICE, node["serviceDiscovery"]["awsCloudMap"]["attributes"])
    manifests.apply("app_mesh.yaml", **{**there, "endpoints": endpoints(instances)})
    rows = migration.rows(found)
    progress.say(f"{FINDING}; what is registered, and what says the same in Istio:\n{migration.table(rows)}")
    ran: dict[str, int] = {}

    nonces = {name: uuid.uuid4().hex for name in ("answered", "thrown", "crowd")}
    # First of all: their spans come while the others call.
    traced = [call_traced(media_function) for _ in range(FEW)]
    answered = media_function.invoke(FUNCTION, {"nonce": nonces["answered"]}, count=CALLS)
    late = {}
    for number in range(FEW):
        late[f"late-{number}"] = media_function.invoke(FUNCTION, {"sleep_ms": LATE_MS})
        # Finding: what the mesh gives up, the function goes on with; a second invocation meanwhile would break the emulator.
        environment.await_idle()
    thrown = media_function.invoke(FUNCTION, {"nonce": nonces["thrown"], "fail": "as asked"}, count=FEW)
    broken = {nonce: media_function.invoke(FUNCTION, {"nonce": nonce, "exit_once": nonce}) for nonce in (uuid.uuid4().hex for _ in range(FEW))}
    stranger = media_function.invoke(FUNCTION, {}, count=FEW, headers=[("x-media-endpoint", f"http://{STRANGER_HOST}")])
    crowd = media_function.invoke(FUNCTION, {"nonce": nonces["crowd"], "sleep_ms": BUSY_MS}, count=CROWD, concurrency=CROWD)
    lives = environment.lives()
    ran |= {name: environment.invocations(nonce) for name, nonce in nonces.items()}
    ran["broken"] = sum(environment.invocations(nonce) for nonce in broken)

    decide(
        rows=rows, applied=applied(world), instances=instances, answered=answered, late=late, thrown=thrown, broken=broken, stranger=stranger, crowd=crowd,
        lives=lives, ran=ran, traced=traced, services=tracing.service_names(("caller", "media-function"), world.namespace),
        sighting=tracing.sighted(jaeger, traced, spans=3),
        log={
            name: awscalls.sent_out(media_function.access_log, draws)
            for name, draws in {"answered": [answered], "late": list(late.values()), "stranger": [stranger], "crowd": [crowd]}.items()
        },
    )


def call_traced(media_function: Media) -> Sent:
    """Make one call that says which trace it belongs to, and whose child it is."""
    trace_id, parent_id = uuid.uuid4().hex, uuid.uuid4().hex[:16]
    (record,) = media_function.invoke(FUNCTION, {}, headers=tracing.context(B3, trace_id, parent_id)).records
    return Sent(trace_id, parent_id, record.request_id, record.status, CLOCK.monotonic())


def applied(world: World) -> dict[str, Any]:
    """Return what the namespace has of the objects that say what was registered."""
    named = {**dict.fromkeys(APPLIED, "lambda-function"), "Sidecar": "media-egress"}
    return {kind: one["spec"] for kind, name in named.items() for one in world.kube.list(kind, world.namespace) if one["metadata"]["name"] == name}
