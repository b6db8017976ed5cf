"""The functions whose speed is looked at: one in the mesh, one beside it."""

import pytest

from workloads.fixtures import World
from workloads.greeter import another_front, greeter
from workloads.greeter.client import Greeter

# The bare function answers on both, one for each of its Services: connections to them can be told apart.
PORTS = (8080, 8082)
DEAF_PORT = 8081
# What the second port of the Services of the bare function leads to: nothing answers there, not even to a SYN.
DEAF_FRONT = {"name": "http-deaf", "port": 81, "targetPort": DEAF_PORT}


@pytest.fixture(scope="module")
def bare(world: World) -> Greeter:
    """A function beside the mesh, behind `user-function` and `default-function`: what it sees of connections is its callers' proxies' own.

    Port 81 of both leads to a port of the pod that answers nothing.
    """
    objects = [
        *greeter("bare", "bare", service="user-function", inject=False, env={"DEAF_PORT": str(DEAF_PORT), "PORT": ",".join(map(str, PORTS))}),
        another_front("default-function", app="user-function", port=PORTS[1]),
    ]
    for one in objects:
        if one["kind"] == "Service":
            one["spec"]["ports"] = [*one["spec"]["ports"], DEAF_FRONT]
    world.deploy({"bare": objects})
    return Greeter(world.kube, world.namespace, world.pod("bare"))


@pytest.fixture(scope="module")
def meshed(world: World) -> Greeter:
    """The same function in the mesh, behind `meshed-function`."""
    world.deploy({"meshed": greeter("meshed", "meshed", service="meshed-function")})
    return Greeter(world.kube, world.namespace, world.pod("meshed"))
