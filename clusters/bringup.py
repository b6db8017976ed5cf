"""From options to a cluster that answers: host, images, provider, components, in that order, each said and timed."""

import argparse
import json
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Self

from filelock import FileLock

from clusters import beside, host, progress
from clusters.apiserver import NotFound
from clusters.components import Component, in_order
from clusters.components.knative.manifests import GATEWAY_API, INGRESSES
from clusters.components.registry import NAMES, components, image_groups
from clusters.errors import UserError
from clusters.existing import ExistingProvider
from clusters.images import ImageStore
from clusters.images.registry import docker_client, registry_in_use, remove_registry
from clusters.kind import DEFAULT_NAME, KindProvider, KindSettings
from clusters.kube import Kube
from clusters.paths import cache_root
from clusters.provider import Cluster
from clusters.timeouts import Timeouts
from clusters.versions import Reference

# Which component a kept cluster carries, and made from what, is remembered in the cluster itself.
MEMORY = "faasmesh-components"
# The file by which the processes of one run find its cluster.
INVITATION = "cluster.json"
# Programs that install components; built with the images, so that no later phase stalls on a compiler.
_INSTALLERS = ("istioctl",)


@dataclass(frozen=True)
class Options:
    """What a person chose; the command line and pytest fill in the same fields."""

    cluster: str = "kind"
    name: str = DEFAULT_NAME
    kubeconfig: Path | None = None
    context: str | None = None
    nodes: int = 1
    gateway_port: int = 0
    keep: bool = False
    images: str = "auto"
    components: tuple[str, ...] = NAMES
    prepare_host: str = "auto"
    workload_images: str | None = None
    # Of a cluster of ours; an existing one has what it has.
    knative_ingress: str = GATEWAY_API.name


