"""Warm-up: a Deployment that visits a function once a minute, against a function that nothing keeps warm and one of minScale 1."""

from collections.abc import Callable

import pytest

from clusters.components.knative.client import KnativeClient
from suites.support import warmup
from suites.support.manifests import Manifests
from suites.support.requirements import requirement
from suites.support.verdicting import Decide
from suites.support.warmup import Plan
from workloads.fixtures import Steady, World

# The reference world's times by ten: Knative's window of 60 s becomes 6 s, the shortest that it takes. The warm-up's period of 60 s becomes
# 3 s and not 6 s.
# A period as long as the window would leave moments in which the window is empty: Knative's metrics are buckets of whole seconds, and its
# autoscaler looks every two (serving v0.50.0, pkg/autoscaler/aggregation and scaling), so a look may fall into one where both pods visit at the
# same time. At the published 60 s and 60 s it did not in the four gaps that were watched; the nightly check has these numbers.
QUICK = Plan(bursts=4, burst_s=4, rate_per_s=4, gap_s=15, window_s=6, period_s=3)
REAL = Plan(bursts=4, burst_s=10, rate_per_s=4, gap_s=110, window_s=60, period_s=60)


@pytest.fixture(scope="module")
def world(worlds: Callable[[str], World]) -> World:
    """A namespace of its own: the reference calls this function `user-function`, as it does the one behind the connection pool."""
    return worlds("performance-warm-up").view()


# Four gaps, each longer than a window and the way to zero: 80 s.
@pytest.mark.slow
@requirement("performance.warm-up", level="MUST", judge=warmup.judge_of(QUICK), alpha=2 * warmup.quicker_alpha(QUICK.bursts))
def test_a_visited_function_is_never_cold(
    world: World, knative: KnativeClient, manifests: Manifests, steady_load: Steady, decide: Decide,
) -> None:
    """A function that a warm-up visits more often than its window is long has no cold call, as one of minScale 1 has none; a bare one is cold after every gap."""
    hosts = warmup.prepare(world, knative, manifests, QUICK)

    decide(**warmup.draw(world, steady_load, QUICK, hosts))


# The published times as they are: eight minutes.
@pytest.mark.slow
@pytest.mark.nightly
@requirement("performance.warm-up-real-time", level="SHOULD", judge=warmup.judge_of(REAL), alpha=2 * warmup.quicker_alpha(REAL.bursts))
def test_a_function_visited_once_a_minute_is_never_cold(
    world: World, knative: KnativeClient, manifests: Manifests, steady_load: Steady, decide: Decide,
) -> None:
    """A function that two warm-up pods visit every 60 s has no cold call with Knative's own window of 60 s."""
    hosts = warmup.prepare(world, knative, manifests, REAL)

    decide(**warmup.draw(world, steady_load, REAL, hosts))
