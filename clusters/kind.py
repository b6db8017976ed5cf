"""The throw-away provider: a kind cluster that is created, reused, kept and deleted through pytest-kind."""

import argparse
import contextlib
import hashlib
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import psutil
import yaml
from docker.models.containers import Container
from filelock import FileLock, Timeout
from pytest_kind import KindCluster

from clusters import kubelet, progress
from clusters.errors import UserError
from clusters.images import ImageStore
from clusters.images.registry import docker_client
from clusters.kube import Kube
from clusters.paths import cache_root
from clusters.provider import Cluster
from clusters.timeouts import Timeouts
from clusters.waiting import GiveUp, eventually

DEFAULT_NAME = "faasmesh"
# The ingress gateway's NodePort inside the cluster; the host's port in front of it is chosen per cluster.
GATEWAY_NODE_PORT = 30080
ZONES = ("zone-a", "zone-b", "zone-c")
SERVICES = "10.96.0.0/16"
# As kind has it where nothing else is said.
PODS = "10.244.0.0/16"
# A Service's address that kube-proxy does not know, not yet or no longer, is any other address to the node: it would send the packet on to
# the machine's own network. What a pod sends to a Service and is still for the Service when it is to be routed has no endpoint, and there is no
# way to it. Finding: a rule of iptables is of no use, nor is kube-proxy's own that refuses what is for a Service without endpoints: kube-router
# puts rules before them that accept whatever comes from a pod. On a machine whose network answers for everybody such a pod is answered, by nobody.
FENCE = ("priority", "100", "from", PODS, "to", SERVICES, "unreachable")
# What kind accepts, less what would name another folder than one of its own: the name is also that of the state's folder.
_NAME = re.compile(r"[a-z0-9][a-z0-9.-]*")


@dataclass(frozen=True)
class KindSettings:
    """What a person may choose about a kind cluster; `gateway_port` 0 takes any free loopback port."""

    name: str = DEFAULT_NAME
    nodes: int = 1
    gateway_port: int = 0


