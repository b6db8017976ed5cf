"""What the checks of logs share: functions that write, and where what they write is looked for."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pytest

from clusters.bringup import Testbed
from clusters.components.fluentd.client import FluentdClient
from clusters.components.store.client import StoreClient
from workloads.fixtures import World
from workloads.observed import observed
from workloads.observed.client import CONTAINER, Observed


@dataclass(frozen=True)
class Writer:
    """A function that writes lines, and what the store must say of it."""

    function: Observed
    labels: Mapping[str, str]

    @property
    def of(self) -> dict[str, str]:
        """What its lines are found by."""
        return {"namespace": self.function.namespace, "pod": self.function.pod, "container": CONTAINER}


@pytest.fixture(scope="module")
def ours(testbed: Testbed) -> None:
    """Say why logs are not looked at on somebody's cluster: collectors read the nodes' files, and fill a store that is not installed there."""
    if testbed.cluster is None or not testbed.cluster.owned:
        pytest.skip("collectors read the nodes' own files and fill a store of ours: a cluster of somebody's has neither")


@pytest.fixture(scope="module")
def lines(ours: None, request: pytest.FixtureRequest) -> StoreClient:
    """Where lines are found, once there is a cluster of ours."""
    del ours
    store: StoreClient = request.getfixturevalue("store")
    return store


@pytest.fixture(scope="module")
def collectors(ours: None, world: World, request: pytest.FixtureRequest) -> FluentdClient:
    """What the checks bring their own collectors with; this area's namespace is furnished for them."""
    del ours
    fluentd: FluentdClient = request.getfixturevalue("fluentd")
    world.kept("collectors", lambda: fluentd.furnish(world.namespace))
    return fluentd


@pytest.fixture(scope="module")
def writers(ours: None, world: World, worlds: Callable[[str], World]) -> Callable[..., Writer]:
    """Deploys a function by name, beside the mesh, in this namespace or in one that no collector reads, and returns it."""
    del ours

    def writer(name: str, *, elsewhere: bool = False) -> Writer:
        home = worlds("logging-elsewhere").view() if elsewhere else world
        labels = {"tier": "gold", "app.kubernetes.io/part-of": "faasmesh"}
        home.deploy({name: observed(name, labels=labels, inject=False)})
        return Writer(Observed(home.kube, home.namespace, home.pod(name)), {**labels, "app": name})

    return writer
