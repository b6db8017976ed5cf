"""Priority: on a full node a pod of a high class takes the place of one of a lower class, and of nobody else."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import pytest

from clusters.bringup import Testbed
from clusters.kube import Kube, Resources
from clusters.waiting import Broken, TimedOut, consistently, eventually
from suites.support.manifests import Manifests
from suites.support.requirements import requirement
from suites.support.verdicting import Decide
from suites.support.verdicts import Claim, Evidence, Verdict
from workloads.fixtures import World

FILLERS = 3
CLASSES = ("faasmesh-high", "faasmesh-patient", "faasmesh-filler")
OURS = "faasmesh.dev/part=priority"
GREETER = "faasmesh.test/faasmesh/greeter:1"
# The scheduler tries a pod within milliseconds; two busy cores take a second.
TRIED_WITHIN_S, RUNS_WITHIN_S, GONE_WITHIN_S = 15.0, 20.0, 30.0
# A function's last pod may answer for as long as its time-out says; then its proxies end.
LEFT_WITHIN_S = 120.0
# Long enough for the scheduler to come back to a pod that it could not place: its first back-off is a second.
WAITS_FOR_S = 3.0
MILLI = 1000


def judge(evidence: Evidence) -> Verdict:
    """Before the high pod comes nobody is placed or evicted, then it runs and one filler is gone, and everybody else is where they were."""
    return Verdict.of(
        waits("control-waits", evidence["waiting"], "control"),
        waits("patient-waits", evidence["waiting"], "patient"),
        runs("high-runs", evidence["high"]),
        evicted("one-filler-is-evicted", evidence["fillers"], evidence["preempted"]),
        unharmed("everybody-else-stays", evidence["others"]),
    )


def waits(name: str, waiting: Mapping[str, Any], who: str) -> Claim:
    """Claim that a pod was tried, found no place for want of processor time, and went on waiting."""
    states = [look[who] for look in waiting]
    placed = [state for state in states if state["node"]]
    if placed:
        return Claim(name, held=False, said=f"{who} was placed on {placed[0]['node']}", expected="no place", got=placed[0]["node"])
    if not states or "Insufficient cpu" not in states[-1]["said"]:
        return Claim(name, held=None, said=f"nothing shows that the node was full: {states[-1]['said'] if states else 'nobody looked'}")
    return Claim(name, held=True, said=f"{who} found no place: {states[-1]['said']}")


def runs(name: str, state: Mapping[str, Any]) -> Claim:
    """Claim that the high pod was placed and runs."""
    if state["running"]:
        return Claim(name, held=True, said=f"high runs on {state['node']}")
    if state["node"]:
        return Claim(name, held=None, said=f"high was placed on {state['node']} and does not run yet: {state['said']}")
    return Claim(name, held=False, said=f"high was not placed: {state['said']}", expected="a running pod", got="no place")


def evicted(name: str, fillers: Mapping[str, Sequence[str]], preempted: Sequence[str]) -> Claim:
    """Claim that exactly one filler had to go, and that the scheduler itself says so."""
    gone = sorted(set(fillers["before"]) - set(fillers["after"]))
    said = f"of {len(fillers['before'])} fillers went {', '.join(gone) or 'none'}; the scheduler says it preempted {', '.join(preempted) or 'none'}"
    if len(fillers["before"]) != FILLERS:
        return Claim(name, held=None, said=said)
    return Claim(name, len(gone) == 1 and list(preempted) == gone, said, expected="one filler", got=f"{len(gone)} gone, {len(preempted)} preempted")


def unharmed(name: str, others: Mapping[str, Sequence[str]]) -> Claim:
    """Claim that every pod of the cluster that is none of this check's is still there."""
    gone = sorted(set(others["before"]) - set(others["after"]))
    if not others["before"]:
        return Claim(name, held=None, said="nobody else was there")
    return Claim(name, not gone, f"{len(others['before'])} other pods, of which went {', '.join(gone) or 'none'}", expected="none gone", got=", ".join(gone))


@pytest.fixture(scope="module")
def room(testbed: Testbed, kube: Kube) -> tuple[str, int]:
    """A node of ours that takes any pod; returns its name and a third of what is free on it, in thousandths of a core."""
    if testbed.cluster is None or not testbed.cluster.owned:
        pytest.skip("fills a node and makes classes of the whole cluster, which is somebody's")
    node = next(one for one in kube.list("Node") if not one["spec"].get("taints"))
    name = str(node["metadata"]["name"])

    def settled() -> Resources:
        there = [pod for pod in kube.list("Pod", fields=f"spec.nodeName={name}") if pod["status"]["phase"] not in ("Succeeded", "Failed")]
        leaving = [str(pod["metadata"]["name"]) for pod in there if "deletionTimestamp" in pod["metadata"]]
        assert not leaving, f"on their way out: {', '.join(leaving)}"
        return there

    # What a check before this one has left would make room later, in which the control finds its place.
    there = eventually(settled, within=LEFT_WITHIN_S, subject=f"pods on node {name}")
    free = milli(node["status"]["allocatable"]["cpu"]) - sum(asked_for(pod["spec"]) for pod in there)
    return name, free // FILLERS


