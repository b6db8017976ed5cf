"""Session fixtures: the testbed, its API, and one fixture per component."""

import secrets
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import cast

import pytest

from clusters.bringup import Options, Testbed
from clusters.components.istio.client import IstioClient
from clusters.components.registry import NAMES
from clusters.errors import EXIT_USAGE, UserError
from clusters.kube import Kube
from clusters.timeouts import Timeouts

RUN_LABEL = "faasmesh.dev/run"
TESTBED = pytest.StashKey[Testbed]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of a cluster; --cluster-name, --keep-cluster and --kubeconfig are pytest-kind's own."""
    group = parser.getgroup("faasmesh", "faasmesh: the cluster under test")
    group.addoption("--cluster", choices=("kind", "existing"), default="kind", help="a throw-away kind cluster, or the one behind --kubeconfig")
    group.addoption("--context", default=None, help="context of the kubeconfig, with --cluster=existing")
    group.addoption("--nodes", type=int, default=1, help="nodes of the kind cluster: 1, or 3 with one zone label each")
    group.addoption("--gateway-port", type=int, default=0, help="loopback port of the ingress gateway; 0 takes any that is free")
    group.addoption(
        "--images", choices=("auto", "published", "source"), default="auto",
        help="published: pull the pinned upstream images; source: build them here from language packages; auto: ask whether a registry answers",
    )
    group.addoption("--components", default=",".join(NAMES), help="components whose images are made ready before the run (comma-separated)")
    group.addoption("--workload-images", default=None, metavar="PREFIX", help="where an existing cluster pulls the workload images from")
    group.addoption("--timeout-factor", type=float, default=1.0, metavar="F", help="multiply every time limit, for a machine slower than two cores")
    group.addoption("--prepare-host", choices=("auto", "never"), default="auto", help="whether a Debian host may be prepared where this runs as root")


def options_of(config: pytest.Config) -> Options:
    """Return the cluster options of a pytest run."""
    kubeconfig = config.getoption("kubeconfig")
    return Options(
        cluster=config.getoption("cluster"),
        name=config.getoption("cluster_name"),
        kubeconfig=Path(kubeconfig).expanduser() if kubeconfig else None,
        context=config.getoption("context"),
        nodes=config.getoption("nodes"),
        gateway_port=config.getoption("gateway_port"),
        keep=bool(config.getoption("keep_cluster")),
        images=config.getoption("images"),
        components=tuple(name.strip() for name in config.getoption("components").split(",") if name.strip()),
        prepare_host=config.getoption("prepare_host"),
        workload_images=config.getoption("workload_images"),
    )


def _uncaptured(config: pytest.Config) -> AbstractContextManager[None]:
    """Let what happens be seen: bringing up a cluster takes longer than a person waits in silence."""
    shown: AbstractContextManager[None] = config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled()
    return shown


@contextmanager
def _before_the_person(config: pytest.Config) -> Iterator[None]:
    """Let the block be seen, and end the run with one line where the person has to change something."""
    with _uncaptured(config):
        try:
            yield
        except UserError as error:
            pytest.exit(str(error), returncode=EXIT_USAGE)


@pytest.fixture(scope="session")
def timeouts(request: pytest.FixtureRequest) -> Timeouts:
    """How long each thing may take."""
    return Timeouts().scaled(request.config.getoption("timeout_factor"))


@pytest.fixture(scope="session")
def run_id() -> str:
    """The name that this run puts on everything it creates."""
    return secrets.token_hex(4)


@pytest.fixture(scope="session")
def testbed(request: pytest.FixtureRequest, timeouts: Timeouts) -> Iterator[Testbed]:
    """The cluster, brought up on first use and taken down at the end unless it is kept."""
    bed = Testbed(options_of(request.config), timeouts)
    request.config.stash[TESTBED] = bed
    try:
        with _before_the_person(request.config):
            bed.bring_up()
        yield bed
    finally:
        with _uncaptured(request.config):
            bed.close()


@pytest.fixture(scope="session")
def kube(testbed: Testbed, run_id: str, timeouts: Timeouts) -> Iterator[Kube]:
    """The API server. What the run created is removed by its label at the end, whatever happened."""
    api = cast("Kube", testbed.kube)
    # A run that was killed leaves its namespaces behind; on a cluster of ours nobody else can need them.
    if testbed.cluster is not None and testbed.cluster.owned:
        api.delete_namespaces(RUN_LABEL, wait=False)
    yield api
    api.delete_namespaces(f"{RUN_LABEL}={run_id}", wait=testbed.cluster is None or not testbed.cluster.owned, within=timeouts.namespace_gone)


@pytest.fixture(scope="session")
def istio(testbed: Testbed, kube: Kube, timeouts: Timeouts, request: pytest.FixtureRequest) -> IstioClient:
    """Istio, installed on first use."""
    with _before_the_person(request.config):
        testbed.require(("istio",))
    return IstioClient(kube, timeouts)
