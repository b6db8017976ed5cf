"""The functions of the reference world's routing rows."""

import pytest

from workloads.fixtures import World
from workloads.greeter import greeter


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
