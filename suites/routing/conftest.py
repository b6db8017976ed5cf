"""The functions of the reference world's routing rows."""

import pytest

from workloads.caller.client import Caller
from workloads.fixtures import World
from workloads.greeter import another_front, greeter
from workloads.greeter.client import Greeter
from workloads.zones import ZONES, Zones, zones_of

DEAF_PORT = 8081


@pytest.fixture(scope="module")
def functions(world: World) -> str:
    """The user functions, one version each; returns the address at which the mesh takes their requests.

    Nothing resolves the reference host: like an existing client, the caller connects to a Service and names the host.
    """
    world.deploy({
        f"{version}-user-function": greeter(f"{version}-user-function", version) for version in ("premium", "standard", "backup")
    })
    return "http://standard-user-function/api/users"


@pytest.fixture(scope="module")
def releases(world: World) -> str:
    """Two releases of one function behind one Service; returns the address at which the mesh takes their requests."""
    world.deploy({f"checkout-{release}": greeter(f"checkout-{release}", release, service="checkout-function") for release in ("stable", "candidate")})
    return "http://checkout-function/"


@pytest.fixture(scope="module")
def zones(world: World) -> Zones:
    """How this cluster puts pods into zones; credentials that may not look at nodes place by label."""
    return zones_of(world.kube.list("Node") if world.kube.can("list", "", "nodes") else ())


@pytest.fixture(scope="module")
def zoned_function(world: World, zones: Zones) -> str:
    """One function, a pod in each zone, whose version is the zone; returns the Service's address.

    Its pods drain for longer than their callers need to hear of their end, so that a check may end one.
    """
    world.deploy({
        f"zoned-function-{zone}": zones.place(greeter(f"zoned-function-{zone}", zone, service="zoned-function", drain_s=3), zone)
        for zone in ZONES
    })
    return "http://zoned-function"


@pytest.fixture(scope="module")
def user_function(world: World) -> Greeter:
    """The `user-function` of the rows about connections, beside the mesh: the connections it sees are its callers' proxies' own.

    With a sidecar of its own, what reached it would be that sidecar's connections, and the caller's proxy would spend a TLS
    handshake's time on each, which is a good part of the reference world's connect time-out on a busy machine. Three more Services
    lead to the same pod: two more hosts, and one whose port does not answer at all.
    """
    world.deploy({
        "user-function-v1": [
            *greeter("user-function-v1", "v1", service="user-function", inject=False, env={"DEAF_PORT": str(DEAF_PORT)}),
            another_front("unlimited-function", app="user-function"),
            another_front("multiplexed-function", app="user-function"),
            another_front("deaf-function", app="user-function", port=DEAF_PORT),
        ],
    })
    return Greeter(world.kube, world.namespace, world.pod("user-function-v1"))


@pytest.fixture(scope="module")
def pair(world: World) -> dict[str, str]:
    """Two pods behind each of five Services, one of which fails when a call asks it to; returns version by pod address.

    They have no sidecar: what is judged is done by the caller's proxy alone. The Services are as many clusters there, each with a
    state of its own for each pod.
    """
    hosts = ("pair-function", "tenth-function", "half-function", "all-function", "panicking-function")
    world.deploy({
        "pair-healthy": greeter("pair-healthy", "healthy", service=hosts[0], inject=False),
        "pair-failing": [*greeter("pair-failing", "failing", service=hosts[0], inject=False), *(another_front(host, app=hosts[0]) for host in hosts[1:])],
    })
    pods = world.kube.pods(world.namespace, f"app={hosts[0]}")
    return {pod["status"]["podIP"]: pod["metadata"]["labels"]["version"] for pod in pods if not pod["metadata"].get("deletionTimestamp")}


@pytest.fixture(scope="module")
def standard(world: World, functions: str) -> Greeter:
    """The standard function's own count of what reached it."""
    del functions  # deployed before it is asked
    return Greeter(world.kube, world.namespace, world.pod("standard-user-function"))


@pytest.fixture(scope="module")
def backup(world: World, functions: str) -> Greeter:
    """The backup function's own count of what reached it."""
    del functions  # deployed before it is asked
    return Greeter(world.kube, world.namespace, world.pod("backup-user-function"))


@pytest.fixture(scope="module")
def errand(world: World, caller: Caller) -> Caller:
    """The same caller, whose failed calls are not looked up in its proxy's log: errors that were ordered need no explanation.

    Each draw with failures otherwise waits for the log to be written, a second.
    """
    return Caller(world.kube, world.namespace, caller.pod)
