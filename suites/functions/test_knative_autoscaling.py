"""Autoscaling: the pods of a function follow the calls that it has in hand, between its bounds, and no call pays for it."""

from contextlib import suppress
from typing import Any

import pytest

from clusters.components.knative.client import KnativeClient
from clusters.components.knative.scale import ScaleWatch
from clusters.waiting import TimedOut, consistently, eventually
from suites.support import scaling
from suites.support.manifests import Manifests
from suites.support.requirements import requirement
from suites.support.scaling import Target
from suites.support.verdicting import Decide
from suites.support.verdicts import Evidence, Verdict
from workloads.fixtures import Steady, World
from workloads.load import OpenProfile, Stage

FUNCTION = "hello-scaling"
# What the manifest says; the share is Knative's default (config-autoscaler, container-concurrency-target-percentage).
TARGET = Target(calls_per_pod=2, utilization=0.7, least=1, most=10, window_s=6)
# How long the function holds a call: long, so that what a busy machine adds to it is little beside it; and a rate is not the calls in hand,
# as it would be with a second, when a target of the one would pass for the other.
HELD_MS = 3000
# 1.25 x 3 s are 3.75 calls in hand, which demand three pods (2.8 to 4.2), or four (to 5.6) where a busy machine holds them for longer; never two.
# 8 x 3 s are 24, which demand eighteen.
FEW, MANY = 1.25, 8.0
UP_S, FULL_S, DOWN_S = 17, 18, 22
# With nothing in hand it is back at one after a window and two looks, and would be at none two looks later; longer on a busy machine.
BACK_WITHIN_S, STAYS_S = 30.0, 6.0
# The first calls of a stage come to an end, then the window must be full of what is in hand since; the autoscaler looks every two seconds, and a
# report and a watch take a moment. On the way down it takes away at most half of the ready pods at each look (max-scale-down-rate
# 2): ten, five, three. A look that comes late on a busy machine has some seconds to come.
SETTLED_S, SETTLED_DOWN_S = 13.0, 18.0
# What begins when ten pods become three, and three one.
LEAST_WHILE_ENDING = 6
# Averages over six seconds are judged, of calls as they were begun: a second is late, and not the twentieth part of one.
PROFILE = OpenProfile(
    (Stage("connect", 1, FEW, counted=False), Stage("up", UP_S, FEW), Stage("full", FULL_S, MANY), Stage("down", DOWN_S, FEW)),
    users=150, timeout_s=20, late_ms=1000,
)


def judge(evidence: Evidence) -> Verdict:
    """One pod or more and ten or fewer throughout, as many as the formula gives, all ten where more are demanded, one again at the end, and no call lost."""
    load, scale = evidence["load"], evidence["scale"]
    up, full, down = (
        scaling.span(load, stage, seconds, after_s=after)
        for stage, seconds, after in (("up", UP_S, SETTLED_S), ("full", FULL_S, SETTLED_S), ("down", DOWN_S, SETTLED_DOWN_S))
    )
    return Verdict.of(
        scaling.never_below("never-below-one", scale, TARGET.least),
        scaling.never_above("never-above-ten", scale, TARGET.most),
        scaling.wanted_as_demanded("as-many-as-demanded", scale, load, up, TARGET, HELD_MS),
        scaling.held_at_most("ten-where-more-are-demanded", scale, load, full, TARGET, HELD_MS),
        scaling.wanted_as_demanded("as-many-as-demanded-on-the-way-down", scale, load, down, TARGET, HELD_MS),
        scaling.returned_to("one-again-at-the-end", scale, TARGET.least),
        scaling.busy_while_pods_end("no-call-lost", load, scale, LEAST_WHILE_ENDING),
    )


def idle(watch: ScaleWatch) -> None:
    """Let the function be idle until it is back at one pod, or does not come back, and for a while longer, while its pods are watched."""

    def back() -> None:
        wanted = watch.scale(FUNCTION, 0).wanted[-1].desired
        assert wanted <= TARGET.least, f"{wanted} pods are wanted"

    # Whether it came back is for the judge to say.
    with suppress(TimedOut):
        eventually(back, within=BACK_WITHIN_S, subject="one pod again")
    consistently(watch.alive, during=STAYS_S, every=1.0, subject="watch of the pods ended")


# Three stretches of load, each longer than the shortest window that Knative takes, and an idle one: 75 s.
@pytest.mark.slow
@requirement("functions.knative-autoscaling", level="MUST", judge=judge)
def test_pods_follow_the_calls_in_hand(
    world: World, knative: KnativeClient, greeter_image: str, manifests: Manifests, steady_load: Steady, decide: Decide,
) -> None:
    """A function of minScale 1 and maxScale 10 has never fewer and never more pods under a load in steps, as many as its target demands in between, and loses no call."""
    manifests.apply("knative_autoscaling.yaml", image=greeter_image)
    host = knative.await_ready(world.namespace, FUNCTION).host

    def under_load(watch: ScaleWatch) -> dict[str, Any]:
        with steady_load(host, f"/?x-greeter-delay={HELD_MS}ms", profile=PROFILE) as load:
            load.await_end()
        idle(watch)
        return {"load": load.draw(), "scale": watch.scale(FUNCTION, load.began)}

    with ScaleWatch(world.kube, world.namespace) as watch:
        decide(**under_load(watch))
