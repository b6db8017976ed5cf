"""Revisions that cannot serve: the one before keeps the requests, and the function says what is wrong in bounded time."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import pytest

from clusters.components.knative.client import Function, KnativeClient, Revision
from clusters.kube import NotFound
from clusters.waiting import TimedOut, eventually
from suites.support import judges
from suites.support.manifests import Manifests
from suites.support.requirements import requirement
from suites.support.verdicting import Decide
from suites.support.verdicts import Claim, Evidence, Verdict
from workloads.fixtures import Steady, World
from workloads.ingress import Ingress
from workloads.load import LoadProfile

NAME = "failing"
NO_IMAGE = "faasmesh.test/faasmesh/no-such-image:1"
# What is wrong with each revision, and the conditions by which it may say so.
WRONG: Mapping[str, Mapping[str, str]] = {
    "no-image": {"image": NO_IMAGE}, "never-ready": {"ready": "/_counts/reset"}, "crashing": {"drain": "soon"},
}
# Finding: two of Knative's controllers have the same deadline, and the first to notice has the word. The revision's own tells what the kubelet
# says of the container; the autoscaler's, which takes the pods away with it, tells only that they never were ready. A crash is
# told as soon as the container has been started a second time, which a busy machine may not get to before either.
TOO_LATE = ("ResourcesAvailable", "ProgressDeadlineExceeded")
# The containers wait for the sidecar's own preparation: the machine did not get to what is wrong with them.
NOT_STARTED = "PodInitializing"
REASONS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "no-image": (("ResourcesAvailable", "ImagePullBackOff"), ("ResourcesAvailable", "ErrImagePull"), TOO_LATE),
    "never-ready": (TOO_LATE,),
    "crashing": (("ContainerHealthy", "ExitCode1"), TOO_LATE),
}
# The deadline is 30 s; the rest is for a busy machine, which starts three pods side by side.
TOLD_WITHIN = 90.0
# A gap of a second would be several calls; few enough that they are not what keeps the pods from starting.
GENTLE = LoadProfile(users=2, calls_per_s=5, longest_s=400)
CALLS = 20


def judge(evidence: Evidence) -> Verdict:
    """Every request of the load is answered by the good revision, each bad one says why, and the mended one takes over."""
    return Verdict.of(
        judges.only_version("old-one-keeps-every-request", evidence["load"], "good", least=CALLS),
        *(told(f"{name}-is-told", evidence["revisions"].get(name), accepted) for name, accepted in REASONS.items()),
        names_the_newest("function-is-not-ready", evidence["function"]),
        judges.only_version("mended-one-takes-over", evidence["mended"], "mended", least=CALLS),
    )


def told(name: str, revision: Mapping[str, Any] | None, accepted: tuple[tuple[str, str], ...]) -> Claim:
    """Claim that a revision reports itself not ready, by one of these conditions with its reason, and in words."""
    if revision is None:
        return Claim(name, held=None, said="the revision was never made")
    conditions = revision["conditions"]
    false = {one: said for one, said in conditions.items() if said["status"] == "False"}
    shown = "; ".join(f"{one} is {said['status']}: {said['reason']}: {said['message']}" for one, said in (false or conditions).items())
    right = any(false.get(one, {}).get("reason") == reason and false[one]["message"] for one, reason in accepted)
    if "Ready" in false and right:
        return Claim(name, held=True, said=shown)
    if any(one["reason"] == NOT_STARTED for one in false.values()):
        return Claim(name, held=None, said=f"the deadline came before the pod was begun with: {shown}")
    wanted = " or ".join(f"{one} False: {reason}" for one, reason in accepted)
    return Claim(name, held=False, said=shown or "no condition at all", expected=f"Ready False, and {wanted}, with a message", got=shown)


def names_the_newest(name: str, function: Mapping[str, Any]) -> Claim:
    """Claim that the function itself is not ready because of its newest revision, while it says that the good one is the newest ready."""
    ready = function["conditions"].get("Ready", {"status": "Unknown", "reason": "", "message": ""})
    shown = f"Ready is {ready['status']}: {ready['reason']}: {ready['message']}; ready is {function['latest_ready']}"
    if ready["status"] == "False" and function["latest_created"] in ready["message"] and function["latest_ready"] == f"{NAME}-good":
        return Claim(name, held=True, said=shown)
    return Claim(name, held=False, said=shown, expected=f"Ready False naming {function['latest_created']}, and {NAME}-good ready", got=shown)


@requirement("functions.knative-failed-revision", level="MUST", judge=judge)
# Three pods are given their deadline of 30 s before Knative says what is wrong with them, between two that start.
@pytest.mark.slow
def test_what_cannot_serve_gets_no_request(
    world: World, ingress: Ingress, steady_load: Steady, knative: KnativeClient, manifests: Manifests, greeter_image: str, decide: Decide,
) -> None:
    """A revision without an image, one that crashes and one that is never ready get no request, the one before loses none, and the function reports each reason within the progress deadline.

    The three are made one after the other and judged together; then one that is in order takes over, as the newest that is ready.
    """
    right = {"image": greeter_image, "drain": "0s", "ready": "/healthz"}
    manifests.apply("knative_failed_revision.yaml", **right, version="good")
    host = knative.await_ready(world.namespace, NAME).host
    with steady_load(host, "/", profile=GENTLE) as load:
        for version, wrong in WRONG.items():
            manifests.apply("knative_failed_revision.yaml", **{**right, **wrong}, version=version)
            await_revision(knative, world.namespace, f"{NAME}-{version}")
        revisions, function = failed(knative, world.namespace)
    manifests.apply("knative_failed_revision.yaml", **right, version="mended")
    knative.await_ready(world.namespace, NAME)

    decide(load=load.draw(), revisions=revisions, function=function, mended=ingress.draw(host, "/", count=CALLS))


def await_revision(knative: KnativeClient, namespace: str, name: str) -> None:
    """Return once a revision has been made: a change that follows too soon would take its place."""
    eventually(lambda: knative.revision(namespace, name), within=knative.timeouts.function_ready, every=0.2, ignoring=(NotFound,), subject=f"revision {name}")


def failed(knative: KnativeClient, namespace: str) -> tuple[dict[str, Revision], Function]:
    """Return the bad revisions and their function once each has said that it is not ready, or as they are when their time is over.

    The function is told by another of Knative's controllers what its revision says, a moment later.
    """
    seen: dict[str, Revision] = {}

    def all_told() -> None:
        seen.update({name: knative.revision(namespace, f"{NAME}-{name}") for name in WRONG})
        waiting = [name for name, told in [*seen.items(), ("the function", knative.function(namespace, NAME))] if told.ready.status != "False"]
        assert not waiting, f"{', '.join(waiting)} not told yet"

    with suppress(TimedOut):
        eventually(all_told, within=TOLD_WITHIN, every=1.0)
    return seen, knative.function(namespace, NAME)
