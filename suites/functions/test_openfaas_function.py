"""A function of OpenFaaS through its life as a custom resource: deployed, called, updated, deleted, by the real operator and gateway."""

import base64
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from clusters.apiserver import NotFound
from clusters.components.openfaas.client import FUNCTION, MAX, MIN, OpenFaasClient, function_url
from clusters.waiting import NeverReached, TimedOut, eventually
from suites.support import judges
from suites.support.manifests import Manifests
from suites.support.requirements import requirement
from suites.support.verdicting import Decide
from suites.support.verdicts import Claim, Evidence, Verdict
from workloads.caller.client import Caller
from workloads.fixtures import World
from workloads.image_processor import pictures

NAME, NOBODY = "image-processor", "nobody"
CALLS = 3
WIDTH, HEIGHT = 32, 24
QUERY = f"?width={WIDTH}&height={HEIGHT}&format=ppm"
UPLOAD = pictures.quartered(64, 48)
FIRST, SECOND = "application/octet-stream", "image/x-portable-pixmap"
# Kubernetes deletes what a function owns in the background; a busy machine takes some seconds.
GONE_WITHIN_S = 30.0
# What the operator hands on to the function's pods. The annotations are Istio's afterwards (test_openfaas_metrics.py), so the template is asked.
DECLARED = {"labels": {MIN: "1", MAX: "20"}, "annotations": {"prometheus.io.scrape": "true", "prometheus.io.port": "8081"}}


def judge(evidence: Evidence) -> Verdict:
    """The function resizes what it is sent, has what it declares, is another one after an update, and is no more after its deletion; so is one that never was."""
    before, after = evidence["before"], evidence["after"]
    return Verdict.of(
        resized("pictures-are-resized", evidence["calls"]["first"]),
        bears("pods-bear-what-is-declared", before),
        as_many("as-many-pods-as-its-minimum", before),
        resized("pictures-are-resized-afterwards", evidence["calls"]["updated"]),
        updated("the-update-is-carried-out", evidence["calls"], before, after),
        gone("what-it-owned-is-gone", evidence["left"]),
        judges.every_status("deleted-it-is-not-found", evidence["calls"]["deleted"], 404, least=CALLS),
        judges.every_status("what-never-was-is-not-found", evidence["calls"]["nobody"], 404, least=CALLS),
    )


def resized(name: str, draw: Mapping[str, Any]) -> Claim:
    """Claim that every call was answered with the picture that was sent, in the size that was asked for."""
    records, incomplete = judges.records_of(name, draw, least=CALLS)
    wanted = pictures.Picture(WIDTH, HEIGHT, pictures.QUARTERS)
    seen = [pictures.read(base64.b64decode(record.get("body", ""))) if record["status"] == 200 else None for record in records]
    wrong = [f"status {record['status']}, {one or 'no picture'}" for record, one in zip(records, seen, strict=True) if one != wanted]
    if wrong:
        return Claim(name, held=False, said=f"{len(wrong)} of {len(records)} calls were answered otherwise: {wrong[0]}", expected=str(wanted), got=wrong[0])
    return incomplete or Claim(name, held=True, said=f"all {len(records)} calls were answered with the picture, {WIDTH} x {HEIGHT}")


def bears(name: str, deployment: Mapping[str, Any]) -> Claim:
    """Claim that the template of the function's pods has the labels and annotations that the function declares."""
    wrong = {
        f"{kind} {field}": deployment[kind].get(field, "none") for kind, fields in DECLARED.items() for field, value in fields.items()
        if deployment[kind].get(field) != value
    }
    got = ", ".join(f"{field}={value}" for field, value in wrong.items())
    if not deployment["labels"]:
        return Claim(name, held=None, said="there is no Deployment of its name")
    return Claim(name, held=not wrong, said=f"otherwise: {got}" if wrong else "all of them", expected=str(DECLARED), got=got)


def as_many(name: str, deployment: Mapping[str, Any]) -> Claim:
    """Claim that one pod is asked for and there."""
    said = f"{deployment['wanted']} wanted, {len(deployment['pods'])} there"
    return Claim(name, held=deployment["wanted"] == len(deployment["pods"]) == 1, said=said, expected="1 of each", got=said)


