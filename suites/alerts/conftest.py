"""Who is alarmed in the checks of alerts: two functions with a caller each, and a receiver."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import pytest

from clusters.bringup import Testbed
from clusters.components.prometheus.client import PrometheusClient
from suites.support.alert_life import LOUD, QUIET, Life, Lives, Recorder
from suites.support.alerts import Times
from suites.support.manifests import Manifests
from suites.support.mutants import Mutant
from workloads.caller import caller as caller_objects
from workloads.caller.client import Caller
from workloads.fixtures import World
from workloads.observed import observed
from workloads.receiver import receiver as receiver_objects
from workloads.receiver.client import Receiver


def _named(objects: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """Give a function's Service a label of its own: all of them share the one by which the reference finds functions."""
    for one in objects:
        if one["kind"] == "Service":
            one["metadata"]["labels"]["function"] = name
    return objects


@pytest.fixture(scope="module")
def alarmed(world: World, prometheus: PrometheusClient) -> World:
    """The namespace with the functions, their callers and the receiver in it."""
    del prometheus  # the operator, which has to be there
    world.deploy({
        # Not the names alone: the operator gives its pods those of its Prometheis under the label by which ours are found.
        **{f"{name}-function": _named(observed(f"{name}-function"), name) for name in (LOUD, QUIET)},
        **{f"{name}-caller": caller_objects(f"{name}-caller") for name in (LOUD, QUIET)},
        "receiver": receiver_objects(),
    })
    return world


@pytest.fixture(scope="module")
def lives() -> Lives:
    """What was recorded for the checks of a file, each of which judges one fact of it."""
    return Lives({})


@pytest.fixture
def life(testbed: Testbed, alarmed: World, lives: Lives, manifests: Manifests, mutant: Mutant | None) -> Life:
    """The whole life of the alert by given times, recorded by the first check that asks for it: `life(times)`."""
    def recorded(times: Times) -> Mapping[str, Any]:
        recorder = Recorder(
            world=alarmed, manifests=manifests, receiver=Receiver(alarmed.kube, alarmed.namespace, alarmed.pod("receiver")), times=times,
            # Without a log: half of what is called here fails on purpose.
            callers={name: Caller(alarmed.kube, alarmed.namespace, alarmed.pod(f"{name}-caller")) for name in (LOUD, QUIET)},
            urls={name: f"http://{name}-function.{alarmed.namespace}/" for name in (LOUD, QUIET)},
            images={f"{name}_image": testbed.upstream_image(name) for name in ("prometheus", "alertmanager")},
        )
        return lives.of(mutant.name if mutant else "", times, partial(recorder.record))

    return recorded
