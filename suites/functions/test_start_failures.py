"""Functions that cannot start: whoever deployed one is told why, in words, and in bounded time."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import pytest

from clusters.components.knative.client import OF_SERVICE, REVISION, KnativeClient, local_host
from clusters.waiting import TimedOut, eventually
from clusters.watching import Watch
from suites.support import judges
from suites.support.manifests import Manifests
from suites.support.requirements import requirement
from suites.support.verdicting import Decide
from suites.support.verdicts import Claim, Evidence, Verdict
from workloads.caller.client import Caller
from workloads.fixtures import World

# What a function's revision must say of itself: the reason, and words of its message.
REASONS: Mapping[str, tuple[str, str]] = {
    "crashes": ("ExitCode1", 'invalid duration "a-while"'),
    "never-ready": ("ProgressDeadlineExceeded", "timed out progressing"),
    "no-such-image": ("ImagePullBackOff", "no-such-function:1"),
}
# The deadline of 20 s, two back-offs of the kubelet, and five controllers that pass a condition on, one to the next: seen after 20 s to 30 s
# on a busy machine, twice that is allowed.
TOLD_WITHIN_S = 60.0


def judge(evidence: Evidence) -> Verdict:
    """Each failure is told with its own reason and words, none is called ready or answers; the twin is and does."""
    told, answers = evidence["told"], evidence["answers"]
    return Verdict.of(
        *(told_why(f"{name}-is-told", told.get(name, ()), *REASONS[name]) for name in REASONS),
        *(not_served(f"{name}-is-not-served", answers[name], told.get(name, ())) for name in REASONS),
        judges.every_status("the-twin-answers", answers["starts"], 200),
    )


def told_why(name: str, told: Sequence[Mapping[str, Any]], reason: str, words: str) -> Claim:
    """Claim that a revision said Ready=False with this reason and these words within the bound."""
    found = [one for one in told if one["status"] == "False" and one["reason"] == reason and words in one["message"]]
    said = "; ".join(f"after {one['after_s']:.0f} s Ready={one['status']} {one['reason']}: {one['message'].strip()[:160]}" for one in told)
    if not told:
        return Claim(name, held=None, said="its revision has said nothing")
    if not found or found[0]["after_s"] > TOLD_WITHIN_S:
        return Claim(name, held=False, said=said, expected=f"Ready=False {reason} with {words} within {TOLD_WITHIN_S:.0f} s", got=said)
    return Claim(name, held=True, said=f"after {found[0]['after_s']:.0f} s {reason}: {found[0]['message'].strip()[:160]}")


def not_served(name: str, draw: judges.Draw, told: Sequence[Mapping[str, Any]]) -> Claim:
    """Claim that a function was never called ready, and that its caller got neither an answer nor a wait.

    Finding: the name of a function that was never ready does not exist inside the cluster: its Service is made with its first route.
    """
    records, incomplete = judges.records_of(name, draw)
    if incomplete:
        return incomplete
    got = f"status {records[0]['status']} {records[0]['error']}"
    if records[0]["version"] or any(one["status"] == "True" for one in told):
        return Claim(name, held=False, said=f"{got}, and it was called {', '.join(sorted({one['status'] for one in told}))}", expected="no answer, never ready", got=got)
    if not records[0]["error"].startswith("resolve:") and records[0]["status"] != 404:
        return Claim(name, held=None, said=got)
    return Claim(name, held=True, said=f"{got} after {records[0]['latency_ms']:.0f} ms")


def said_by(watch: Watch, service: str, since: float) -> list[dict[str, Any]]:
    """Return what a function's revisions said of their readiness, each change with the seconds since a moment.

    Only of those that were made since the watch began: the end of one that a check before this one made is heard of as well.
    """
    said: list[dict[str, Any]] = []
    born = {change.body["metadata"]["uid"] for change in watch.changes() if change.kind == "ADDED"}
    for change in watch.changes():
        if change.body["metadata"]["uid"] in born and (change.body["metadata"].get("labels") or {}).get(OF_SERVICE) == service:
            for one in (change.body.get("status") or {}).get("conditions") or ():
                told = {"status": str(one["status"]), "reason": str(one.get("reason") or ""), "message": str(one.get("message") or "")}
                if one["type"] == "Ready" and (not said or told.items() - said[-1].items()):
                    said.append({"after_s": change.at - since, **told})
    return said


def await_told(watch: Watch, since: float) -> dict[str, list[dict[str, Any]]]:
    """Return what every failing function has said, once each has given its reason, or when the bound is reached."""
    told: dict[str, list[dict[str, Any]]] = {}

    def all_told() -> None:
        nonlocal told
        told = {name: said_by(watch, name, since) for name in REASONS}
        open_yet = [name for name, reason in REASONS.items() if told_why("x", told[name], *reason).held is not True]
        assert not open_yet, f"{', '.join(open_yet)} not told"

    with suppress(TimedOut):
        eventually(all_told, within=max(0.0, since + TOLD_WITHIN_S - time.time()), subject="why functions do not start")
    return told


@pytest.fixture
def revisions(world: World) -> Iterator[Watch]:
    """What becomes of this area's revisions, from now on."""
    with world.kube.watch(REVISION, world.namespace) as watch:
        yield watch


# Finding: what is shown of a failure depends on who is asked, and when.
# - A Knative Service's own Ready says "RevisionMissing: ... does not have any ready Revision" for each of the three (its route's word); the
#   reason stands in its ConfigurationsReady ("RevisionFailed: Revision ... failed with message: ...") and in the revision's conditions.
# - An image that is not there is told as ImagePullBackOff, with its name, for about twenty seconds only: once the autoscaler has given up and
#   scaled the revision to zero, the same condition says "ProgressDeadlineExceeded: Initial scale was never achieved". The crash stays.
# - With a progress deadline shorter than a start takes, a function that is all right is called failed, with an empty message
#   ("Revision ... failed with message: ."), until its pod is ready: seen at 15 s on a machine that was five times overloaded.
# - Where the deadline passes while the sidecar, an init container to Kubernetes, is not ready, the reason is "PodInitializing", and an image
#   that is not there has not been asked for yet: seen at 20 s on such a machine, where the check is then red.
# Three deadlines of 20 s, side by side.
@pytest.mark.slow
@requirement("functions.knative-start-failures", level="MUST", judge=judge)
def test_a_function_that_cannot_start_says_why(
    world: World, knative: KnativeClient, caller: Caller, manifests: Manifests, decide: Decide, revisions: Watch, greeter_image: str,
) -> None:
    """A function that crashes, never becomes ready, or has an image that does not exist is not served, and its revision gives the reason in bounded time."""
    since = time.time()
    manifests.apply("start_failures.yaml", go=greeter_image)
    knative.await_ready(world.namespace, "starts")
    told = await_told(revisions, since)

    decide(told=told, answers={name: caller.draw(f"http://{local_host(name, world.namespace)}/", timeout_s=30) for name in ("starts", *REASONS)})
