"""Fixtures for what runs on the cluster: one namespace an area, and the clients in it."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import pytest

from clusters.bringup import Testbed
from clusters.components.istio.client import IstioClient
from clusters.fixtures import RUN_LABEL, worker_of
from clusters.kube import Kube
from clusters.pods import state_of
from clusters.timeouts import Timeouts
from workloads.aws import server
from workloads.aws.server import Aws
from workloads.caller import caller as caller_objects
from workloads.caller.client import Caller
from workloads.deploy import deploy
from workloads.greeter import INSTANCE
from workloads.ingress import InClusterIngress, Ingress, LoopbackIngress
from workloads.intruder import intruder as intruder_objects
from workloads.load.generator import Load, load

Objects = list[dict[str, Any]]
Made = TypeVar("Made")


@dataclass
class World:
    """One namespace of the run with sidecar injection, what has been deployed to it, and what of it one file of checks uses.

    Pods start once and serve every check of an area; a check changes the mesh around them, never them. Each file has a view
    of its own: it waits for the proxies of the pods that it asked for, not for those of its neighbours.
    """

    kube: Kube
    timeouts: Timeouts
    namespace: str
    image: Callable[[str], str]
    _deployed: set[str] = field(default_factory=set)
    _used: set[str] = field(default_factory=set)
    _ended_on_purpose: set[str] = field(default_factory=set)
    _kept: dict[str, Any] = field(default_factory=dict)
    _removed: list[str] = field(default_factory=list)
    _without: dict[str, int] = field(default_factory=dict)

    def view(self) -> "World":
        """Return the same namespace for another file of checks, which uses nothing of it yet."""
        return replace(self, _used=set())

    def deploy(self, functions: Mapping[str, Objects]) -> None:
        """Deploy what is not there yet and wait for all of it together: pods start side by side.

        Keys are the names of the Deployments.
        """
        self._used.update(functions)
        new = [one for name, objects in functions.items() if name not in self._deployed for one in objects]
        if new:
            deploy(self.kube, self.namespace, [self._prepared(one) for one in new], within=self.timeouts.deployment_available)
            self._deployed.update(functions)

    def redeploy(self, functions: Mapping[str, Objects]) -> None:
        """Deploy as these objects say whatever is there, and return when no pod of an earlier template is left; those end on purpose."""
        self._ended_on_purpose.update(str(pod["metadata"]["name"]) for pod in self._pods(*functions))
        self._used.update(functions)
        deploy(self.kube, self.namespace, [self._prepared(one) for objects in functions.values() for one in objects], within=self.timeouts.deployment_available)
        self._deployed.update(functions)

    def kept(self, name: str, make: Callable[[], Made]) -> Made:
        """Return what `make` returned when it was first asked for under this name: it lasts as long as the namespace."""
        if name not in self._kept:
            self._kept[name] = make()
        made: Made = self._kept[name]
        return made

    def removed(self, kinds: Iterable[str]) -> None:
        """Take note that configuration of these kinds was removed, which no proxy may have heard of yet."""
        self._removed.extend(kinds)

    def leaving(self, pods: Iterable[str]) -> set[str]:
        """Return the kinds of removed configuration that the proxy of one of `pods` may still hold."""
        return set(self._removed[min((self._without.get(pod, 0) for pod in pods), default=len(self._removed)):])

    def left(self, pods: Iterable[str]) -> None:
        """Take note that the proxies of `pods` hold nothing any more of what was removed before."""
        self._without.update(dict.fromkeys(pods, len(self._removed)))

    def use(self, *names: str) -> None:
        """Count pods among those in use that somebody else makes, such as Knative, and whose label INSTANCE is one of `names`."""
        self._used.update(names)

    def scale(self, name: str, replicas: int) -> None:
        """Ask for that many pods of a Deployment of ours and return at once: a draw may want to see them come and go.

        Where fewer are asked for, those that there are may end on purpose.
        """
        pods = [str(pod["metadata"]["name"]) for pod in self._pods(name)]
        if replicas < len(pods):
            self._ended_on_purpose.update(pods)
        self.kube.scale(self.namespace, name, replicas)

    def await_scaled(self, name: str) -> None:
        """Return once a Deployment has the pods that were asked for last; raises what `Kube.wait_deployment` raises."""
        self.kube.wait_deployment(self.namespace, name, self.timeouts.deployment_available)

    def pod(self, name: str) -> str:
        """Return the name of the running pod of a Deployment."""
        return str(next(pod for pod in self._pods(name) if not pod["metadata"].get("deletionTimestamp"))["metadata"]["name"])

    def state(self) -> dict[str, Any]:
        """Return what disturbs a draw when it changes.

        `pods` holds, by uid, every pod in use (see `clusters.pods.state_of`); `ended_on_purpose` the names of those that
        `scale` has ended.
        """
        pods = {str(pod["metadata"]["uid"]): state_of(pod) for pod in self._pods(*sorted(self._used))}
        return {"pods": pods, "ended_on_purpose": sorted(self._ended_on_purpose)}

    def address(self, pod: str) -> str:
        """Return a pod's IP address."""
        return str(self.kube.get("Pod", pod, self.namespace)["status"]["podIP"])

    def proxied_pods(self) -> list[str]:
        """Return the pods in use that carry a sidecar."""
        return sorted(
            pod["metadata"]["name"]
            for pod in self._pods(*sorted(self._used))
            if not pod["metadata"].get("deletionTimestamp")
            and any(c["name"] == "istio-proxy" for c in (*pod["spec"]["containers"], *pod["spec"].get("initContainers", [])))
        )

    def _prepared(self, document: dict[str, Any]) -> dict[str, Any]:
        """Name every container's image as this cluster pulls it, and label the pods with the name by which they are found."""
        if document["kind"] == "Deployment":
            template = document["spec"]["template"]
            template["metadata"]["labels"][INSTANCE] = document["metadata"]["name"]
            for container in template["spec"]["containers"]:
                container["image"] = self.image(container["image"])
        return document

    def _pods(self, *names: str) -> list[dict[str, Any]]:
        """Return the pods of Deployments."""
        return self.kube.pods(self.namespace, f"{INSTANCE} in ({','.join(names)})") if names else []


