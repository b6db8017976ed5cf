"""Scale to zero: a function that nobody calls has no pod, not sooner than it was told to keep one, and its next caller gets an answer."""

import time
from collections.abc import Mapping, Sequence
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

WINDOW_S, RETENTION_S = 6.0, 4.0
# The autoscaler's metrics are buckets of whole seconds (serving, pkg/autoscaler/aggregation, granularity 1 s): the window that a request
# falls into may end up to one second before it is a whole window old.
GRANULARITY_S = 1.0
# Window and retention, an autoscaler that looks every two seconds, and pods whose end is heard of: twice over, for a busy machine.
ZERO_WITHIN_S = 30.0


def judge(evidence: Evidence) -> Verdict:
    """The function goes to zero in its time and comes back; the twin that must keep a pod keeps the same one."""
    again = evidence["again"]
    return Verdict.of(
        judges.every_status("served-before", evidence["first"], 200),
        zero_seen("zero-pods-are-seen", evidence["zero"]),
        stayed("the-last-pod-stays-as-long-as-it-must", evidence["gone_after_s"]),
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


def stayed(name: str, gone_after_s: float | None) -> Claim:
    """Claim that the last pod was told to end no sooner after the last answer than the window and the retention say."""
    least = WINDOW_S + RETENTION_S - GRANULARITY_S
    if gone_after_s is None:
        return Claim(name, held=None, said="no pod was told to end")
    if gone_after_s < least:
        return Claim(name, held=False, said=f"the last pod was told to end {gone_after_s:.1f} s after its last answer", expected=f"{least:.0f} s or more", got=f"{gone_after_s:.1f} s")
    return Claim(name, held=True, said=f"the last pod was told to end {gone_after_s:.1f} s after its last answer, {least:.0f} s or more were asked for")


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
    """Return those of some pods that were told to end, each with the moment at which that was heard of (seconds since 1970).

    By name: a function of this name that a check before this one removed has pods that are on their way out for half a minute yet.
    """
    ended: dict[str, float] = {}
    for change in changes:
        if change.name in pods and change.body["metadata"].get("deletionTimestamp"):
            ended.setdefault(change.name, change.at)
    return ended


def gone_after(changes: Sequence[Change], pods: Sequence[str], answered_at: float) -> float | None:
    """Return the seconds from a moment (since 1970) until the last of some pods was told to end; None while none was."""
    ended = told_to_end(changes, pods)
    return max(ended.values()) - answered_at if ended else None


# The window and the retention are waited for, twice two seconds of the autoscaler's, and two starts: about 25 s.
@pytest.mark.slow
@requirement("functions.knative-scale-to-zero", level="MUST", judge=judge)
def test_an_idle_function_has_no_pod_and_answers_its_next_caller(
    world: World, knative: KnativeClient, caller: Caller, cold_starts: ColdStarts, manifests: Manifests, decide: Decide,
) -> None:
    """A function of minScale 0 has no pod once its window and its retention are over, not before, and answers its next request; one of minScale 1 keeps its pod."""
    manifests.apply("scale_to_zero.yaml", go=world.image(GO))
    zero, one = (f"http://{local_host(knative.await_ready(world.namespace, name).name, world.namespace)}/" for name in ("hello-zero", "hello-one"))
    pods = {"zero": cold_starts.look("hello-zero")["pods"], "one": cold_starts.look("hello-one")["pods"]}
    first, answered_at = caller.draw(zero), time.time()
    seen = cold_starts.await_zero("hello-zero", within=ZERO_WITHIN_S)
    changes = cold_starts.pod_changes()
    again, twin = caller.draw(zero, timeout_s=60), caller.draw(one)

    decide(
        first=first, zero=seen, gone_after_s=gone_after(changes, pods["zero"], answered_at), again=again, twin=twin,
        pods={**pods, "one_after": cold_starts.look("hello-one")["pods"], "one_ended": sorted(told_to_end(cold_starts.pod_changes(), pods["one"]))},
    )
