"""Who calls and who is called in the checks of identities and authorization."""

from collections.abc import Callable, Mapping
from functools import partial

import pytest

from clusters.bringup import Testbed
from clusters.components.istio.client import IstioClient
from clusters.timeouts import Timeouts
from suites.support.permissions import Client, Target
from workloads.caller import caller as caller_objects
from workloads.caller.client import Caller
from workloads.credentials import Holder, short_lived
from workloads.fixtures import World
from workloads.greeter import another_front, greeter
from workloads.greeter.client import Greeter
from workloads.intruder import intruder as intruder_objects


@pytest.fixture(scope="module")
def audited(testbed: Testbed) -> bool:
    """Whether the proxies log what this project's mesh configuration asks them to; somebody's cluster logs as its owner likes."""
    return testbed.cluster is not None and testbed.cluster.owned


@pytest.fixture(scope="module")
def our_log(*, audited: bool) -> None:
    """Say why the log is not looked at where it is not ours."""
    if not audited:
        pytest.skip("what the proxies log, and in which form, is the mesh's own configuration, and this mesh is somebody's")


@pytest.fixture(scope="module")
def elsewhere(worlds: Callable[[str], World]) -> World:
    """Another namespace of the same mesh."""
    return worlds("security-elsewhere").view()


@pytest.fixture(scope="module")
def clients(world: World, elsewhere: World) -> Mapping[str, Client]:
    """Callers by role: the one that may, one with another ServiceAccount, one of the same name elsewhere, and one beside the mesh.

    None of them looks into its proxy's log after a refusal: refusals are what is asked for here.
    """
    world.deploy({
        "function-caller": caller_objects("function-caller", service_account="function-sa"),
        "caller": caller_objects(),
        "intruder": intruder_objects(),
    })
    elsewhere.deploy({"function-caller": caller_objects("function-caller", service_account="function-sa")})

    def client(home: World, name: str, account: str = "") -> Client:
        return Client(Caller(home.kube, home.namespace, home.pod(name)), f"spiffe://cluster.local/ns/{home.namespace}/sa/{account}" if account else "")

    return {
        "function-sa": client(world, "function-caller", "function-sa"),
        "another-sa": client(world, "caller", "caller"),
        "function-sa-elsewhere": client(elsewhere, "function-caller", "function-sa"),
        "intruder": client(world, "intruder"),
    }


@pytest.fixture(scope="module")
def targets(world: World) -> Mapping[str, Target]:
    """The function under policies, by three protocols, and a twin that no policy selects.

    Finding: where several Services lead to one port of a pod, Istio speaks one protocol with it, that of the oldest of them, and which that
    is of Services of one second may change when istiod starts anew. So each protocol has a port of its own.
    """
    world.deploy({
        "user-function": [
            *greeter("user-function", "v1", env={"PORT": "8080,8081,8082"}),
            another_front("user-function-http2", app="user-function", port=8081, protocol="http2"),
            another_front("user-function-grpc", app="user-function", port=8082, protocol="grpc"),
        ],
        "open-function": greeter("open-function", "v1"),
    })
    principal = f"spiffe://cluster.local/ns/{world.namespace}/sa/function-sa"

    def target(host: str, function: str) -> Target:
        return Target(f"http://{host}.{world.namespace}/api/users", Greeter(world.kube, world.namespace, world.pod(function)), principal)

    return {
        "function": target("user-function", "user-function"),
        "over-http2": target("user-function-http2", "user-function"),
        "over-grpc": target("user-function-grpc", "user-function"),
        "open": target("open-function", "open-function"),
    }


@pytest.fixture(scope="module")
def unhurried(world: World) -> Target:
    """A function whose requests under way outlive a change of its policies even on a busy machine, for checks that lose none.

    Finding: what is still under way on an old listener's connections when the proxy's drain duration is over is cut off: 503 with flag UC,
    or half an answer. Our other pods drain for a second, which a stalled call may take.
    """
    world.deploy({"unhurried-function": greeter("unhurried-function", "v1", annotations={"proxy.istio.io/config": "drainDuration: 2s"})})
    return Target(f"http://unhurried-function.{world.namespace}/", Greeter(world.kube, world.namespace, world.pod("unhurried-function")))


@pytest.fixture(scope="module")
def holder(elsewhere: World, istio: IstioClient, timeouts: Timeouts) -> Holder:
    """A caller in another namespace of the mesh, whose certificate is renewed every few seconds; one for the whole area, so that its first has long ended."""
    elsewhere.deploy({"holder": short_lived(caller_objects("holder"), ttl_s=Holder.ttl_s, grace_ratio=Holder.grace_ratio)})
    pod = elsewhere.pod("holder")
    caller = Caller(elsewhere.kube, elsewhere.namespace, pod, access_log=partial(istio.access_log, elsewhere.namespace, pod))
    return elsewhere.kept("holder", lambda: Holder(elsewhere.kube, caller, within=timeouts.propagation))


@pytest.fixture(scope="module")
def renewing_function(world: World, holder: Holder) -> str:
    """A function whose certificate lasts as long as the holder's; returns its pod."""
    world.deploy({"renewing-function": short_lived(greeter("renewing-function", "v1"), ttl_s=holder.ttl_s, grace_ratio=holder.grace_ratio)})
    return world.pod("renewing-function")
