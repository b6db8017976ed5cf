"""Pods: which of them can still come up, and what the others wait for."""

from typing import Any

import pytest

from clusters.pods import Prognosis, describe
from suites.selftest.clock import FakeClock


def container(waiting: str | None = None, *, message: str = "", restarts: int = 0, ended: dict[str, Any] | None = None) -> dict[str, Any]:
    state: dict[str, Any] = {"waiting": {"reason": waiting, "message": message}} if waiting else {"running": {}}
    return {
        "name": "app",
        "restartCount": restarts,
        "ready": waiting is None,
        "state": state,
        "lastState": {"terminated": ended} if ended else {},
    }


def pod(*containers: dict[str, Any], init: tuple[dict[str, Any], ...] = (), unschedulable: str = "", **metadata: str) -> dict[str, Any]:
    conditions = [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": unschedulable}] if unschedulable else []
    return {
        "metadata": {"name": "greeter-1", "uid": "u1", **metadata},
        "spec": {"containers": [{"name": "app", "image": "greeter:1"}]},
        "status": {
            "phase": "Pending",
            "conditions": conditions,
            "containerStatuses": list(containers),
            "initContainerStatuses": list(init),
        },
    }


@pytest.mark.parametrize(
    "reason",
    ["ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName", "CreateContainerConfigError", "CreateContainerError"],
)
def test_a_container_that_cannot_start_is_hopeless_with_the_kubelets_words(reason: str) -> None:
    why = Prognosis().hopeless([pod(container(reason, message="not found"))])

    assert why
    assert why.startswith(f"pod greeter-1, container app, image greeter:1: {reason}: not found; hint: ")


@pytest.mark.parametrize("reason", ["ContainerCreating", "PodInitializing", "CrashLoopBackOff"])
def test_a_container_that_may_still_start_is_not_hopeless(reason: str) -> None:
    assert Prognosis().hopeless([pod(container(reason, restarts=2))]) is None


def test_a_third_crash_is_one_too_many() -> None:
    ended = {"exitCode": 2, "reason": "Error", "message": "no configuration"}

    why = Prognosis().hopeless([pod(container("CrashLoopBackOff", restarts=3, ended=ended))])

    assert why == (
        "pod greeter-1, container app, image greeter:1: CrashLoopBackOff after 3 restarts, "
        "last exit code 2 (Error): no configuration; hint: read its previous log"
    )


def test_an_init_container_counts_too() -> None:
    assert Prognosis().hopeless([pod(container("PodInitializing"), init=(container("ErrImagePull"),))])


def test_a_pod_is_unschedulable_only_after_half_a_minute() -> None:
    clock = FakeClock(1_000.0)
    prognosis = Prognosis(clock)
    waiting = pod(unschedulable="0/1 nodes are available: 1 Insufficient cpu.")

    assert prognosis.hopeless([waiting]) is None
    clock.sleep(30)
    assert prognosis.hopeless([waiting]) is None
    clock.sleep(1)
    assert prognosis.hopeless([waiting]) == (
        "pod greeter-1: Unschedulable for 31 s: 0/1 nodes are available: 1 Insufficient cpu.; hint: free resources or add a node"
    )


def test_a_pod_that_was_scheduled_in_between_starts_anew() -> None:
    clock = FakeClock()
    prognosis = Prognosis(clock)
    waiting = pod(unschedulable="full")

    prognosis.hopeless([waiting])
    clock.sleep(40)
    assert prognosis.hopeless([pod(container())]) is None
    assert prognosis.hopeless([waiting]) is None


def test_every_pod_is_watched_for_its_own_time() -> None:
    clock = FakeClock()
    prognosis = Prognosis(clock)
    first, second = pod(unschedulable="full"), pod(unschedulable="full", uid="u2", name="greeter-2")

    prognosis.hopeless([first])
    clock.sleep(20)
    prognosis.hopeless([first, second])
    clock.sleep(15)

    assert "greeter-1" in (prognosis.hopeless([first, second]) or "")
    assert prognosis.hopeless([second]) is None


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (pod(container("ContainerCreating")), "pod greeter-1: app ContainerCreating"),
        (pod(container() | {"ready": False}), "pod greeter-1: app runs but is not ready"),
        (pod(unschedulable="full"), "pod greeter-1: unschedulable: full"),
        (pod(), "pod greeter-1: Pending"),
        (pod(container(), deletionTimestamp="now"), "pod greeter-1 is terminating"),
        ({"metadata": {"name": "greeter-1"}}, "pod greeter-1: no status yet"),
    ],
    ids=["creating", "not ready", "unschedulable", "nothing", "terminating", "new"],
)
def test_what_a_pod_waits_for_is_one_line(found: dict[str, Any], said: str) -> None:
    assert describe([found]) == said


def test_ready_pods_are_not_spoken_of() -> None:
    ready = pod(container())
    ready["status"]["conditions"] = [{"type": "Ready", "status": "True"}]

    assert describe([ready]) == ""
