"""Where the seconds of a cold start go, and which settings win them back: every arm in every round, so that the arms are paired.

`python -m pytest suites/bench/test_cold_starts.py --keep-cluster --cold-starts=20`

Seen on two cores that did little else, with twenty rounds; medians, with 95 % intervals where something is claimed of them:

Finding: what a sidecar adds (1.9 s in Go, 2.5 in Python, 1.7 in JavaScript) is the time until its proxy is ready, 1.85 s whatever the function is, and
the half second until the kubelet has noticed. Nothing that Istio offers wins it back: not a container instead of an init container, held or
not (the function then starts 1.8 s sooner and its first request waits as much longer), not half a core asked for, not a configuration without any other host.

Finding: without a sidecar half of the time is Knative's own, between a function that listens and the activator's first request to it. Where
the activator asks pods themselves (`mesh-compatibility-mode: auto`) it is 0.25 s instead of 0.8, and the whole start 1.0 s (0.98 to 1.08)
instead of 1.5 (1.2 to 2.0); functions under STRICT gain nothing by it.

Finding: of 80 starts without sidecar nine took 11 s: the activator that goes by the Service waits for the pod's readiness, which is asked for
once and then ten seconds later. None of 20 did where the function had a readiness probe of its own, every second; none of 40 where the
activator asked the pod; none of 220 with a sidecar, behind which a function is there when it is first asked.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from clusters.bringup import Testbed
from clusters.components.knative.client import ACTIVATOR, KnativeClient
from suites.support import coldstarts, quantiles
from suites.support.coldstarts import HTTP_OK, ColdStarts, phases
from suites.support.plugin import FOLDER
from workloads.caller.client import Caller
from workloads.fixtures import World
from workloads.greeter import IMAGE as GO
from workloads.greeter_node import IMAGE as NODE
from workloads.greeter_python import IMAGE as PYTHON
from workloads.knative_function import knative_function

Figures = Callable[[str, str], None]


@dataclass(frozen=True)
class Arm:
    """One function of the comparison; `against` is the arm that it is paired with."""

    image: str
    against: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)


def proxy(**settings: str) -> dict[str, str]:
    """Return the annotations of a sidecar's settings: `proxyCPU="500m"` is sidecar.istio.io/proxyCPU."""
    return {f"sidecar.istio.io/{name}": value for name, value in settings.items()}


UNHELD = {"proxy.istio.io/config": "holdApplicationUntilProxyStarts: false"}
ARMS: Mapping[str, Arm] = {
    # The six of the question, then one setting at a time against "go".
    "go-bare": Arm(GO, options={"sidecar": False}),
    "go": Arm(GO, "go-bare"),
    "python-bare": Arm(PYTHON, options={"sidecar": False}),
    "python": Arm(PYTHON, "python-bare"),
    "node-bare": Arm(NODE, options={"sidecar": False}),
    "node": Arm(NODE, "node-bare"),
    "go-container-held": Arm(GO, "go", {"annotations": proxy(nativeSidecar="false")}),
    "go-container-unheld": Arm(GO, "go", {"annotations": {**proxy(nativeSidecar="false"), **UNHELD}}),
    "go-proxy-cpu": Arm(GO, "go", {"annotations": proxy(proxyCPU="500m")}),
    "go-scoped": Arm(GO, "go", {"labels": {"faasmesh.dev/scoped": "true"}}),
    "go-probed": Arm(GO, "go", {"probe": {"httpGet": {"path": "/healthz"}, "periodSeconds": 1}}),
    "go-bare-probed": Arm(GO, "go-bare", {"sidecar": False, "probe": {"httpGet": {"path": "/healthz"}, "periodSeconds": 1}}),
}
# Only what the function itself calls, which is nothing: the proxy's configuration is as small as it can be.
SCOPE = {
    "apiVersion": "networking.istio.io/v1", "kind": "Sidecar", "metadata": {"name": "scoped"},
    "spec": {"workloadSelector": {"labels": {"faasmesh.dev/scoped": "true"}}, "egress": [{"hosts": ["./caller.none"]}]},
}


MODES: Mapping[str, tuple[str, bool]] = {
    # Name: Knative's mesh-compatibility-mode, and whether the namespace takes mutual TLS only.
    "by Service": ("enabled", False), "by pod": ("auto", False), "by pod, STRICT": ("auto", True),
}
STRICT = {"apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication", "metadata": {"name": "strict"}, "spec": {"mtls": {"mode": "STRICT"}}}
NETWORK = ("ConfigMap", "config-network", "knative-serving")


@pytest.fixture
def set_mode(testbed: Testbed, knative: KnativeClient, world: World) -> Iterator[Callable[[str], None]]:
    """Changes how the activator reaches pods; what was set before is set again at the end."""
    if testbed.cluster is None or not testbed.cluster.owned:
        pytest.skip("the activator's configuration is the cluster's, and this cluster is somebody's")

    def change(mode: Mapping[str, str]) -> None:
        found = world.kube.get(*NETWORK)
        metadata = {name: found["metadata"].get(name) or {} for name in ("labels", "annotations")}
        world.kube.apply([{
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": NETWORK[1], "namespace": NETWORK[2], **metadata},
            "data": {**found["data"], **mode},
        }])
        # It is read once, when the activator starts.
        for pod in knative.own_pods(ACTIVATOR):
            world.kube.delete_one("Pod", pod, NETWORK[2], within=120)
        knative.await_own(ACTIVATOR)

    key = "mesh-compatibility-mode"
    before = world.kube.get(*NETWORK)["data"].get(key, "auto")
    yield lambda mode: change({key: mode})
    change({key: before})


