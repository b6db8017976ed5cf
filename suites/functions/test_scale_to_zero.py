"""Scale to zero: a function that nobody calls has no pod, not sooner than it was told to keep one, and its next caller gets an answer."""

import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import pytest

from clusters.components.knative.client import KnativeClient, local_host
from clusters.watching import Change
from suites.support import coldstarts, judges
from suites.support.coldstarts import ColdStarts
from suites.support.manifests import Manifests
from suites.support.requirements import requirement
from suites.support.verdicting import Decide
from suites.support.verdicts import Claim, Evidence, Verdict
from workloads.caller.client import Caller
from workloads.fixtures import World
from workloads.greeter import IMAGE as GO

# By then most of the grace period is over, so that a pod without a retention would be told to end sooner.
WINDOW_S, RETENTION_S = 6.0, 22.0
# Knative's own, for the whole cluster (config-autoscaler, scale-to-zero-grace-period).
GRACE_S = 30.0
# Finding: what a last pod is kept for is longer than its window. The retention counts from when the autoscaler finds the function idle, and no pod
# goes before the activator was in its path for the grace period: a function whose first call was its last keeps its pod for half a minute
# from its creation on, with a window of 6 s and no retention (serving, pkg/reconciler/autoscaling/kpa/scaler.go, handleScaleToZero).
# The autoscaler's metrics are buckets of whole seconds (serving, pkg/autoscaler/aggregation, granularity 1 s): the window that a request
# falls into may end up to one second before it is a whole window old.
# Kubernetes writes moments down in whole seconds too.
GRANULARITY_S = 1.0
# Window and retention, an autoscaler that looks every two seconds, and pods whose end is heard of: twice over, for a busy machine.
ZERO_WITHIN_S = 60.0


def judge(evidence: Evidence) -> Verdict:
    """The function goes to zero in its time and comes back; the twin that must keep a pod keeps the same one."""
    again = evidence["again"]
    return Verdict.of(
        judges.every_status("served-before", evidence["first"], 200),
        zero_seen("zero-pods-are-seen", evidence["zero"]),
        stayed("the-window-is-over-first", evidence["gone_after_s"], WINDOW_S, "its last answer"),
        stayed("the-last-pod-stays-as-long-as-it-must", evidence["retained_s"], RETENTION_S, "it was found idle"),
        stayed("the-activator-is-in-the-path-for-the-grace-period", evidence["proxied_s"], GRACE_S, "the activator was in the path"),
        answered_anew("the-next-request-is-answered", again, evidence["pods"]["zero"]),
        judges.every_status("the-twin-answers", evidence["twin"], 200),
        kept("the-twin-keeps-its-pod", evidence["pods"]),
    )


def zero_seen(name: str, seen: Mapping[str, Any]) -> Claim:
    """Claim that a function had neither pods nor endpoints, and that its autoscaler wanted none."""
    got = ", ".join(f"{what} {value}" for what, value in seen.items())
    if not seen:
        return Claim(name, held=None, said="nobody looked")
    if not coldstarts.is_zero(seen):
        return Claim(name, held=False, said=f"after {ZERO_WITHIN_S:.0f} s: {got}", expected="no pods, no endpoints, scale 0", got=got)
    return Claim(name, held=True, said=got)


def stayed(name: str, after_s: float | None, asked_s: float, moment: str) -> Claim:
    """Claim that the last pod was told to end no sooner after a moment than is asked for, both in seconds."""
    least = asked_s - GRANULARITY_S
    if after_s is None:
        return Claim(name, held=None, said="no pod was told to end")
    said = f"the last pod was told to end {after_s:.1f} s after {moment}"
    if after_s < least:
        return Claim(name, held=False, said=said, expected=f"{least:.0f} s or more", got=f"{after_s:.1f} s")
    return Claim(name, held=True, said=f"{said}, {least:.0f} s or more were asked for")


