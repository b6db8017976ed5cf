"""What a draw costs: the caller against one `kubectl exec` per request, and against fortio on the same function."""

import json
import statistics
import subprocess
import time
from collections.abc import Callable

from clusters.bringup import Testbed
from suites.support import sampling
from workloads.caller.client import Caller
from workloads.fixtures import World

CALLS = 2_000
CONCURRENCY = 8
ROUNDS = 5
EXECS = 20

Figures = Callable[[str, str], None]


def seconds_of(action: Callable[[], object]) -> float:
    """Return the wall time of one action in seconds."""
    began = time.monotonic()
    action()
    return time.monotonic() - began


def test_draw_and_judgement(target: str, caller: Caller, figures: Figures) -> None:
    """A split of 2 000 calls, drawn through two sidecars and judged; alternated with nothing else in the mesh."""
    caller.draw(target, count=200, concurrency=CONCURRENCY)
    draws = [seconds_of(lambda: caller.draw(target, count=CALLS, concurrency=CONCURRENCY)) for _ in range(ROUNDS)]
    counts = {"standard": 1_800, "backup": 200}
    judging = [seconds_of(lambda: sampling.split(counts, {"standard": 0.9, "backup": 0.1}, 1e-5)) for _ in range(ROUNDS)]

    figures(f"draw of {CALLS} calls through two sidecars, median of {ROUNDS}", f"{statistics.median(draws):.2f} s ({CALLS / statistics.median(draws):.0f} calls/s)")
    figures("judging them, median", f"{1000 * statistics.median(judging):.1f} ms")


def test_caller_against_exec(target: str, caller: Caller, world: World, testbed: Testbed, figures: Figures) -> None:
    """One request a `kubectl exec`, as suites do it that have no caller; the exec runs the proxy's own request command."""
    assert testbed.cluster is not None
    kubectl = testbed.kubectl()
    command = [
        str(kubectl), f"--kubeconfig={testbed.cluster.kubeconfig}", f"--context={testbed.cluster.context}", "exec", "-n", world.namespace, caller.pod,
        "-c", "istio-proxy", "--", "pilot-agent", "request", "GET", "ready",
    ]

    execs = [seconds_of(lambda: subprocess.run(command, check=True, capture_output=True)) for _ in range(EXECS)]
    draw = seconds_of(lambda: caller.draw(target, count=CALLS, concurrency=CONCURRENCY))

    per_call = draw / CALLS
    figures(f"one kubectl exec, median of {EXECS}", f"{1000 * statistics.median(execs):.0f} ms")
    figures("caller against one kubectl exec a request", f"{statistics.median(execs) / per_call:.0f} times as fast")


def test_caller_against_fortio(target: str, caller: Caller, fortio: str, world: World, figures: Figures) -> None:
    """The same number of requests with the same concurrency, in pairs that take turns."""
    command = ["fortio", "load", "-quiet", "-json", "-", "-n", str(CALLS), "-c", str(CONCURRENCY), "-qps", "0", target]

    def fortio_rate() -> float:
        return float(json.loads(world.kube.exec(fortio, world.namespace, "fortio", command))["ActualQPS"])

    def caller_rate() -> float:
        return CALLS / caller.draw(target, count=CALLS, concurrency=CONCURRENCY).seconds

    fortio_rate(), caller_rate()
    pairs = [(caller_rate(), fortio_rate()) for _ in range(ROUNDS)]

    ratios = sorted(ours / theirs for ours, theirs in pairs)
    figures(f"caller, median rate of {ROUNDS}", f"{statistics.median(ours for ours, _ in pairs):.0f} calls/s")
    figures(f"fortio, median rate of {ROUNDS}", f"{statistics.median(theirs for _, theirs in pairs):.0f} calls/s")
    figures("caller against fortio, rate, paired", f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})")
