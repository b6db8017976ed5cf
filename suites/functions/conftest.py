"""The functions that several checks of this area call; each is made once for a namespace and goes with it."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

import pytest

from clusters.components.istio.client import IstioClient
from clusters.components.knative.client import KnativeClient
from clusters.components.knative.manifests import INGRESSES
from clusters.components.openfaas.client import Api, OpenFaasClient, function_url
from clusters.components.openfaas.manifests import GATEWAY
from clusters.components.openfaas.manifests import NAMESPACE as OPENFAAS
from clusters.manifests import load_manifest
from clusters.timeouts import Timeouts
from clusters.waiting import eventually
from suites.support.coldstarts import ColdStarts
from workloads.aws import execution
from workloads.aws.execution import Environment
from workloads.aws.resources import Resources
from workloads.aws.server import Aws
from workloads.caller.client import Caller
from workloads.fixtures import World
from workloads.greeter import IMAGE
from workloads.image_processor import IMAGE as PROCESSOR
from workloads.media import media
from workloads.media.client import Media
from workloads.openfaas_gateway import CallerDoor, await_answered

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


@pytest.fixture(scope="module")
def processor_image(world: World) -> str:
    """The image of OpenFaaS's functions, as this cluster pulls it: what it does with a request is said by each function's handler."""
    return world.image(PROCESSOR)


@pytest.fixture(scope="module")
def faas(world: World, openfaas: OpenFaasClient) -> OpenFaasClient:
    """OpenFaaS, which looks after functions in this area's namespace too."""
    if not openfaas.everywhere():
        pytest.skip("OpenFaaS's operator here looks after functions of one namespace only, and a check's are in the run's own")
    openfaas.serve(world.namespace)
    return openfaas


@pytest.fixture(scope="module")
def faas_api(world: World, faas: OpenFaasClient, caller: Caller) -> Api:
    """The API of OpenFaaS's gateway for functions of this area's namespace, by somebody whom it knows."""
    credentials = faas.credentials()
    if credentials is None:
        pytest.skip("the credentials of OpenFaaS's gateway may not be read here")
    return Api(CallerDoor(caller), world.namespace, credentials)


@pytest.fixture(autouse=True)
def removed(request: pytest.FixtureRequest, timeouts: Timeouts) -> Iterator[None]:
    """Leave nothing of a check's functions to the next check: one of the same name would be given up (`OpenFaasClient.await_removed`).

    For every check, because what is asked for first is taken down last, behind the check's manifests.
    """
    yield
    if "faas" in request.fixturenames:
        # Where OpenFaaS is somebody's and the check was not run, nothing is left.
        with suppress(pytest.skip.Exception):
            request.getfixturevalue("faas").await_removed(request.getfixturevalue("world").namespace, within=timeouts.namespace_gone)


Served = Callable[..., None]


@pytest.fixture(scope="module")
def served(world: World, faas: OpenFaasClient, caller: Caller, timeouts: Timeouts) -> Served:
    """Wait for functions of OpenFaaS: `served("a", "b")` returns when their pods are there and the gateway leads to them."""

    def wait(*names: str) -> None:
        for name in names:
            faas.await_ready(world.namespace, name)
        world.use(*names)
        await_answered(caller, *(function_url(name, world.namespace) for name in names), within=timeouts.propagation)

    return wait


@pytest.fixture(scope="module")
def at_gateway(faas: OpenFaasClient, istio: IstioClient, timeouts: Timeouts) -> Callable[[str], None]:
    """Wait for routes at the proxy of OpenFaaS's gateway: `at_gateway("name")` returns when it holds a route of that name."""

    def wait(route: str) -> None:
        def held() -> None:
            for pod in faas.own_pods(GATEWAY):
                assert route in istio.routes_dump(OPENFAAS, pod), f"{pod} holds no route {route}"

        eventually(held, within=timeouts.propagation, every=0.2, subject=f"route {route} not at OpenFaaS's gateway")

    return wait