def answered_anew(name: str, draw: judges.Draw, before: Sequence[str]) -> Claim:
    """Claim that a request was answered, with what the function is to say, by a pod that was not there before."""
    records, incomplete = judges.records_of(name, draw)
    if incomplete:
        return incomplete
    record = records[0]
    said = (record["headers"].get("x-greeting") or [""])[0]
    got = f"status {record['status']}, {said or 'no greeting'}, from {record['pod'] or record['error'] or 'no pod'}"
    if record["status"] != 200 or said != "Hello Serverless World!" or record["pod"] in before:
        return Claim(name, held=False, said=got, expected="status 200, Hello Serverless World!, from a new pod", got=got)
    return Claim(name, held=True, said=f"{got}, after {record['latency_ms']:.0f} ms")


def kept(name: str, pods: Mapping[str, Sequence[str]]) -> Claim:
    """Claim that the twin's pods are those that it had, and that none was told to end."""
    before, after, ended = (list(pods.get(when, ())) for when in ("one", "one_after", "one_ended"))
    if ended or (before and after != before):
        return Claim(name, held=False, said=f"had {before}, has {after}, told to end {ended}", expected=str(before), got=str(after))
    if not before:
        return Claim(name, held=None, said="the twin had no pod to begin with")
    return Claim(name, held=True, said=f"{before[0]} stayed")


def told_to_end(changes: Sequence[Change], pods: Sequence[str]) -> dict[str, float]:
    """Return those of some pods that were told to end, each with the moment by the API server's clock (whole seconds since 1970).

    By name: a function of this name that a check before this one removed has pods that are on their way out for half a minute yet.
    """
    ended: dict[str, float] = {}
    for change in changes:
        metadata = change.body["metadata"]
        if change.name in pods and metadata.get("deletionTimestamp"):
            # What is written down is when it must have ended.
            due = datetime.fromisoformat(metadata["deletionTimestamp"]).timestamp()
            ended.setdefault(change.name, due - float(metadata.get("deletionGracePeriodSeconds", 0)))
    return ended


def since(moment: float | None, ended: Mapping[str, float]) -> float | None:
    """Return the seconds from a moment (since 1970) until the last of some pods was told to end; None where none was, or the moment is not known."""
    return max(ended.values()) - moment if ended and moment is not None else None


# The window and the retention are waited for, twice two seconds of the autoscaler's, and two starts: about 45 s.
@pytest.mark.slow
@requirement("functions.knative-scale-to-zero", level="MUST", judge=judge)
def test_an_idle_function_has_no_pod_and_answers_its_next_caller(
    world: World, knative: KnativeClient, caller: Caller, cold_starts: ColdStarts, manifests: Manifests, decide: Decide,
) -> None:
    """A function of minScale 0 has no pod once its window and its retention are over, not before, and answers its next request; one of minScale 1 keeps its pod."""
    manifests.apply("scale_to_zero.yaml", go=world.image(GO))
    function, _ = (knative.await_ready(world.namespace, name) for name in ("hello-zero", "hello-one"))
    zero, one = (f"http://{local_host(name, world.namespace)}/" for name in ("hello-zero", "hello-one"))
    pods = {"zero": cold_starts.look("hello-zero")["pods"], "one": cold_starts.look("hello-one")["pods"]}
    first, answered_at = caller.draw(zero), time.time()
    seen = cold_starts.await_zero("hello-zero", within=ZERO_WITHIN_S)
    idle, proxied = (asked(world.namespace, function.latest_ready) for asked in (knative.inactive_since, knative.proxied_since))
    ended = told_to_end(cold_starts.pod_changes(), pods["zero"])
    again, twin = caller.draw(zero, timeout_s=60), caller.draw(one)

    decide(
        first=first, zero=seen, gone_after_s=since(answered_at, ended), retained_s=since(idle, ended), proxied_s=since(proxied, ended), again=again, twin=twin,
        pods={**pods, "one_after": cold_starts.look("hello-one")["pods"], "one_ended": sorted(told_to_end(cold_starts.pod_changes(), pods["one"]))},
    )