class KindProvider:
    """One kind cluster by name. At most one process uses it at a time (a lock beside its state says which)."""

    def __init__(self, settings: KindSettings, images: ImageStore, timeouts: Timeouts) -> None:
        if settings.nodes not in (1, len(ZONES)):
            raise UserError("--nodes", expected=f"1 or {len(ZONES)}", seen=str(settings.nodes), hint="three nodes carry one zone label each")
        if not _NAME.fullmatch(settings.name):
            raise UserError("--cluster-name", expected="lower-case letters, digits, - and .", seen=repr(settings.name), hint="such as faasmesh-2")
        self.settings = settings
        self.images = images
        self.timeouts = timeouts
        self.folder = cache_root() / "clusters" / settings.name
        self._lock = FileLock(cache_root() / "locks" / f"cluster-{settings.name}.lock")

    def acquire(self) -> None:
        """Take the cluster for this process, or say who has it.

        Raises:
            UserError: another run uses the cluster.

        """
        self.folder.mkdir(parents=True, exist_ok=True)
        Path(self._lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
        holder = self.folder / "holder"
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            seen = holder.read_text() if holder.exists() else "another process"
            raise UserError(
                f"kind cluster {self.settings.name}", expected="to be free", seen=f"in use by {seen}",
                hint="wait for that run to end, or give this one --cluster-name=NAME",
            ) from None
        holder.write_text(f"process {os.getpid()}")

    def release(self) -> None:
        """Give the cluster back to other processes."""
        self._lock.release()

    def bring_up(self) -> Cluster:
        """Create the cluster, or reuse it when it was made from the same inputs, and wait until its nodes are ready.

        A cluster whose creation was interrupted, or that was made from other images, is deleted and made anew.

        Raises:
            UserError: the wanted port is taken or not the kept cluster's, or kind itself failed (its log is named).

        """
        self._end_orphans()
        key = self._key()
        state = self._state()
        exists = bool(self._containers())
        if exists and state.get("key") != key:
            why = "was never finished" if not state else "was made from other inputs"
            progress.say(f"kind cluster {self.settings.name} {why}; making it anew")
            self.tear_down()
            exists = False
        if exists:
            self._require_port(int(state["gateway_port"]))
            exists = self._comes_back()
        if not exists:
            state = {"key": key, "gateway_port": self._gateway_port()}
            with progress.step(f"kind create {self.settings.name} ({self.settings.nodes} node{'s' * (self.settings.nodes > 1)})"):
                self._create(int(state["gateway_port"]))
                self._await_nodes()
                self._fence()
            # Written last: a cluster without state is an unfinished one.
            partial = self.folder / "state.json.partial"
            partial.write_text(json.dumps(state))
            partial.replace(self.folder / "state.json")
        return Cluster(
            name=self.settings.name, provider="kind", kubeconfig=self.kubeconfig, context=f"kind-{self.settings.name}",
            owned=True, gateway_url=f"http://127.0.0.1:{state['gateway_port']}", origin=str(self.images.origin),
            nodes=tuple(sorted(str(c.name) for c in self._containers())),
        )

    def tear_down(self) -> None:
        """Delete the cluster and its state; other clusters are not touched."""
        self._end_orphans()
        if not self._containers():
            (self.folder / "state.json").unlink(missing_ok=True)
            return
        with progress.step(f"kind delete {self.settings.name}"):
            (self.folder / "state.json").unlink(missing_ok=True)
            try:
                with self._kind_environment(), self._output_to("delete.log"):
                    self._pytest_kind().delete()
            except subprocess.CalledProcessError as error:
                log = self.folder / "delete.log"
                raise UserError(
                    f"kind delete {self.settings.name}", expected="exit code 0",
                    seen=f"exit code {error.returncode}: {_last_error(log)}", hint=f"read {log}",
                ) from None

    def memory(self) -> int:
        """Return the working set of all nodes in bytes: what they use, less the page cache that could be dropped."""
        total = 0
        for container in self._containers():
            if container.status == "running":
                used = cast("dict[str, Any]", container.stats(stream=False))["memory_stats"]
                # cgroup v1 says total_inactive_file, v2 inactive_file; the kubelet subtracts the same.
                detail = used.get("stats", {})
                total += int(used.get("usage", 0)) - int(detail.get("total_inactive_file", detail.get("inactive_file", 0)))
        return total

    @property
    def kubeconfig(self) -> Path:
        """The cluster's own kubeconfig; the user's is never read or written."""
        return self.folder / "kubeconfig"

    def _key(self) -> str:
        told = json.dumps([self.images.node_reference(), self._config(0)], sort_keys=True)
        return hashlib.sha256(told.encode()).hexdigest()[:16]

    def _state(self) -> dict[str, str | int]:
        try:
            state = json.loads((self.folder / "state.json").read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return {}
        return state if isinstance(state, dict) else {}

    def _config(self, gateway_port: int) -> dict[str, object]:
        """Return kind's configuration; every node has a zone, so that locality can be checked on three."""
        mounts = [{"hostPath": str(mirrors), "containerPath": "/etc/containerd/certs.d", "readOnly": True}] if (
            mirrors := self.images.mirror_folder()) else []
        nodes: list[dict[str, object]] = [
            {
                "role": "control-plane" if index == 0 else "worker",
                "labels": {"topology.kubernetes.io/region": "local", "topology.kubernetes.io/zone": ZONES[index]},
                "extraMounts": mounts,
            }
            for index in range(self.settings.nodes)
        ]
        nodes[0]["extraPortMappings"] = [
            {"containerPort": GATEWAY_NODE_PORT, "hostPort": gateway_port, "listenAddress": "127.0.0.1"},
        ]
        return {
            "kind": "Cluster",
            "apiVersion": "kind.x-k8s.io/v1alpha4",
            "networking": {"apiServerAddress": "127.0.0.1", "serviceSubnet": SERVICES},
            "nodes": nodes,
            "kubeadmConfigPatches": [
                yaml.safe_dump(patch) for patch in (*_KUBEADM_PATCHES, *((_UNTAINTED,) if self.settings.nodes > 1 else ()))
            ],
        }

    def _create(self, gateway_port: int) -> None:
        config = self.folder / "kind.yaml"
        config.write_text(yaml.safe_dump(self._config(gateway_port)))
        self.kubeconfig.unlink(missing_ok=True)
        try:
            with self._kind_environment(), self._output_to("create.log"):
                self._pytest_kind(self.images.node_reference()).create(config)
        except subprocess.CalledProcessError as error:
            log = self.folder / "create.log"
            with contextlib.suppress(subprocess.CalledProcessError), self._kind_environment(), self._output_to("delete.log"):
                self._pytest_kind().delete()
            raise UserError(
                f"kind create {self.settings.name}", expected="exit code 0",
                seen=f"exit code {error.returncode}: {_last_error(log)}", hint=f"read {log}",
            ) from None

    def _await_nodes(self) -> None:
        kube = Kube.from_kubeconfig(self.kubeconfig, f"kind-{self.settings.name}")

        def nodes_ready() -> None:
            nodes = kube.list("Node")
            assert len(nodes) == self.settings.nodes, f"{len(nodes)} of {self.settings.nodes} nodes have joined"
            for node in nodes:
                conditions = {c["type"]: c for c in node["status"].get("conditions", [])}
                ready = conditions.get("Ready", {})
                assert ready.get("status") == "True", f"node {node['metadata']['name']}: {ready.get('message', 'no Ready condition')}"
            dead = [str(c.name) for c in self._containers() if c.status not in ("running", "created")]
            if dead:
                raise GiveUp(f"node containers {', '.join(dead)} have stopped")

        def api_answers() -> None:
            try:
                kube.server_version()
            except UserError as error:
                raise AssertionError(str(error)) from None

        eventually(api_answers, within=self.timeouts.api_server_answers, subject="the API server")
        eventually(nodes_ready, within=self.timeouts.node_ready, every=0.5, subject="nodes ready")

    def _fence(self) -> None:
        """Keep what is for a Service that is not there inside the cluster; a node that was started anew has forgotten it."""
        for container in self._containers():
            known = SERVICES in cast("bytes", container.exec_run(["ip", "rule", "show", *FENCE[:2]]).output).decode(errors="replace")
            if not known and (done := container.exec_run(["ip", "rule", "add", *FENCE])).exit_code != 0:
                raise UserError(
                    f"ip rule in node {container.name}", expected="exit code 0", seen=f"{done.exit_code}: {cast('bytes', done.output).decode(errors='replace').strip()[:200]}",
                    hint="the node image must carry iproute2, as kind's does",
                )

    def _comes_back(self) -> bool:
        """Tell whether a kept cluster answers again; one that does not (a machine that lost power) is deleted."""
        try:
            with progress.step(f"kind reuse {self.settings.name}"):
                self._start_stopped_nodes()
                self._await_nodes()
                self._fence()
                for container in self._containers():
                    kubelet.restore(container)
        except (AssertionError, UserError) as error:
            progress.say(f"kind cluster {self.settings.name} does not come back ({error}); making it anew")
            self.tear_down()
            return False
        return True

    def _start_stopped_nodes(self) -> None:
        """Start the node containers that a restart of the machine or of the engine has stopped."""
        stopped = [container for container in self._containers() if container.status != "running"]
        for container in stopped:
            progress.say(f"  starting stopped node {container.name}")
            container.start()

    def _end_orphans(self) -> None:
        """End the kind that a killed run left behind: when it fails, it deletes whatever has the cluster's name by then.

        The lock is ours, so no living run can be waiting for it.
        """
        for process in psutil.process_iter(["cmdline"]):
            command = process.info["cmdline"] or [""]
            if command[0].startswith(f"{cache_root()}{os.sep}") and Path(command[0]).name == "kind" and f"--name={self.settings.name}" in command:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
                    process.wait()

    def _containers(self) -> list[Container]:
        with docker_client() as client:
            return client.containers.list(all=True, filters={"label": f"io.x-k8s.kind.cluster={self.settings.name}"})

    def _require_port(self, port: int) -> None:
        if self.settings.gateway_port not in (0, port):
            raise UserError(
                f"kind cluster {self.settings.name}", expected=f"the gateway on port {self.settings.gateway_port}", seen=f"{port}, since it was made",
                hint=f"leave --gateway-port out, or delete it first: python -m clusters down --cluster-name {self.settings.name}",
            )

    def _gateway_port(self) -> int:
        wanted = self.settings.gateway_port
        with socket.socket() as probe:
            # Docker's listener sets no SO_REUSEADDR either, so what this probe can bind Docker can bind.
            try:
                probe.bind(("127.0.0.1", wanted))
            except OSError as error:
                raise UserError(
                    f"loopback port {wanted}", expected="free for the ingress gateway", seen=error.strerror or str(error),
                    hint="stop the program that listens there, or give --gateway-port another number (0 takes any)",
                ) from None
            port: int = probe.getsockname()[1]
        return port

    def _pytest_kind(self, image: str | None = None) -> KindCluster:
        # pytest-kind makes a scratch folder below the working directory as soon as it is constructed.
        with contextlib.chdir(self.folder):
            return KindCluster(
                self.settings.name, kubeconfig=self.kubeconfig, image=image, kind_path=self.images.tool("kind"),
                kubectl_path=self.folder / "kubectl-not-used",
            )

    @contextlib.contextmanager
    def _kind_environment(self) -> Iterator[None]:
        """Give kind our own Docker network: it holds the image mirror, and `kind` may be somebody's."""
        before = os.environ.get("KIND_EXPERIMENTAL_DOCKER_NETWORK")
        os.environ["KIND_EXPERIMENTAL_DOCKER_NETWORK"] = self.images.network
        try:
            yield
        finally:
            if before is None:
                del os.environ["KIND_EXPERIMENTAL_DOCKER_NETWORK"]
            else:
                os.environ["KIND_EXPERIMENTAL_DOCKER_NETWORK"] = before

    @contextlib.contextmanager
    def _output_to(self, name: str) -> Iterator[None]:
        """Send what kind prints to a log: pytest-kind runs it on this process's own descriptors."""
        sys.stdout.flush()
        sys.stderr.flush()
        saved = os.dup(1), os.dup(2)
        with (self.folder / name).open("wb") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
            try:
                yield
            finally:
                for descriptor, copy in zip((1, 2), saved, strict=True):
                    os.dup2(copy, descriptor)
                    os.close(copy)


# Kubernetes 1.37 refuses cgroup v1 unless told; images come from next door, so they may be pulled at once;
# the cluster's store is thrown away, so etcd need not wait for the disk. A log that is rotated in the middle of a draw takes
# the flags of its calls along: the caller's proxy writes 30 MB in a run of the routing area.
_KUBEADM_PATCHES: tuple[dict[str, object], ...] = (
    {
        "kind": "KubeletConfiguration",
        "failCgroupV1": False,
        "serializeImagePulls": False,
        "maxParallelImagePulls": 8,
        "nodeStatusUpdateFrequency": "4s",
        "containerLogMaxSize": "256Mi",
    },
    {
        "kind": "ClusterConfiguration",
        "etcd": {"local": {"extraArgs": [{"name": "unsafe-no-fsync", "value": "true"}]}},
    },
)
# All nodes carry workloads, the control plane too: it is one of the three zones. kind does that itself for a single node.
_UNTAINTED: dict[str, object] = {"kind": "InitConfiguration", "nodeRegistration": {"taints": []}}


def _last_error(log: Path) -> str:
    try:
        lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    except OSError:
        return "nothing was logged"
    told = [line for line in lines if line.lower().startswith("error")]
    return (told or lines or ["nothing was logged"])[-1][:300]


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Mount `up`, `down` and `status`: the cluster without the checks."""
    for name, words in (
        ("up", "bring up the kind cluster and the components, and keep them"),
        ("down", "delete the kind cluster"),
        ("status", "say which clusters of ours exist"),
    ):
        parser = subparsers.add_parser(name, help=words, description=words)
        parser.add_argument("--cluster-name", default=DEFAULT_NAME, help="name of the kind cluster (default: %(default)s)")
        if name == "up":
            from clusters.bringup import add_options, up  # noqa: PLC0415  # bringup imports this module

            add_options(parser)
            parser.set_defaults(func=up)
        else:
            parser.set_defaults(func=_down if name == "down" else _status)


def _down(args: argparse.Namespace) -> int:
    from clusters.bringup import leave_host, provider_of  # noqa: PLC0415  # bringup imports this module

    provider = provider_of(args)
    provider.acquire()
    try:
        provider.tear_down()
    finally:
        provider.release()
    leave_host(provider.images)
    return 0


def _status(args: argparse.Namespace) -> int:
    with docker_client() as client:
        nodes = client.containers.list(all=True, filters={"label": f"io.x-k8s.kind.cluster={args.cluster_name}"})
    for container in nodes:
        progress.say(f"{container.name}: {container.status}")
    if not nodes:
        progress.say(f"kind cluster {args.cluster_name}: none")
    return 0
