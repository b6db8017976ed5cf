"""Session fixtures: the testbed, its API, and one fixture per component."""

import secrets
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, cast

import pytest
from filelock import FileLock

from clusters.bringup import Options, Testbed
from clusters.components.fluentd.client import FluentdClient
from clusters.components.istio.client import IstioClient
from clusters.components.jaeger.client import JaegerClient
from clusters.components.jaeger_operator.client import JaegerOperatorClient
from clusters.components.knative.client import KnativeClient
from clusters.components.knative.manifests import GATEWAY_API, INGRESSES
from clusters.components.openfaas.client import OpenFaasClient
from clusters.components.prometheus import manifests as monitoring
from clusters.components.prometheus.client import PrometheusClient
from clusters.components.registry import NAMES
from clusters.components.store.client import StoreClient
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
    group.addoption(
        "--knative-ingress", choices=tuple(INGRESSES), default=GATEWAY_API.name,
        help="what programs the mesh for Knative: net-gateway-api, or net-istio; an existing cluster has its own",
    )
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
        knative_ingress=config.getoption("knative_ingress"),
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
            leave(config, error)


def leave(config: pytest.Config, error: UserError) -> NoReturn:
    """End the run with one line for the person, from whichever of its processes noticed."""
    if worker_of(config):
        config.workeroutput["faasmesh_refused"] = str(error)  # type: ignore[attr-defined]  # xdist's
    pytest.exit(str(error), returncode=EXIT_USAGE)


@pytest.fixture(scope="session")
def timeouts(request: pytest.FixtureRequest) -> Timeouts:
    """How long each thing may take."""
    return Timeouts().scaled(request.config.getoption("timeout_factor"))


@pytest.fixture(scope="session")
def run_id(request: pytest.FixtureRequest) -> str:
    """The name that this run puts on everything it creates; the same in every process of the run."""
    return _shared(request.config).run_id


@pytest.fixture(scope="session")
def testbed(request: pytest.FixtureRequest, timeouts: Timeouts) -> Iterator[Testbed]:
    """The cluster, brought up on first use and taken down at the end unless it is kept.

    In a run of several processes the first of them does both, and the others attach.
    """
    shared = _shared(request.config)
    if worker_of(request.config):
        bed = Testbed.attached(options_of(request.config), timeouts, shared.folder)
        request.config.stash[TESTBED] = bed
        yield bed
        return
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
def kube(testbed: Testbed, run_id: str, timeouts: Timeouts, request: pytest.FixtureRequest) -> Iterator[Kube]:
    """The API server. What the run created is removed by its label at the end, whatever happened."""
    api = cast("Kube", testbed.kube)
    if worker_of(request.config):
        yield api
        return
    _remove_leftovers(testbed, api)
    yield api
    _remove_own(testbed, api, run_id, timeouts)


@pytest.fixture(scope="session")
def istio(testbed: Testbed, kube: Kube, timeouts: Timeouts, request: pytest.FixtureRequest) -> IstioClient:
    """Istio, installed on first use."""
    with _before_the_person(request.config):
        testbed.require(("istio",))
    return IstioClient(kube, timeouts)


@pytest.fixture(scope="session")
def knative(testbed: Testbed, kube: Kube, timeouts: Timeouts, request: pytest.FixtureRequest) -> KnativeClient:
    """Knative Serving on Istio, installed on first use."""
    with _before_the_person(request.config):
        testbed.require(("knative",))
    client = KnativeClient(kube, timeouts)
    if testbed.cluster is not None and not testbed.cluster.owned:
        testbed.detected["knative-ingress"] = client.ingress()
    return client


@pytest.fixture(scope="session")
def openfaas(testbed: Testbed, kube: Kube, timeouts: Timeouts, request: pytest.FixtureRequest) -> OpenFaasClient:
    """OpenFaaS in the mesh, installed on first use."""
    with _before_the_person(request.config):
        testbed.require(("openfaas",))
    return OpenFaasClient(kube, timeouts)


@pytest.fixture(scope="session")
def jaeger(testbed: Testbed, kube: Kube, request: pytest.FixtureRequest) -> JaegerClient:
    """Jaeger 2 beside the mesh, installed on first use."""
    with _before_the_person(request.config):
        testbed.require(("jaeger",))
    return JaegerClient(kube)


@pytest.fixture(scope="session")
def jaeger_operator(testbed: Testbed, kube: Kube, timeouts: Timeouts, request: pytest.FixtureRequest) -> JaegerOperatorClient:
    """The Jaeger operator, installed on first use."""
    with _before_the_person(request.config):
        testbed.require(("jaeger-operator",))
    return JaegerOperatorClient(kube, timeouts)


