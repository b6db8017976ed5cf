"""What is scraped in the checks of metrics, and by whom: four functions, and a Prometheus of the namespace's own."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from clusters.bringup import Testbed
from clusters.components.prometheus.client import PrometheusClient
from clusters.manifests import load_manifest
from suites.support.metrics import FOUND, UNLABELLED, UNPORTED
from workloads.fixtures import World
from workloads.observed import observed
from workloads.observed.client import Observed

STANDING = Path(__file__).parent / "standing.yaml"


@pytest.fixture(scope="module")
def scraper(world: World, prometheus: PrometheusClient, testbed: Testbed) -> PrometheusClient:
    """A Prometheus that takes the monitors and rules of this namespace alone; made once for a namespace, and goes with it."""
    def make() -> PrometheusClient:
        made = PrometheusClient(world.kube, prometheus.timeouts, world.namespace, "metrics")
        world.kube.apply(load_manifest(STANDING, namespace=world.namespace, prometheus_image=testbed.upstream_image("prometheus")), world.namespace)
        made.await_ready()
        return made

    return world.kept("prometheus", make)


@pytest.fixture(scope="module")
def functions(world: World) -> Mapping[str, Observed]:
    """The functions by name."""
    world.deploy({
        **{name: observed(name, runtime=runtime) for name, runtime in FOUND.items()},
        UNLABELLED: _front(observed(UNLABELLED), label="another-app"), UNPORTED: _front(observed(UNPORTED), port="http-other"),
    })
    return {name: Observed(world.kube, world.namespace, world.pod(name)) for name in (*FOUND, UNLABELLED, UNPORTED)}


def _front(objects: list[dict[str, Any]], *, label: str = "", port: str = "") -> list[dict[str, Any]]:
    """Give a function's Service another label, or the port by which it is scraped another name."""
    for one in objects:
        if one["kind"] == "Service":
            if label:
                one["metadata"]["labels"]["app"] = label
            if port:
                one["spec"]["ports"][1]["name"] = port
    return objects
