"""The functions that several checks of this area call; each is made once for a namespace and goes with it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from clusters.components.knative.client import KnativeClient
from clusters.components.knative.manifests import INGRESSES
from clusters.manifests import load_manifest
from suites.support.coldstarts import ColdStarts
from workloads.caller.client import Caller
from workloads.fixtures import World
from workloads.greeter import IMAGE

STANDING = Path(__file__).parent / "standing.yaml"


@pytest.fixture(scope="module")
def greeter_image(world: World) -> str:
    """The sample function's image, as this cluster pulls it."""
    return world.image(IMAGE)


@pytest.fixture(scope="module")
def knative_ingress(knative: KnativeClient) -> str:
    """What programs the mesh for Knative here, for checks of what it does with a request on its way to a function.

    Finding: `gateway-api` leads every caller to the gateway, which leads on to the function. `istio` tells the proxies of the mesh as well:
    a caller that has one goes to the function, or to the activator, without a gateway between.
    """
    name = knative.ingress()
    if name not in INGRESSES:
        pytest.skip(f"Knative's ingress here is {name}; what is declared is of {' and '.join(INGRESSES)}")
    return name


@pytest.fixture(scope="module")
def standing(world: World, knative: KnativeClient, greeter_image: str) -> dict[str, str]:
    """Two functions that keep a pod each; returns the names of their revisions.

    `relayed` is always called by way of the activator, `direct` never while it has a pod: what differs between them is the activator's doing.
    """
    world.kube.apply(load_manifest(STANDING, image=greeter_image), world.namespace)
    world.use("relayed", "direct")
    return {name: knative.await_ready(world.namespace, name).latest_ready for name in ("relayed", "direct")}


@pytest.fixture
def cold_starts(world: World, knative: KnativeClient, caller: Caller) -> Iterator[ColdStarts]:
    """Draws cold starts in this area's namespace, and listens to its pods and events."""
    with ColdStarts(world.kube, knative, caller, world.namespace) as drawing:
        yield drawing
