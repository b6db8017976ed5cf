"""What a warm-up is worth, and what it costs: against none, and against minScale 1, over enough gaps to tell by an exact test."""

from collections.abc import Callable

from clusters.components.knative.client import KnativeClient
from suites.support import quantiles, scaling, warmup
from suites.support.manifests import Manifests
from suites.support.warmup import ARMS, BARE, KEPT, WARMED, Plan
from workloads.fixtures import Steady, World

# Twenty pairs of the same sign have p = 1e-6; a pair takes 19 s. The times are those of the check.
PLAN = Plan(bursts=20, burst_s=4, rate_per_s=4, gap_s=15, window_s=6, period_s=3)

Figures = Callable[[str, str], None]


def test_a_warm_up_against_none_and_against_min_scale(
    world: World, knative: KnativeClient, manifests: Manifests, steady_load: Steady, figures: Figures,
) -> None:
    """Three functions side by side under the same arrivals with gaps: cold calls, latency with exact intervals, and pod seconds."""
    hosts = warmup.prepare(world, knative, manifests, PLAN, file="../performance/warm_up.yaml")
    drawn = warmup.draw(world, steady_load, PLAN, hosts)["arms"]
    loads = {arm: drawn[arm]["load"].to_json() for arm in ARMS}
    scales = {arm: drawn[arm]["scale"].to_json() for arm in ARMS}
    firsts = {arm: [float(one["latency_ms"]) for one in scaling.first_of(loads[arm], PLAN.stages).values()] for arm in ARMS}

    for arm in ARMS:
        within = warmup.lasted(loads[arm], PLAN)
        seconds = scaling.pod_seconds(scales[arm], within)
        latencies = [float(record["latency_ms"]) for record in loads[arm]["records"]]
        figures(f"{arm}: calls held for a pod", f"{len(scaling.cold(loads[arm], scales[arm]))} of {len(latencies)}, saturated: {loads[arm]['saturated'] or 'no'}")
        figures(f"{arm}: latency", ", ".join(f"p{100 * quantile:g} {quantiles.estimate(latencies, quantile).text()}" for quantile in warmup.QUANTILES))
        figures(f"{arm}: first call after a gap, median of {len(firsts[arm])}", quantiles.estimate(firsts[arm]).text())
        figures(f"{arm}: pod seconds asked for, and on their way out", f"{seconds['asked_for']:.0f} and {seconds['ending']:.0f} in {(within[1] - within[0]) / 1000:.0f} s")
    for arm in (WARMED, KEPT):
        won = [cold - warm for cold, warm in zip(firsts[BARE], firsts[arm], strict=True)]
        figures(f"{arm} against {BARE}, first call, paired", f"{quantiles.estimate(won).text()} quicker, sign test p = {quantiles.sign_p_value(won):.2g}")
