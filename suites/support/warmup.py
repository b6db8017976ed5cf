"""Warm-up against none and against minScale 1: three functions side by side under the same arrivals, and what must come of it."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from clusters.components.knative.client import KnativeClient
from clusters.components.knative.scale import ScaleWatch
from clusters.waiting import TimedOut, eventually
from suites.support import judges, quantiles, scaling
from suites.support.judges import Draw
from suites.support.manifests import Manifests
from suites.support.scaling import Scale
from suites.support.verdicts import Claim, Evidence, Verdict
from workloads.caller import IMAGE as CALLER
from workloads.fixtures import Steady, World
from workloads.greeter import IMAGE as GREETER
from workloads.load import OpenProfile, Stage

# The arms by the function that is called in each.
BARE, WARMED, KEPT = "bare", "warmed", "kept"
ARMS: Mapping[str, str] = {BARE: "user-function-bare", WARMED: "user-function", KEPT: "user-function-min-scale"}
WARM_UP = "function-warmup"
REPLICAS = 2
HTTP_OK = 200
# A pod is there, and is heard of, for as long as its function is called and a window longer; a few per cent are a watch's.
ONE_POD = (0.95, 1.05)
# A function without a pod between the bursts costs something, and less than one throughout.
LESS_THAN_ONE = (0.01, 0.95)
# A pod with its sidecar on two cores that have other things to do; 2 to 4 s where they have not.
STARTED_WITHIN_S = 10.0
# Two looks of the autoscaler, its own second thoughts (three seconds), and a second's granularity.
GONE_AFTER_S = 8.0
# The five seconds for which a cluster's DNS keeps that there is no such name, and as much again for a busy machine.
KNOWN_AFTER_S = 10.0
QUANTILES = (0.5, 0.9, 0.99)


@dataclass(frozen=True)
class Plan:
    """Bursts of calls with a gap before each: so many, so long, so many calls a second, and times in seconds.

    `period_s` is what passes between two visits of one warm-up pod, which is to be shorter than the functions' `window_s`.
    The first gap is longer by what the bare function needs to start for the calls that make connections.
    """

    bursts: int
    burst_s: float
    rate_per_s: float
    gap_s: float
    window_s: float
    period_s: float

    @property
    def stages(self) -> tuple[str, ...]:
        """The names of the bursts."""
        return tuple(f"burst-{number}" for number in range(1, self.bursts + 1))

    def profile(self) -> OpenProfile:
        """Return the load of one arm: calls that make connections and count for nothing, then a gap and a burst in turn."""
        pairs = [one for name in self.stages for one in (Stage(f"gap-before-{name}", self.gap_s, 0), Stage(name, self.burst_s, self.rate_per_s))]
        pairs[0] = replace(pairs[0], seconds=self.gap_s + STARTED_WITHIN_S)
        # What is judged is which pod a call met, by when it was due, and the sign of pairs: a second is late, and not the twentieth part of one.
        return OpenProfile((Stage("connect", 2, self.rate_per_s, counted=False), *pairs), users=60, timeout_s=60, late_ms=1000)


def prepare(world: World, knative: KnativeClient, manifests: Manifests, plan: Plan, file: str = "warm_up.yaml") -> dict[str, str]:
    """Make the three functions and the warm-up in the times of a plan, and return the host of each arm; `file` is named from beside the test that asks for it."""
    manifests.apply(file, image=world.image(GREETER), caller=world.image(CALLER), window=f"{plan.window_s:g}s", period=f"{plan.period_s:g}s")
    hosts = {arm: knative.await_ready(world.namespace, name).host for arm, name in ARMS.items()}
    world.kube.wait_deployment(world.namespace, WARM_UP, world.timeouts.deployment_available)
    _await_visits(world, within=plan.period_s + KNOWN_AFTER_S)
    return hosts


def _await_visits(world: World, *, within: float) -> None:
    """Return once every pod's last visit was answered, or when its time is over: what the visits are like is for the judge.

    Finding: a visit before Knative has made the function's Service is answered that there is no such host, and the cluster's DNS keeps that
    answer for five seconds (the TTL of its own SOA record): the function may be ready while its name is still unknown.
    """
    began = time.time() - within

    def answered() -> None:
        last = {pod: made[-1]["status"] if made else "none" for pod, made in visits(world, began).items()}
        assert set(last.values()) <= {HTTP_OK}, f"last visits: {last}"

    with suppress(TimedOut):
        eventually(answered, within=within, every=1.0)


def draw(world: World, steady_load: Steady, plan: Plan, hosts: Mapping[str, str]) -> dict[str, Any]:
    """Put the same load on the host of each arm at once, watch the pods meanwhile, and return all of it as evidence."""
    with ScaleWatch(world.kube, world.namespace) as watch, ExitStack() as loads:
        began = time.time()
        running = {arm: loads.enter_context(steady_load(hosts[arm], "/api", profile=plan.profile())) for arm in ARMS}
        for load in running.values():
            load.await_end()
        loads.close()
        return {
            "arms": {arm: {"load": load.draw(), "scale": watch.scale(ARMS[arm], load.began)} for arm, load in running.items()},
            "visits": visits(world, began),
        }


def visits(world: World, since: float) -> dict[str, list[dict[str, Any]]]:
    """Return what each pod of the warm-up wrote down of its visits since a time (seconds since 1970)."""
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(since))
    pods = [pod["metadata"]["name"] for pod in world.kube.pods(world.namespace, f"app={WARM_UP}") if not pod["metadata"].get("deletionTimestamp")]
    return {pod: [json.loads(line) for line in world.kube.logs(pod, world.namespace, "caller", since=at).splitlines() if line.startswith('{"at"')] for pod in pods}


def judge_of(plan: Plan) -> Callable[[Evidence], Verdict]:
    """Return the judge of a comparison under a plan."""
    return partial(_judge, plan)


def _judge(plan: Plan, evidence: Evidence) -> Verdict:
    """Without a pod of its own every gap ends in a cold start; with the warm-up, and with minScale 1, none does, and a pod is paid for throughout."""
    arms = {arm: (evidence["arms"][arm]["load"], evidence["arms"][arm]["scale"]) for arm in ARMS}
    least = round(plan.bursts * plan.burst_s * plan.rate_per_s)
    whole = {arm: lasted(load, plan) for arm, (load, _) in arms.items()}
    return Verdict.of(
        *(answered(f"{arm}-is-answered", load, scale, least) for arm, (load, scale) in arms.items()),
        scaling.cold_after_every_gap("bare-is-cold-after-every-gap", *arms[BARE], plan.stages, gone_within_s=plan.window_s + GONE_AFTER_S),
        scaling.never_cold("warmed-is-never-cold", *arms[WARMED], least),
        scaling.never_cold("kept-is-never-cold", *arms[KEPT], least),
        quicker("first-calls-are-quicker-warmed", arms[WARMED][0], *arms[BARE], plan.stages),
        quicker("first-calls-are-quicker-kept", arms[KEPT][0], *arms[BARE], plan.stages),
        scaling.costs("bare-costs-less-than-a-pod", arms[BARE][1], whole[BARE], *LESS_THAN_ONE),
        scaling.costs("warmed-costs-one-pod", arms[WARMED][1], whole[WARMED], *ONE_POD),
        scaling.costs("kept-costs-one-pod", arms[KEPT][1], whole[KEPT], *ONE_POD),
        visited("two-more-pods-keep-it-warm", evidence["visits"], plan),
    )


def lasted(draw: Draw, plan: Plan) -> scaling.Span:
    """Return when gaps and bursts were, in milliseconds of a draw: from the first gap to the last call, which is when the load and the watch of its pods end."""
    begins, _ = scaling.span(draw, plan.stages[0], plan.burst_s)
    last, _ = scaling.span(draw, plan.stages[-1], plan.burst_s)
    return begins - 1000 * plan.gap_s, max(last, *(float(record["started_ms"]) for record in draw["records"]))


def answered(name: str, draw: Draw, scale: Scale, least: int) -> Claim:
    """Claim that every call of an arm was answered 200; its quantiles of latency, each with an exact interval, are said."""
    claim = scaling.voided(name, draw) or judges.every_status(name, draw, HTTP_OK, least=least)
    if claim.held is not True:
        return claim
    latencies = [float(record["latency_ms"]) for record in draw["records"]]
    said = ", ".join(f"p{100 * quantile:g} {quantiles.estimate(latencies, quantile).text()}" for quantile in QUANTILES)
    return Claim(name, held=True, said=f"{claim.said}; {said}; {len(scaling.cold(draw, scale))} of them were held for a pod")


def quicker(name: str, quick: Draw, bare: Draw, bare_scale: Scale, stages: Sequence[str]) -> Claim:
    """Claim that the first call after a gap is quicker than the one of the bare arm that waits for its pod, by the sign of each pair.

    More than half of the pairs hold it; that not a single one is quicker refutes it. Its false alarm: a machine that stalls a
    warm call for longer than a pod needs to start, in every pair; `quicker_alpha` has one stall in a hundred calls.
    """
    if open_ := scaling.voided(name, quick) or scaling.voided(name, bare):
        return open_
    made = {one["index"] for one in scaling.created_for(bare, bare_scale)}
    these, those = scaling.first_of(quick, stages), scaling.first_of(bare, stages)
    pairs = [(these[stage], those[stage]) for stage in stages if stage in these and stage in those and those[stage]["index"] in made]
    if 2 * len(pairs) <= len(stages) or not all(one["status"] and other["status"] for one, other in pairs):
        return Claim(name, held=None, said=f"of {len(stages)} gaps {len(pairs)} ended in a cold start to compare with, or not every call was answered")
    differences = [float(other["latency_ms"]) - float(one["latency_ms"]) for one, other in pairs]
    better = sum(difference > 0 for difference in differences)
    said = (
        f"the first call after a gap was quicker in {better} of {len(pairs)} pairs, by {quantiles.estimate(differences).text()}"
        f" (sign test: p = {quantiles.sign_p_value(differences):.2g})"
    )
    if not better:
        return Claim(name, held=False, said=said, expected="quicker", got="slower in every pair")
    return Claim(name, held=True if 2 * better > len(pairs) else None, said=said)


STALLED = 0.01


def quicker_alpha(gaps: int) -> float:
    """Return the false alarm of `quicker` for so many gaps: a stall of the warm call, once in a hundred, in each of the fewest pairs that decide."""
    return float(STALLED ** (gaps // 2 + 1))


def visited(name: str, visits: Mapping[str, Sequence[Mapping[str, Any]]], plan: Plan) -> Claim:
    """Claim that the warm-up's pods, so many as declared, visited the function once a period and were answered 200 each time.

    Half of the visits that there was time for are wanted: each period begins with the answer to the visit before.
    """
    seconds = plan.bursts * (plan.gap_s + plan.burst_s)
    least = int(seconds / plan.period_s / 2)
    counts = {pod: len(made) for pod, made in visits.items()}
    wrong = [made["status"] or made.get("error") for one in visits.values() for made in one if made["status"] != HTTP_OK]
    got = f"{len(visits)} pods made {', '.join(map(str, counts.values())) or 'no'} visits in {seconds:g} s and more, {len(wrong)} of them not answered {HTTP_OK}"
    if len(visits) != REPLICAS or wrong or min(counts.values()) < least:
        return Claim(name, held=False, said=f"{got}{f' ({wrong[0]})' if wrong else ''}", expected=f"{REPLICAS} pods, {least} visits or more of each, all answered", got=got)
    return Claim(name, held=True, said=f"{got}: the warm-up costs its own {REPLICAS} pods and one of the function's")