@pytest.fixture
def classes(room: tuple[str, int], world: World) -> Iterator[None]:
    """Nothing of this check's is left in the cluster, before it and after it: classes belong to no namespace that a run removes."""
    del room  # on a cluster of ours only

    def clear() -> None:
        world.kube.delete([{"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}} for name in ("filler", "control", "patient", "high")], world.namespace)
        eventually(lambda: none_of(world.kube.pods(world.namespace, OURS)), within=GONE_WITHIN_S, every=0.1, subject="pods of the check not gone")
        for name in CLASSES:
            world.kube.delete_one("scheduling.k8s.io/v1/PriorityClass", name)

    clear()
    yield
    clear()


# Pods fill the node, and leave it.
@pytest.mark.slow
@requirement("performance.priority", level="MUST", judge=judge, alone=True)
def test_the_high_class_preempts_under_pressure(
    classes: None, room: tuple[str, int], world: World, manifests: Manifests, decide: Decide,
) -> None:
    """On a full node, a pod of priority class 1000000 takes the place of exactly one pod of a lower class, where one without that right waits.

    Fillers of a class below 0 take all that is free, in three parts: only they can be evicted, since pods without a class have priority
    0. The high pod asks for one part. It goes on alone: meanwhile no other pod would find a place.
    """
    node, share = room
    manifests.apply("priority.yaml", node=node, cpu=f"{share}m", image=world.image(GREETER))
    scale(world, filler=FILLERS)
    world.kube.wait_deployment(world.namespace, "filler", GONE_WITHIN_S)
    before, others = names(world, "filler"), elsewhere(world)

    scale(world, control=1, patient=1)
    waiting = watch(world)
    scale(world, control=0, patient=0)
    await_none(world, "control", "patient")
    scale(world, high=1)
    high = await_running(world)

    decide(
        waiting=waiting, high=high, fillers={"before": before, "after": names(world, "filler")}, others={"before": others, "after": elsewhere(world)},
        preempted=sorted({event["involvedObject"]["name"] for event in world.kube.events(world.namespace) if event["reason"] == "Preempted" and event["involvedObject"]["name"] in before}),
    )


def milli(amount: str) -> int:
    """Return an amount of processor time in thousandths of a core, as the scheduler counts it."""
    return int(amount[:-1]) if amount.endswith("m") else round(float(amount) * MILLI)


def asked_for(spec: Mapping[str, Any]) -> int:
    """Return what a pod asks for (Kubernetes documentation, Init Containers and Sidecar Containers, resource sharing), in thousandths of a core.

    Containers that run side by side, sidecars among the init containers included, add up; of those that run before them the largest counts.
    """
    def of(container: Mapping[str, Any]) -> int:
        return milli(str(container.get("resources", {}).get("requests", {}).get("cpu", "0")))

    beside, largest = 0, 0
    for container in spec.get("initContainers", ()):
        sidecar = container.get("restartPolicy") == "Always"
        largest = max(largest, beside + of(container))
        beside += of(container) if sidecar else 0
    return max(largest, beside + sum(of(container) for container in spec["containers"])) + milli(str(spec.get("overhead", {}).get("cpu", "0")))


def scale(world: World, **replicas: int) -> None:
    """Ask for so many pods of each Deployment."""
    for name, count in replicas.items():
        world.kube.scale(world.namespace, name, count)


def names(world: World, app: str) -> list[str]:
    """Return the pods of a Deployment that are placed and not on their way out."""
    pods = world.kube.pods(world.namespace, f"app={app},{OURS}")
    return sorted(pod["metadata"]["name"] for pod in pods if pod["spec"].get("nodeName") and not pod["metadata"].get("deletionTimestamp"))


def elsewhere(world: World) -> list[str]:
    """Return every pod of the cluster that is none of this check's and that nobody is about to delete, with its namespace or without."""
    going = {one["metadata"]["name"] for one in world.kube.list("Namespace") if one["metadata"].get("deletionTimestamp")}
    there = [pod["metadata"] for pod in world.kube.list("Pod", selector="!" + OURS.partition("=")[0])]
    return sorted(f"{one['namespace']}/{one['name']}" for one in there if not one.get("deletionTimestamp") and one["namespace"] not in going)


def state(world: World, app: str) -> dict[str, Any]:
    """Return where a Deployment's pod is, whether it runs, and what the scheduler says of it."""
    found: Mapping[str, Any] = next(iter(world.kube.pods(world.namespace, f"app={app},{OURS}")), {})
    conditions = {one["type"]: one for one in found.get("status", {}).get("conditions", ())}
    return {
        "node": found.get("spec", {}).get("nodeName", ""), "running": conditions.get("Ready", {}).get("status") == "True",
        "said": str(conditions.get("PodScheduled", {}).get("message", "")),
    }


def watch(world: World) -> list[dict[str, Any]]:
    """Look at the pods that are to wait, until the scheduler has spoken of both and for a while afterwards."""
    looks: list[dict[str, Any]] = []

    def look() -> None:
        looks.append({name: state(world, name) for name in ("control", "patient")})
        assert all(one["said"] or one["node"] for one in looks[-1].values()), "not tried yet"

    def still() -> None:
        look()
        assert not any(one["node"] for one in looks[-1].values()), "placed"

    with suppress(TimedOut, Broken):
        eventually(look, within=TRIED_WITHIN_S, every=0.1, subject="the scheduler has not tried the waiting pods")
        consistently(still, during=WAITS_FOR_S, every=0.5, subject="the waiting pods are placed")
    return looks


def await_none(world: World, *apps: str) -> None:
    """Wait until no pod of some Deployments is left."""
    eventually(
        lambda: none_of(world.kube.pods(world.namespace, f"app in ({','.join(apps)}),{OURS}")), within=GONE_WITHIN_S, every=0.1, subject=f"pods of {', '.join(apps)} not gone",
    )


def await_running(world: World) -> dict[str, Any]:
    """Give the high pod time to run; return how it stands then."""
    def running() -> None:
        assert (now := state(world, "high"))["running"], now["said"]

    with suppress(TimedOut):
        eventually(running, within=RUNS_WITHIN_S, every=0.1, subject="the high pod does not run")
    return state(world, "high")


def none_of(pods: Sequence[object]) -> None:
    """Say how many are left, for a wait."""
    assert not pods, f"{len(pods)} left"


