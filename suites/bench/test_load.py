"""Locust in the cluster against fortio on the same function: what each can make, and how well each keeps to a rate that both can."""

import json
import statistics
from collections.abc import Callable
from pathlib import Path

import pytest

from workloads.fixtures import World
from workloads.load import OpenProfile, steady
from workloads.load.cluster import MASTER, WORKER, ClusterLoad, Finished, locust

WORKERS = 2
CALLS, CONNECTIONS = 2_000, 8
RATE, SECONDS = 100, 8
ROUNDS = 3

Figures = Callable[[str, str], None]


@pytest.fixture(scope="module")
def together(world: World) -> ClusterLoad:
    """Locust's master and two workers in the mesh."""
    world.deploy(locust(workers=WORKERS))
    workers = [str(pod["metadata"]["name"]) for pod in world.kube.pods(world.namespace, f"app={WORKER}")]
    return ClusterLoad(world.kube, world.namespace, world.pod(MASTER), workers)


def rate_of(finished: Finished) -> float:
    """Return the calls a second from the first call's begin to the last one's end."""
    begins = [float(call["started_at"]) + float(call["late_ms"]) / 1000 for call in finished.calls]
    ends = [float(call["started_at"]) + float(call["latency_ms"]) / 1000 for call in finished.calls]
    return len(finished.calls) / (max(ends) - min(begins))


def test_locust_against_fortio(target: str, together: ClusterLoad, fortio: str, world: World, run_folder: Path, figures: Figures) -> None:
    """In pairs that take turns: as many calls as each can make with eight connections, then a rate that both should keep."""
    url, _, path = target.rpartition("/")

    def by_locust(profile: OpenProfile, name: str) -> Finished:
        return together.put(url, f"/{path}", profile, folder=run_folder / "load" / name)

    def by_fortio(*options: str) -> float:
        said = world.kube.exec(fortio, world.namespace, "fortio", ["fortio", "load", "-quiet", "-json", "-", "-c", str(CONNECTIONS), *options, target])
        return float(json.loads(said)["ActualQPS"])

    # All due at once: the users are busy from the first call to the last.
    flood = OpenProfile(steady(CALLS * 10, 0.1).stages, users=CONNECTIONS)
    most = [(rate_of(by_locust(flood, f"most-{number}")), by_fortio("-n", str(CALLS), "-qps", "0")) for number in range(ROUNDS)]
    kept = [(by_locust(steady(RATE, SECONDS), f"kept-{number}"), by_fortio("-t", f"{SECONDS}s", "-qps", str(RATE))) for number in range(ROUNDS)]

    ratios = sorted(ours / theirs for ours, theirs in most)
    figures(f"Locust, {WORKERS} workers, median rate of {ROUNDS}", f"{statistics.median(ours for ours, _ in most):.0f} calls/s")
    figures(f"fortio, median rate of {ROUNDS}", f"{statistics.median(theirs for _, theirs in most):.0f} calls/s")
    figures("Locust against fortio, rate, paired", f"{statistics.median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f})")
    figures(f"Locust, {RATE} calls/s asked for", f"{statistics.median(rate_of(ours) for ours, _ in kept):.1f} calls/s")
    figures(f"fortio, {RATE} calls/s asked for", f"{statistics.median(theirs for _, theirs in kept):.1f} calls/s")
    figures("Locust, late by at most, of 99 % of the calls", f"{max(ours.generator.late_p99_ms for ours, _ in kept):.1f} ms, {max(ours.generator.cpu for ours, _ in kept):.0%} of a core")
    figures("Locust says of itself", "; ".join(sorted({ours.generator.saturated or "not saturated" for ours, _ in kept})))