@dataclass
class Testbed:
    """A cluster in use, and what it takes to leave no trace of it."""

    # Its name begins as pytest's test classes do.
    __test__ = False

    options: Options
    timeouts: Timeouts
    phases: list[tuple[str, float]] = field(default_factory=list)
    cluster: Cluster | None = None
    kube: Kube | None = None
    detected: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    # Undoes the rest even where one step fails.
    _undo: ExitStack = field(default_factory=ExitStack)
    _installed: set[str] = field(default_factory=set)
    _components: dict[str, Component] = field(default_factory=dict)
    # Working set of all nodes in bytes when the run ended, its own pods included; 0 where it cannot be asked for.
    memory: int = 0
    _provider: KindProvider | None = None
    _images: ImageStore | None = None
    _pinned: dict[str, str] = field(default_factory=dict)
    # Held while a component is installed: two processes of one run may need the same one at the same time.
    _installing: AbstractContextManager[object] = field(default_factory=nullcontext)

    def bring_up(self) -> None:
        """Bring up the cluster; components are installed by `require`.

        Raises:
            UserError: the host, an image, the provider or the cluster is not fit.

        """
        if self.options.cluster == "existing":
            self._use_existing()
        else:
            self._use_kind()

    def invite(self, folder: Path) -> None:
        """Leave word in `folder` of where the cluster is, for the other processes of this run."""
        assert self.cluster is not None
        plain = {**asdict(self.cluster), "kubeconfig": str(self.cluster.kubeconfig)}
        (folder / INVITATION).write_text(json.dumps(plain))

    @classmethod
    def attached(cls, options: Options, timeouts: Timeouts, folder: Path) -> Self:
        """Return the cluster that another process of this run has brought up and will take down.

        Components are installed by whichever process needs them first. Raises FileNotFoundError where nobody was invited.
        """
        plain = json.loads((folder / INVITATION).read_text())
        cluster = Cluster(**{**plain, "kubeconfig": Path(plain["kubeconfig"]), "nodes": tuple(plain["nodes"])})
        bed = cls(replace(options, images=cluster.origin) if cluster.owned else options, timeouts)
        bed.cluster, bed.kube = cluster, Kube.from_kubeconfig(cluster.kubeconfig, cluster.context)
        bed._installing = FileLock(folder / "installing.lock")
        images = ImageStore(bed.options.images) if cluster.owned else ImageStore()
        bed._images = images if cluster.owned else None
        bed._components = components(images, knative_ingress=options.knative_ingress)
        return bed

    def require(self, names: tuple[str, ...]) -> None:
        """Install the named components and what they need, where that has not been done; on an existing cluster, detect them.

        Raises:
            UserError: a component is unknown, failed to install, or is missing from an existing cluster.

        """
        assert self.cluster is not None
        assert self.kube is not None
        for component in in_order(names, self._components):
            if component.name in self._installed:
                continue
            if self.cluster.owned:
                with self._installing:
                    self._install(component, self.cluster, self.kube)
            else:
                version = component.detect(self.kube)
                if version is None:
                    raise UserError(
                        f"component {component.name}", expected=f"installed on cluster {self.cluster.name}", seen="nothing of it",
                        hint="an existing cluster is never installed to; leave the checks that need it out with -k, or install it",
                    )
                self.detected[component.name] = version
            self._installed.add(component.name)

    def workload_image(self, reference: str) -> str:
        """Return the name by which this cluster pulls a workload image.

        On a cluster of ours that is the image's name with its digest, so that a kept node never runs yesterday's; on an
        existing one it is the copy below `workload_images`.

        Raises:
            UserError: the cluster is somebody's and nobody said where it finds the image.

        """
        name = Reference.parse(reference)
        if self.options.workload_images:
            return f"{self.options.workload_images.rstrip('/')}/{name.repository.rpartition('/')[2]}:{name.tag}"
        if self._images is None:
            raise UserError(
                f"image {reference}", expected="--workload-images=PREFIX, where the cluster pulls it from", seen="none",
                hint="push the workload images there once: python -m clusters images push PREFIX",
            )
        if reference not in self._pinned:
            self._pinned[reference] = self._images.pinned_reference(name.repository.rpartition("/")[2])
        return self._pinned[reference]

    def local_image(self, reference: str) -> str:
        """Return the name under which this machine's Docker has one of our own images, for a container beside the cluster.

        Raises:
            UserError: the image cannot be built, or the cluster is somebody's: its pods do not reach containers of this machine.

        """
        if self._images is None:
            raise UserError(f"container of {reference}", expected="a cluster of ours on this machine", seen="somebody's", hint="leave --cluster=existing out")
        return self._images.local_reference(Reference.parse(reference).repository.rpartition("/")[2])

    def upstream_image(self, name: str) -> str:
        """Return the name by which this cluster pulls an image of upstream's, for what a check itself asks an operator to make.

        On a cluster of ours it is what was built or pinned for it; an existing one pulls it from where upstream has it.

        Raises:
            UserError: it cannot be built, or upstream's is not pinned.

        """
        if self._images is None:
            return str(ImageStore().versions.images[name].upstream)
        if name not in self._pinned:
            self._pinned[name] = self._images.pinned_reference(name)
        return self._pinned[name]

    def kubectl(self) -> Path:
        """Return a kubectl of the cluster's version, built from its module; the suites themselves need none.

        Raises:
            UserError: it cannot be built.

        """
        return (self._images or ImageStore()).program("kubernetes", "kubectl")

    def close(self) -> None:
        """Undo, last first, what `bring_up` started; a kept cluster stays with what it needs."""
        try:
            if self._provider is not None and self.cluster is not None:
                self.memory = self._provider.memory()
        finally:
            self._undo.close()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time a phase for the report."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.phases.append((name, time.monotonic() - began))

    def _use_kind(self) -> None:
        refuse_unknown(self.options.components)
        if self.options.kubeconfig or self.options.context:
            raise UserError(
                "--kubeconfig and --context", expected="--cluster=existing with them", seen="--cluster=kind, which has its own",
                hint="add --cluster=existing, or leave them out",
            )
        with self.phase("host"):
            prepared = host.prepare(self.options.prepare_host, progress.say)
        images = self._images = ImageStore(self.options.images)
        if not self.options.keep:
            self._undo.callback(prepared.undo, lambda: _remove_idle_registry(images))
        with self.phase("images"):
            groups = image_groups(self.options.components, knative_ingress=self.options.knative_ingress)
            images.ensure("cluster", *groups, "workloads", "beside", programs=("kind", *_INSTALLERS))
        with docker_client() as client:
            beside.sweep(client)
        provider = KindProvider(
            KindSettings(self.options.name, self.options.nodes, self.options.gateway_port), images, self.timeouts,
        )
        provider.acquire()
        self._undo.callback(provider.release)
        self._provider = provider
        self._components = components(images, knative_ingress=self.options.knative_ingress)
        self.versions = _versions(images, self.options.knative_ingress)
        if not self.options.keep:
            self._undo.callback(provider.tear_down)
        with self.phase("cluster"):
            self.cluster = provider.bring_up()
        self.kube = Kube.from_kubeconfig(self.cluster.kubeconfig, self.cluster.context)

    def _use_existing(self) -> None:
        if self.options.kubeconfig is None:
            raise UserError("--cluster=existing", expected="--kubeconfig=FILE", seen="none", hint="the file is read, never written")
        if not self.options.workload_images:
            raise UserError(
                "--cluster=existing", expected="--workload-images=PREFIX, where the cluster pulls the workload images from", seen="none",
                hint="push them there once: python -m clusters images push PREFIX",
            )
        with self.phase("cluster"):
            provider = ExistingProvider(self.options.kubeconfig, self.options.context)
            self.cluster, self.kube = provider.connect()
        self._components = components(ImageStore())

    def _install(self, component: Component, cluster: Cluster, kube: Kube) -> None:
        memory = _memory(kube)
        with self.phase(component.name):
            if memory.get(component.name) == component.input_key():
                with progress.step(f"{component.name} reuse"):
                    component.await_ready(kube, self.timeouts)
                return
            if component.name in memory:
                # Half of one installation over another is neither of them, whatever becomes of this one.
                del memory[component.name]
                _remember(kube, memory)
            log = cache_root() / "clusters" / cluster.name / f"{component.name}.log"
            with progress.step(f"{component.name} install"):
                component.install(cluster, self.timeouts, log)
                try:
                    component.await_ready(kube, self.timeouts)
                except AssertionError as error:
                    raise UserError(
                        f"component {component.name}", expected="ready", seen=str(error), hint=f"its installer's output is in {log}",
                    ) from None
            _remember(kube, {**memory, component.name: component.input_key()})


