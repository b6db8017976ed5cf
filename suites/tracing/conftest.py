"""Who is traced in this area: a chain of three functions in two languages."""

import pytest

from clusters.bringup import Testbed
from clusters.components.jaeger.client import JaegerClient
from suites.support.tracing import Chain, chain_of, service_names
from workloads.fixtures import World

NAMES = ("first", "second", "third")


@pytest.fixture(scope="session", autouse=True)
def our_mesh(testbed: Testbed) -> None:
    """Say why nothing is traced where the mesh is not ours, before Jaeger is looked for there."""
    if testbed.cluster is None or not testbed.cluster.owned:
        pytest.skip("the tracing providers are the mesh's own configuration, and this mesh is somebody's")


@pytest.fixture(scope="module")
def functions(jaeger: JaegerClient, world: World) -> Chain:
    """A function in Go that calls one in Python that calls one in Go; each forwards what the proxies need to go on with a trace."""
    del jaeger  # installed before the proxies: its Service is what makes their provider known to the mesh
    world.deploy(chain_of(NAMES))
    return Chain("http://first/", service_names(("caller", *NAMES), world.namespace))