@pytest.fixture(scope="module")
def cold_starts(world: World, knative: KnativeClient, caller: Caller) -> Iterator[ColdStarts]:
    """Draws cold starts in the bench's namespace."""
    with ColdStarts(world.kube, knative, caller, world.namespace) as drawing:
        yield drawing


def test_cold_starts(
    world: World, knative: KnativeClient, cold_starts: ColdStarts, figures: Figures, request: pytest.FixtureRequest,
) -> None:
    """Every arm once a round; the first round is thrown away: it warms the node's file cache and nothing else that a cold start has."""
    rounds = request.config.getoption("cold_starts")
    chosen = [name for name in request.config.getoption("cold_start_arms").split(",") if name] or list(ARMS)
    world.kube.apply([SCOPE, *(knative_function(name, world.image(ARMS[name].image), **ARMS[name].options) for name in chosen)], world.namespace)
    for name in chosen:
        knative.await_ready(world.namespace, name)

    drawn: list[dict[str, coldstarts.Start]] = []
    samples = request.config.stash[FOLDER] / "cold_starts.json"
    samples.parent.mkdir(parents=True, exist_ok=True)
    for _ in range(rounds + 1):
        drawn.append({name: cold_starts.draw(name) for name in chosen})
        # Raw, and after every round: whoever interrupts a long measurement keeps what it has.
        samples.write_text(json.dumps(drawn))

    for name in chosen:
        starts = [one[name] for one in drawn[1:]]
        _tell(figures, name, starts)
        if ARMS[name].against in chosen:
            _compare(figures, name, ARMS[name].against, drawn[1:])
    assert coldstarts.all_answered("answered", [start for one in drawn for start in one.values()]).held


def test_how_the_activator_finds_pods(
    world: World, knative: KnativeClient, cold_starts: ColdStarts, set_mode: Callable[[str], None], figures: Figures, request: pytest.FixtureRequest,
) -> None:
    """Each way in two blocks, in an order that is the same from both ends, so that a machine that changes steadily favours none."""
    rounds = max(1, request.config.getoption("cold_starts") // 2)
    names = {name: f"{name}-found" for name in ("go-bare", "go")}
    world.kube.apply([knative_function(found, world.image(GO), **ARMS[name].options) for name, found in names.items()], world.namespace)
    drawn: dict[str, dict[str, list[coldstarts.Start]]] = {mode: {name: [] for name in names} for mode in MODES}
    for mode in (*MODES, *reversed(MODES)):
        setting, strict = MODES[mode]
        set_mode(setting)
        (world.kube.apply if strict else world.kube.delete)([STRICT], world.namespace)
        for found in names.values():
            # Thrown away: the image, a new activator's first request, and a policy that is still on its way.
            cold_starts.draw(knative.await_ready(world.namespace, found).name)
        for _ in range(rounds):
            for name, found in names.items():
                drawn[mode][name].append(cold_starts.draw(found, label=name))
        (request.config.stash[FOLDER] / "cold_starts_by_mode.json").write_text(json.dumps(drawn))

    for mode, by_name in drawn.items():
        for name, starts in by_name.items():
            _tell(figures, f"{name}, found {mode}", starts)
    world.kube.delete([STRICT], world.namespace)


def _tell(figures: Figures, name: str, starts: Sequence[coldstarts.Start]) -> None:
    whole = [start["latency_ms"] for start in starts if start["status"] == HTTP_OK]
    failed = len(starts) - len(whole)
    split = [parts for parts in map(phases, starts) if parts is not None]
    tail = quantiles.estimate(whole, 0.95) if whole else None
    p95 = f"p95 {tail.text()}" if tail is not None and tail.high is not None else f"longest {max(whole, default=0):.0f} ms"
    figures(f"{name}, cold start, median of {len(whole)} (95 %), {failed} failed", f"{quantiles.estimate(whole).text()}, {p95}" if whole else "none")
    if split:
        figures(f"{name}, phases, medians in ms", ", ".join(f"{phase} {quantiles.estimate([one[phase] for one in split]).value:.0f}" for phase in split[0]))


def _compare(figures: Figures, name: str, against: str, drawn: Sequence[Mapping[str, coldstarts.Start]]) -> None:
    pairs = [(one[name], one[against]) for one in drawn if one[name]["status"] == one[against]["status"] == HTTP_OK]
    added = [here["latency_ms"] - there["latency_ms"] for here, there in pairs]
    if added:
        either = min(1.0, 2 * min(quantiles.sign_p_value(added), quantiles.sign_p_value([-one for one in added])))
        figures(f"{name} against {against}, added, median of {len(added)} pairs (95 %)", f"{quantiles.estimate(added).text()}, sign test p = {either:.2g}")