def updated(name: str, calls: Mapping[str, Any], before: Mapping[str, Any], after: Mapping[str, Any]) -> Claim:
    """Claim that other pods answer after the update, and as they were told to."""
    types = [{value for record in calls[when].get("records", ()) for value in record["headers"].get("content-type", ())} for when in ("first", "updated")]
    said = f"{', '.join(types[0]) or 'nothing'} by {', '.join(before['pods'])}, then {', '.join(types[1]) or 'nothing'} by {', '.join(after['pods'])}"
    if not before["pods"] or not after["pods"]:
        return Claim(name, held=None, said=said)
    return Claim(name, held=types == [{FIRST}, {SECOND}] and not set(before["pods"]) & set(after["pods"]), said=said, expected=f"{FIRST}, then {SECOND} by others", got=said)


def gone(name: str, left: list[str]) -> Claim:
    """Claim that nothing of the function is left."""
    return Claim(name, held=not left, said=f"left: {', '.join(left) or 'nothing'}", expected="nothing", got=", ".join(left))


def deployment_of(faas: OpenFaasClient, namespace: str) -> dict[str, Any]:
    """Return what a check needs of the function's Deployment, nothing of it where there is none."""
    try:
        found = faas.kube.get("Deployment", NAME, namespace)
    except NotFound:
        return {"labels": {}, "annotations": {}, "wanted": 0, "pods": []}
    metadata = found["spec"]["template"]["metadata"]
    return {
        "labels": metadata.get("labels") or {}, "annotations": {name: value for name, value in (metadata.get("annotations") or {}).items() if name in DECLARED["annotations"]},
        "wanted": found["spec"]["replicas"], "pods": [pod["metadata"]["name"] for pod in faas.pods(namespace, NAME)],
    }


def deleted(faas: OpenFaasClient, namespace: str) -> list[str]:
    """Delete the function and return what of it is left when the bound is reached."""
    faas.kube.delete_one(FUNCTION, NAME, namespace)
    left: list[str] = []

    def nothing_left() -> None:
        nonlocal left
        left = [kind for kind in (FUNCTION, "Deployment", "Service") if any(one["metadata"]["name"] == NAME for one in faas.kube.list(kind, namespace))]
        left += [f"pod {pod['metadata']['name']}" for pod in faas.pods(namespace, NAME)]
        assert not left, f"{', '.join(left)} left"

    with suppress(TimedOut):
        eventually(nothing_left, within=GONE_WITHIN_S, every=0.2)
    return left


@requirement("functions.openfaas-function", level="MUST", judge=judge)
def test_a_function_lives_as_a_custom_resource(
    world: World, faas: OpenFaasClient, caller: Caller, manifests: Manifests, processor_image: str, decide: Decide,
) -> None:
    """A Function is deployed by the operator with its labels, annotations and minimum of pods, resizes what the gateway hands it, is replaced when it is updated, and leaves nothing when it is deleted.

    What the gateway answers for a function that is gone is what it answers for one that never was.
    """
    url = function_url(NAME, world.namespace) + QUERY

    def draw(at: str = url) -> object:
        return caller.draw(at, method="POST", body=UPLOAD, count=CALLS, keep_body=True, keep_headers=("content-type",))

    def applied(content_type: str) -> None:
        manifests.apply("openfaas_function.yaml", image=processor_image, content_type=content_type)
        # A function that does not come is for the verdict to tell.
        with suppress(TimedOut, NeverReached):
            faas.await_ready(world.namespace, NAME)
            eventually(answered, within=world.timeouts.propagation, every=0.2, consecutive=3)

    def answered() -> None:
        (record,) = caller.draw(url, method="POST", body=UPLOAD).records
        assert record.status == 200, f"answered {record.status}"

    applied(FIRST)
    before, calls = deployment_of(faas, world.namespace), {"first": draw()}
    applied(SECOND)
    after, calls["updated"] = deployment_of(faas, world.namespace), draw()
    left = deleted(faas, world.namespace)
    calls |= {"deleted": draw(), "nobody": draw(function_url(NOBODY, world.namespace))}

    decide(calls=calls, before=before, after=after, left=left)
