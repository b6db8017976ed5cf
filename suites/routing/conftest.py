"""The functions of the reference world's routing rows."""

import pytest

from workloads.fixtures import World
from workloads.greeter import greeter
from workloads.zones import ZONES, Zones, zones_of


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
