"""The functions that several checks of this area call; each is made once for a namespace and goes with it."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from clusters.components.istio.client import IstioClient
from clusters.components.knative.client import KnativeClient
from clusters.components.knative.manifests import INGRESSES
from clusters.manifests import load_manifest
from suites.support.coldstarts import ColdStarts
from workloads.aws import execution
from workloads.aws.execution import Environment
from workloads.aws.resources import Resources
from workloads.aws.server import Aws
from workloads.caller.client import Caller
from workloads.fixtures import World
from workloads.greeter import IMAGE
from workloads.media import media
from workloads.media.client import Media

# How long a function waits for AWS: an upload is answered when the function that it runs has ended. The mesh's own limits are shorter.
AWS_WITHIN_S = 25.0
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


@pytest.fixture
def cloud(aws: Aws) -> Iterator[Resources]:
    """What a check declares in the account; all of it goes with the check."""
    declared = Resources(aws.account, aws.role)
    try:
        yield declared
    finally:
        declared.remove()


@pytest.fixture
def environments(aws: Aws, cloud: Resources) -> Iterator[Callable[[str, str], Environment]]:
    """Starts execution environments of a declared function, by the function's name and their own; they end with the check."""

    def start(function: str, name: str) -> Environment:
        started = execution.start(aws, function, cloud.code(function), name=name)
        ending.callback(started.end)
        return started

    with ExitStack() as ending:
        yield start


@pytest.fixture(scope="module")
def media_function(world: World, aws: Aws, istio: IstioClient, caller: Caller) -> Media:
    """A function of the mesh that calls AWS, and whose proxy lets out what a Sidecar of the namespace says."""
    keys = aws.keys("media", "s3:PutObject", "lambda:InvokeFunction")
    world.deploy({"media-function": media("media-function", address=aws.server.address, keys=(keys.access_key, keys.secret_key), timeout_s=AWS_WITHIN_S)})
    pod = world.pod("media-function")
    # Its refusals are what is asked for; nobody has to look them up in the caller's log.
    asking = Caller(world.kube, world.namespace, caller.pod)
    return Media(asking, "http://media-function", pod, partial(istio.access_log, world.namespace, pod))