@pytest.fixture(scope="session")
def prometheus(testbed: Testbed, kube: Kube, timeouts: Timeouts, request: pytest.FixtureRequest) -> PrometheusClient:
    """Prometheus's operator, installed on first use, and the instance for whoever has none of its own; an existing cluster may have the operator alone."""
    with _before_the_person(request.config):
        testbed.require(("prometheus",))
    return PrometheusClient(kube, timeouts, monitoring.NAMESPACE, monitoring.SHARED)


@pytest.fixture(scope="session")
def store(testbed: Testbed, kube: Kube, timeouts: Timeouts, request: pytest.FixtureRequest) -> StoreClient:
    """The log store, installed on first use."""
    with _before_the_person(request.config):
        testbed.require(("store",))
    return StoreClient(kube, timeouts)


@pytest.fixture(scope="session")
def fluentd(testbed: Testbed, kube: Kube, timeouts: Timeouts, request: pytest.FixtureRequest) -> FluentdClient:
    """The nodes' own Fluentd and the store that it fills, installed on first use; and what a check needs to bring one of its own."""
    with _before_the_person(request.config):
        testbed.require(("fluentd",))
    return FluentdClient(kube, timeouts, testbed.upstream_image("fluentd"))


@pytest.fixture
def otlp_collector(request: pytest.FixtureRequest) -> Iterator[None]:
    """The name that the mesh's OTLP provider sends spans to, for the one check that says where it leads.

    Finding: the mesh's configuration names a host and no namespace. While two namespaces have a ServiceEntry of that host, whoever else may
    see them, Istio refuses to choose (LookupCluster, "in multiple namespaces") and configures no tracing for either, which istiod's log alone tells.
    """
    with FileLock(_shared(request.config).folder / "otlp-collector.lock"):
        yield


def _remove_leftovers(testbed: Testbed, api: Kube) -> None:
    # A run that was killed leaves its namespaces behind; on a cluster of ours nobody else can need them.
    if testbed.cluster is not None and testbed.cluster.owned:
        api.delete_namespaces(RUN_LABEL, wait=False)


def _remove_own(testbed: Testbed, api: Kube, run_id: str, timeouts: Timeouts) -> None:
    api.delete_namespaces(f"{RUN_LABEL}={run_id}", wait=testbed.cluster is None or not testbed.cluster.owned, within=timeouts.namespace_gone)


# A run of several processes (pytest-xdist): the first of them brings up the cluster once the others know that there is
# something to run on it, they attach to it, and what they made is removed when the last of them has ended.


@dataclass(frozen=True)
class Shared:
    """What the processes of one run have in common: its name, and a folder in which they leave word for each other."""

    run_id: str
    folder: Path


SHARED = pytest.StashKey[Shared]()


def worker_of(config: pytest.Config) -> str:
    """Return the name of this process among those of a parallel run (`gw0`), empty in any other."""
    return str(getattr(config, "workerinput", {}).get("workerid", ""))


def _shared(config: pytest.Config) -> Shared:
    if SHARED not in config.stash:
        told = getattr(config, "workerinput", {}).get("faasmesh")
        config.stash[SHARED] = Shared(told["run_id"], Path(told["folder"])) if told else Shared(secrets.token_hex(4), Path(tempfile.mkdtemp(prefix="faasmesh-")))
    return config.stash[SHARED]


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:  # noqa: ANN401  # xdist publishes no types
    """Tell a worker whose run it is part of."""
    shared = _shared(node.config)
    node.workerinput["faasmesh"] = {"run_id": shared.run_id, "folder": str(shared.folder)}


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished(node: Any, ids: Sequence[str]) -> None:  # noqa: ANN401  # xdist publishes no types
    """Bring up the cluster as soon as one worker knows of a check; no worker begins before this returns."""
    config: pytest.Config = node.config
    if TESTBED in config.stash or all(one.startswith("suites/selftest/") for one in ids):
        return
    timeouts = Timeouts().scaled(config.getoption("timeout_factor"))
    bed = config.stash[TESTBED] = Testbed(options_of(config), timeouts)
    with _before_the_person(config):
        bed.bring_up()
    _remove_leftovers(bed, cast("Kube", bed.kube))
    bed.invite(_shared(config).folder)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Take down what the first process of a parallel run brought up; the workers have ended by now."""
    config = session.config
    if worker_of(config):
        return
    if config.getoption("numprocesses", None) and TESTBED in config.stash:
        bed = config.stash[TESTBED]
        try:
            if bed.kube is not None:
                _remove_own(bed, bed.kube, _shared(config).run_id, bed.timeouts)
        finally:
            with _uncaptured(config):
                bed.close()
    if SHARED in config.stash:
        shutil.rmtree(config.stash[SHARED].folder, ignore_errors=True)