def refuse_unknown(names: tuple[str, ...]) -> None:
    """Refuse a component that does not exist, before anything is done for the others.

    Raises:
        UserError: it names the component, and those there are.

    """
    for name in names:
        if name not in NAMES:
            raise UserError("--components", expected=f"some of {', '.join(NAMES)}", seen=name or "an empty name", hint="names are separated by commas")


def _remove_idle_registry(images: ImageStore) -> None:
    with docker_client() as client:
        if not registry_in_use(client, images.cache):
            remove_registry(client, images.cache)


def leave_host(images: ImageStore) -> None:
    """Leave nothing running that no cluster needs: the registry, and the engine where faasmesh started it."""
    host.leave(lambda: _remove_idle_registry(images))


def _memory(kube: Kube) -> dict[str, str]:
    try:
        return dict(kube.get("ConfigMap", MEMORY, "kube-system").get("data") or {})
    except NotFound:
        return {}


def _remember(kube: Kube, memory: dict[str, str]) -> None:
    kube.apply([{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": MEMORY, "namespace": "kube-system"}, "data": memory}])


def _versions(images: ImageStore, knative_ingress: str) -> dict[str, str]:
    """Return the versions that a report names; of Knative's ingresses, the one that is there."""
    software = dict(images.versions.software)
    of_ingresses = {name: software.pop(one.software) for name, one in INGRESSES.items()}
    return software | {
        "istio": images.versions.istio.version, "envoy": images.versions.envoy, "go": images.versions.go,
        "knative-ingress": f"{knative_ingress} {of_ingresses[knative_ingress]}",
    }


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `up`, which are those of a run."""
    parser.add_argument("--nodes", type=int, default=1, help="1, or 3 with one zone label each (default: %(default)s)")
    parser.add_argument("--gateway-port", type=int, default=0, help="loopback port of the ingress gateway; 0 takes any (default: %(default)s)")
    parser.add_argument("--images", choices=("auto", "published", "source"), default="auto", help="where images come from (default: %(default)s)")
    parser.add_argument("--components", default=",".join(NAMES), help="comma-separated (default: %(default)s)")
    parser.add_argument("--knative-ingress", choices=tuple(INGRESSES), default=GATEWAY_API.name, help="what programs the mesh for Knative (default: %(default)s)")
    parser.add_argument("--prepare-host", choices=("auto", "never"), default="auto", help="whether a Debian host may be prepared (default: %(default)s)")


def up(args: argparse.Namespace) -> int:
    """Bring up the testbed and keep it."""
    testbed = Testbed(
        Options(
            name=args.cluster_name, nodes=args.nodes, gateway_port=args.gateway_port, keep=True, images=args.images,
            components=tuple(args.components.split(",")), prepare_host=args.prepare_host, knative_ingress=args.knative_ingress,
        ),
        Timeouts(),
    )
    try:
        testbed.bring_up()
        testbed.require(testbed.options.components)
    finally:
        testbed.close()
    assert testbed.cluster is not None
    progress.say(f"kubeconfig: {testbed.cluster.kubeconfig}")
    progress.say(f"ingress gateway: {testbed.cluster.gateway_url}")
    return 0


def provider_of(args: argparse.Namespace) -> KindProvider:
    """Return the provider of a named cluster, for deleting it: no image is needed for that but kind itself."""
    return KindProvider(KindSettings(args.cluster_name), ImageStore("source"), Timeouts())
