"""What goes wrong with OpenFaaS's functions, and what their callers are told of it, in bounded time."""

import base64
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import pytest

from clusters.bringup import Testbed
from clusters.components.openfaas.client import Api, OpenFaasClient, function_url
from clusters.pods import describe
from clusters.waiting import NeverReached, TimedOut, eventually
from suites.support import faas as claims
from suites.support import judges
from suites.support.manifests import Manifests
from suites.support.requirements import requirement
from suites.support.verdicting import Decide
from suites.support.verdicts import Claim, Evidence, Verdict
from workloads.caller.client import Caller
from workloads.fixtures import World

CALLS = 2
IMAGE = "no-such-function:1"
# The manifest's, and what a busy machine adds.
ENDED_AFTER_S, SLACK_S = 6.0, 3.0
AT_ONCE_S = 3.0
# The kubelet has to ask for it first.
NAMED_WITHIN_S = 30.0
NOT_AN_IMAGE = b"this is no image"
# What the function says of it, in one line, behind the watchdog's own word.
SAID = ("exit status 1", "image-processor: not an image:")


# Finding: a gateway without its operator says 404 of every function, with the connection's error in its words: whoever asks for its status alone takes a
# function that is there for one that is not. Its API says 502, without a word.
def judge(evidence: Evidence) -> Verdict:
    """Each fault is told by its own status and words, and no caller waits for longer than it has said; the twin is answered."""
    calls = evidence["calls"]
    return Verdict.of(
        named("the-missing-image-is-named", evidence["no_image"]),
        claims.bounded("a-call-of-it-is-ended", calls["no-image"], 504, after_s=ENDED_AFTER_S - 0.1, within_s=ENDED_AFTER_S + SLACK_S),
        claims.bounded("who-throws-answers-500", calls["throws"], 500, within_s=SLACK_S),
        said("who-throws-is-told", calls["throws"], SAID),
        claims.bounded("a-function-that-never-was-is-not-found", calls["nobody"], 404, within_s=AT_ONCE_S),
        claims.bounded("without-the-operator-nothing-is-listed", calls["lonely-list"], 502, within_s=AT_ONCE_S),
        claims.bounded("without-the-operator-nobody-is-found", calls["lonely-call"], 404, within_s=AT_ONCE_S),
        said("without-the-operator-it-says-why", calls["lonely-call"], ("connection refused",)),
        claims.bounded("the-twin-is-answered", calls["twin"], 200, within_s=SLACK_S),
    )


def named(name: str, told: Mapping[str, Any]) -> Claim:
    """Claim that the function's pods say which image is missing, and the gateway that none of them is available."""
    seen = f"{told['pods'] or 'no pod'}; {told['available']} available by the gateway's word"
    return Claim(name, held=IMAGE in told["pods"] and told["available"] == 0, said=seen, expected=f"{IMAGE} to be named, none available", got=seen)


def said(name: str, draw: Mapping[str, Any], words: tuple[str, ...]) -> Claim:
    """Claim that every answer has all of these words."""
    records, incomplete = judges.records_of(name, draw)
    answers = [" ".join(base64.b64decode(record.get("body", "")).decode("utf-8", "replace").split()) for record in records]
    wrong = [one for one in answers if any(word not in one for word in words)]
    if wrong:
        return Claim(name, held=False, said=f"{len(wrong)} of {len(records)} answers say otherwise: {wrong[0][:200] or 'nothing'}", expected=", ".join(words), got=wrong[0][:200])
    return incomplete or Claim(name, held=True, said=f"all {len(records)} answers: {answers[0][:200]}")


@pytest.mark.slow
@requirement("functions.openfaas-faults", level="MUST", judge=judge)
def test_what_goes_wrong_is_told_in_time(
    testbed: Testbed, world: World, faas: OpenFaasClient, faas_api: Api, served: Callable[..., None], caller: Caller, manifests: Manifests, processor_image: str,
    decide: Decide,
) -> None:
    """A missing image, a handler that throws, a function that never was and a gateway without its operator are each told to the caller by a status and words of their own, in bounded time.

    How long a call of a function without a pod may take is said by the mesh: the gateway holds it for longer than its own limits.
    """
    manifests.apply("openfaas_faults.yaml", image=processor_image, gateway=testbed.upstream_image("openfaas-gateway"))
    with suppress(TimedOut, NeverReached):
        served("throws", "twin")
    world.await_scaled("lonely-gateway")
    lonely = f"http://lonely-gateway.{world.namespace}.svc.cluster.local:8080"
    refused = no_image(faas, faas_api, world.namespace)

    def draw(url: str, *, method: str = "GET", body: bytes = b"") -> object:
        return caller.draw(url, method=method, body=body, count=CALLS, concurrency=CALLS, timeout_s=20, keep_body=True, keep_headers=())

    decide(no_image=refused, calls={
        "no-image": draw(function_url("no-image", world.namespace)), "throws": draw(function_url("throws", world.namespace), method="POST", body=NOT_AN_IMAGE),
        "nobody": draw(function_url("nobody", world.namespace)), "twin": draw(function_url("twin", world.namespace)),
        "lonely-list": draw(f"{lonely}/system/functions"), "lonely-call": draw(function_url("twin", world.namespace, url=lonely)),
    })


def no_image(faas: OpenFaasClient, api: Api, namespace: str) -> dict[str, Any]:
    """Return what the pods say of the missing image, once they name it or do not come to, and what the gateway says of the function."""
    told = ""

    def told_why() -> None:
        nonlocal told
        told = describe(faas.pods(namespace, "no-image"))
        assert IMAGE in told, told or "no pod says anything"

    with suppress(TimedOut):
        eventually(told_why, within=NAMED_WITHIN_S, every=0.5)
    return {"pods": told, "available": int(api.function("no-image").get("availableReplicas", 0))}
