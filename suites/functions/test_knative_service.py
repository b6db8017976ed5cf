"""A Knative Service in a namespace that takes mutual TLS only: who reaches it, what it answers, and that it stays."""

import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import pytest

from clusters.components.knative.client import KnativeClient, local_host
from clusters.waiting import TimedOut, consistently, eventually
from suites.support import judges
from suites.support.manifests import Manifests
from suites.support.requirements import requirement
from suites.support.verdicting import Decide
from suites.support.verdicts import Claim, Evidence, Verdict
from workloads.caller.client import Caller
from workloads.fixtures import World
from workloads.ingress import Ingress

NAME, IDLE = "hello-serverless", "idle-serverless"
GREETING = "Hello Serverless World!"
# Served or not is settled by the first answer; ten show that no other pod or stale route answers in between.
CALLS = 10
# The control may have been taken down by the time it is called: a busy machine takes this long to start it again.
COLD_START_S = 60.0
LOCAL_GATEWAY = "http://knative-local-gateway.istio-system.svc.cluster.local/"
# The control's window is 6 s, and Knative waits up to 30 s more (`scale-to-zero-grace-period`) where the activator has just come
# into the path; the rest is a busy machine's.
SCALED_DOWN_WITHIN = 60.0
# Each function's autoscaler looks every two seconds by itself: of two that are idle alike either may be the first to go.
AFTERWARDS = 6.0


def judge(evidence: Evidence) -> Verdict:
    """The function answers with its target from both sides, nobody else's host leads to it, and it stays while its twin is taken down."""
    outside, inside = evidence["outside"], evidence["inside"]
    return Verdict.of(
        judges.answer_header("target-outside", outside, "x-greeting", GREETING, least=CALLS),
        judges.answer_header("target-inside", inside, "x-greeting", GREETING, least=CALLS),
        judges.all_refused("other-hosts-refused", evidence["other-hosts"], control=outside, status=404),
        judges.all_refused("local-one-not-outside", evidence["local-one"], control=evidence["idle"], status=404),
        judges.refused("plaintext-refused", evidence["plaintext"], control=inside),
        stays("never-below-one", evidence["looks"]),
        scaled_down("control-is-scaled-down", evidence["looks"]),
    )


def stays(name: str, looks: list[Mapping[str, Any]]) -> Claim:
    """Claim that Knative wanted and had a ready pod at every look, for at least as long as it took to take the control down."""
    empty = [look for look in looks if look["wanted"] == 0 or look["ready"] == 0]
    if empty:
        first = empty[0]
        return Claim(
            name, held=False, said=f"{first['at']:.1f} s into the watch {first['wanted']} pods were wanted and {first['ready']} ready",
            expected="1 or more of each", got=f"{first['wanted']} and {first['ready']}",
        )
    if not looks or looks[-1]["control"] != 0:
        return Claim(name, held=None, said=f"{len(looks)} looks found it there, but nothing shows that they went on for long enough")
    return Claim(name, held=True, said=f"at each of {len(looks)} looks in {looks[-1]['at']:.1f} s a pod was wanted and ready; the control had ended by then")


def scaled_down(name: str, looks: list[Mapping[str, Any]]) -> Claim:
    """Claim that the control was wanted at first and was to have no pod at the end; an autoscaler that has not said yet (-1) is not counted."""
    wanted = [look["control"] for look in looks if look["control"] >= 0]
    if not wanted or wanted[0] < 1:
        return Claim(name, held=None, said=f"the control was not there to begin with: {wanted[:1]}")
    if wanted[-1] != 0:
        return Claim(name, held=False, said=f"after {looks[-1]['at']:.1f} s {wanted[-1]} pods of the control are wanted", expected="0", got=str(wanted[-1]))
    return Claim(name, held=True, said=f"after {looks[-1]['at']:.1f} s no pod of the control is wanted")


def watched(knative: KnativeClient, namespace: str, *, kept: str, control: str) -> list[dict[str, Any]]:
    """Return what two revisions were like, look by look, until the control is to have no pod, and for a while longer."""
    looks: list[dict[str, Any]] = []
    began = time.monotonic()

    def look() -> int:
        seen = knative.revision(namespace, kept)
        ready = sum(_ready(pod) for pod in knative.pods(namespace, kept))
        left = knative.revision(namespace, control).wanted
        looks.append({"at": time.monotonic() - began, "wanted": seen.wanted, "ready": ready, "control": left})
        return left

    def control_is_down() -> None:
        left = look()
        assert left == 0, f"{left} pods of {control} are wanted"

    with suppress(TimedOut):
        eventually(control_is_down, within=SCALED_DOWN_WITHIN, every=0.5)
        consistently(look, during=AFTERWARDS, every=0.5)
    return looks


def _ready(pod: Mapping[str, Any]) -> bool:
    return any(one["type"] == "Ready" and one["status"] == "True" for one in pod.get("status", {}).get("conditions", ()))


# A function without a call is given the time to go.
@pytest.mark.slow
@requirement("functions.knative-service", level="MUST", judge=judge)
def test_a_function_answers_from_both_sides_and_stays(
    world: World, caller: Caller, intruder: Caller, ingress: Ingress, knative: KnativeClient, manifests: Manifests, greeter_image: str, decide: Decide,
) -> None:
    """A Knative Service in a STRICT namespace answers with its `TARGET` at its host from outside and inside, and with `minScale: 1` it keeps a pod while an idle one without it loses its own.

    Its window is the shortest that Knative allows; the watch lasts until an equally idle twin is taken down.
    """
    manifests.apply("knative_service.yaml", image=greeter_image)
    function, idle = (knative.await_ready(world.namespace, name) for name in (NAME, IDLE))
    (pod,) = knative.pods(world.namespace, function.latest_ready)
    # Hosts of the same form, at which nobody is at home: a function that was never made, one of another namespace, and the local one.
    nobody, elsewhere = function.host.replace(NAME, "nobody", 1), function.host.replace(world.namespace, "default", 1)
    not_outside = function.host.replace(NAME, IDLE, 1)

    decide(
        outside=ingress.draw(function.host, "/hello", count=CALLS),
        inside=caller.draw(f"http://{local_host(NAME, world.namespace)}/hello", count=CALLS),
        plaintext=intruder.draw(f"http://{pod['status']['podIP']}:8080/hello", count=CALLS),
        **{"other-hosts": {
            **{name: ingress.draw(name, "/hello", count=CALLS) for name in (nobody, elsewhere)},
            "inside": caller.draw(LOCAL_GATEWAY, count=CALLS, headers=[("Host", local_host("nobody", world.namespace))]),
        }},
        **{"local-one": {name: ingress.draw(name, "/", count=CALLS) for name in (not_outside, local_host(IDLE, world.namespace))}},
        # The control is called last, so that it has been idle for the shorter time.
        idle=caller.draw(f"http://{local_host(IDLE, world.namespace)}/", count=CALLS, timeout_s=COLD_START_S),
        looks=watched(knative, world.namespace, kept=function.latest_ready, control=idle.latest_ready),
    )