@pytest.fixture(scope="session")
def worlds(
    testbed: Testbed, kube: Kube, istio: IstioClient, timeouts: Timeouts, run_id: str, request: pytest.FixtureRequest,
) -> Callable[[str], World]:
    """The namespaces of the run, one per area and process of a parallel run, made on first use.

    What comes after the first dash of a name is a namespace beside the area's own. All of them go when the process comes to another area.
    """
    made: dict[str, World] = {}
    worker = worker_of(request.config)

    def leave(names: Sequence[str]) -> None:
        namespaces = [made.pop(name).namespace for name in names]
        for namespace in namespaces:
            kube.delete_one("Namespace", namespace)
        for namespace in namespaces:
            kube.await_gone("Namespace", namespace, within=timeouts.namespace_gone)

    def world(name: str) -> World:
        if name not in made:
            # The pods of all areas together ask for more than a small node has.
            leave([other for other in made if _area(other) != _area(name)])
            namespace = "-".join(filter(None, ("faasmesh", name, run_id, worker)))
            kube.create_namespace(namespace, {RUN_LABEL: run_id, "faasmesh.dev/area": name, "istio-injection": "enabled"})
            made[name] = World(kube, timeouts, namespace, testbed.workload_image)
        return made[name]

    del istio  # needed before the first pod: a namespace made earlier would stay without sidecars
    return world


def _area(name: str) -> str:
    return name.partition("-")[0]


@pytest.fixture(scope="module")
def world(worlds: Callable[[str], World], request: pytest.FixtureRequest) -> World:
    """The namespace of this module's area, as this module uses it."""
    return worlds(request.path.parent.name).view()


@pytest.fixture(scope="module")
def caller(world: World, istio: IstioClient) -> Caller:
    """A client inside the mesh: it makes the calls of a draw and records each; those that failed with its proxy's flags."""
    world.deploy({"caller": caller_objects()})
    pod = world.pod("caller")
    return Caller(world.kube, world.namespace, pod, access_log=partial(istio.access_log, world.namespace, pod))


@pytest.fixture(scope="module")
def intruder(world: World) -> Caller:
    """A client beside the mesh: no sidecar, no identity, plaintext."""
    world.deploy({"intruder": intruder_objects()})
    return Caller(world.kube, world.namespace, world.pod("intruder"))


@pytest.fixture(scope="module")
def ingress(testbed: Testbed, request: pytest.FixtureRequest) -> Ingress:
    """A client of the ingress gateway: from the host where it has a way in, else from beside the mesh."""
    if testbed.cluster is not None and testbed.cluster.gateway_url:
        return LoopbackIngress(testbed.cluster.gateway_url)
    return InClusterIngress(request.getfixturevalue("intruder"))


@pytest.fixture(scope="session")
def aws(testbed: Testbed, kube: Kube, run_id: str, request: pytest.FixtureRequest) -> Iterator[Aws]:
    """What stands in for AWS, beside the cluster: one for each process of a run, so that nobody finds what another has declared."""
    if testbed.cluster is None or not testbed.cluster.owned:
        pytest.skip("what stands in for AWS runs on this machine, which the pods of somebody's cluster do not reach")
    del kube  # what an earlier run has left goes first
    label = "-".join(filter(None, (run_id, worker_of(request.config))))
    with testbed.phase("aws"), ExitStack() as starting:
        lent = starting.enter_context(server.started(testbed.local_image, label))
        ending = starting.pop_all()
    with ending:
        yield lent


Steady = Callable[..., AbstractContextManager[Load]]


@pytest.fixture
def steady_load(testbed: Testbed, request: pytest.FixtureRequest, run_folder: Path) -> Steady:
    """Locust on the host, which calls the ingress gateway: `steady_load(host, path, personas=..., profile=...)` for a block.

    What it leaves is kept in the run's folder, a numbered folder for each load of a check.
    """
    url = testbed.cluster.gateway_url if testbed.cluster is not None else None
    if not url:
        pytest.skip("the host has no way to the ingress gateway, so it cannot put load on it")
    numbers = count(1)

    def put(*asked: Any, **options: Any) -> AbstractContextManager[Load]:  # noqa: ANN401  # those of `load`
        return load(url, *asked, **options, folder=run_folder / "load" / f"{request.node.name}-{next(numbers)}")

    return put
