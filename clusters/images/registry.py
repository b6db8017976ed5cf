"""The local registry: one container that keeps its blobs in the cache and stands in for every upstream registry."""

import contextlib
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import docker
import docker.errors
import requests
from docker import DockerClient
from docker.models.containers import Container

from clusters import progress
from clusters.errors import UserError
from clusters.images.cache import Cache, ImageRecord, write_whole
from clusters.images.failures import docker_missing, explain
from clusters.versions import OWN_HOST, Reference
from clusters.waiting import eventually

CONTAINER = "faasmesh-registry"
NETWORK = "faasmesh"
PORT = 5000
# Where containerd goes for each registry when no mirror answers; docker.io alone is served under another name.
UPSTREAMS = {
    "docker.io": "https://registry-1.docker.io",
    "registry.k8s.io": "https://registry.k8s.io",
    "ghcr.io": "https://ghcr.io",
    "gcr.io": "https://gcr.io",
    "quay.io": "https://quay.io",
}
_STORAGE_LABEL = "faasmesh.storage"
_ANSWERS_WITHIN = 20.0


@dataclass(frozen=True)
class Registry:
    """A running local registry: `push_address` as the Docker daemon sees it, `in_network_address` as nodes do."""

    push_address: str
    container: str = CONTAINER

    @property
    def in_network_address(self) -> str:
        """Where nodes on the network find it."""
        return f"http://{self.container}:{PORT}"


def container_name(cache: Cache) -> str:
    """Return the name of the registry of a cache: two caches on one machine must not take it from each other."""
    if cache.root == Path.home() / ".cache" / "faasmesh":
        return CONTAINER
    return f"{CONTAINER}-{hashlib.sha256(str(cache.root).encode()).hexdigest()[:8]}"


@contextlib.contextmanager
def docker_client() -> Iterator[DockerClient]:
    """Lend a client of the Docker daemon.

    Raises:
        UserError: no daemon answers, or it stopped answering.

    """
    try:
        # A layer of a gigabyte is pushed without a byte of answer for minutes.
        client = docker.from_env(timeout=900)
    except docker.errors.DockerException as error:
        raise docker_missing(error) from error
    try:
        yield client
    except requests.ConnectionError as error:
        raise docker_missing(error) from error
    finally:
        client.close()


def ensure_network(client: DockerClient) -> str:
    """Return the name of the network that nodes and registry share, made when missing; the caller holds the registry's lock."""
    if not client.networks.list(names=[f"^{NETWORK}$"]):
        client.networks.create(NETWORK, driver="bridge", check_duplicate=True, labels={"faasmesh": "network"})
    return NETWORK


def ensure_registry(client: DockerClient, cache: Cache, image: str) -> Registry:
    """Return the running registry; a container that was removed, stopped, or serves another folder is made anew.

    `image` is the registry's own image, by local id.

    Raises:
        UserError: Docker refuses, or the registry does not answer.

    """
    with cache.lock("registry-container", waiting=progress.say):
        try:
            ensure_network(client)
            container = _running(client, cache, image)
            if container is None:
                with progress.step("registry") as step:
                    container = _start(client, cache, image, step)
            registry = _registry(container)
        except docker.errors.APIError as error:
            raise explain("local registry", str(error), code="docker") from error
        _await_answer(registry, container)
        return registry


def remove_registry(client: DockerClient, cache: Cache) -> bool:
    """Remove this cache's registry container and, when nothing else uses it, the network; tell whether there was one."""
    there = _container(client, container_name(cache))
    if there is not None:
        _require_ours(there)
        there.remove(force=True)
    # A stopped node is still somebody's: without its network it could not be started again.
    if not client.containers.list(all=True, filters={"network": NETWORK}):
        for network in client.networks.list(names=[f"^{NETWORK}$"], filters={"label": "faasmesh=network"}):
            network.remove()
    return there is not None


def registry_in_use(client: DockerClient, cache: Cache) -> bool:
    """Tell whether a kind node, stopped ones included, has this cache's mirrors mounted and so pulls from its registry."""
    nodes = client.containers.list(all=True, filters={"label": "io.x-k8s.kind.cluster"})
    return any(mount.get("Source", "").startswith(f"{cache.root}{os.sep}") for node in nodes for mount in node.attrs["Mounts"])


def push(client: DockerClient, registry: Registry, *, local: str, reference: Reference, step: progress.Step) -> str:
    """Push a local image under the name a mirror is asked for; return the manifest's digest.

    Raises:
        UserError: the registry refused it.

    """
    return push_as(client, local, f"{registry.push_address}/{reference.repository}", reference.tag, what=f"push of {reference}", step=step)


def push_as(client: DockerClient, local: str, remote: str, tag: str, *, what: str, step: progress.Step) -> str:
    """Push a local image as `remote:tag`, with the rights Docker has there; return the manifest's digest.

    Raises:
        UserError: the registry refused it.

    """
    client.api.tag(local, remote, tag)
    digest = ""
    try:
        for told in client.api.push(remote, tag=tag, stream=True, decode=True):
            if "error" in told:
                raise explain(what, str(told["error"]), code="registry")
            if told.get("status") in {"Pushing", "Pushed"}:
                step.update("pushing")
            digest = (told.get("aux") or {}).get("Digest", digest)
    finally:
        with contextlib.suppress(docker.errors.APIError):
            client.api.remove_image(f"{remote}:{tag}", noprune=True)
    if not digest:
        raise UserError(what, expected="a digest from the registry", seen="none", hint="run `python -m clusters images build` again")
    return digest


def pull(client: DockerClient, registry: Registry, record: ImageRecord, local: str) -> None:
    """Bring an image of the registry back into Docker under a local name.

    Raises:
        UserError: the registry does not have it.

    """
    remote = f"{registry.push_address}/{record.repository}"
    try:
        client.api.pull(remote, tag=record.digest)
        _tag(client, f"{remote}@{record.digest}", local)
        client.api.remove_image(f"{remote}@{record.digest}", noprune=True)
    except docker.errors.APIError as error:
        raise UserError(
            f"image {record.name}", expected=f"{record.digest} in the local registry", seen=str(error.explanation or error),
            hint="run `python -m clusters images verify --repair`, then `images build`",
        ) from error


def write_mirror_config(folder: Path, registry: Registry, *, origin: str) -> Path:
    """Write containerd's `certs.d`, to be mounted at /etc/containerd/certs.d in every node; return the folder.

    With origin `source` the mirror is all there is: falling back to upstream would run an image that was not built here
    and say nothing. With origin `published` it serves only our own images, or it would answer for upstream's.
    """
    hosts = {OWN_HOST: registry.in_network_address}
    if origin == "source":
        hosts |= dict.fromkeys(UPSTREAMS, registry.in_network_address)
    for host, server in hosts.items():
        write_whole(
            folder / host / "hosts.toml",
            f'server = "{server}"\n\n[host."{registry.in_network_address}"]\n  capabilities = ["pull", "resolve"]\n',
        )
    for stale in {entry.name for entry in folder.iterdir()} - hosts.keys():
        (folder / stale / "hosts.toml").unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            (folder / stale).rmdir()
    return folder


def _running(client: DockerClient, cache: Cache, image: str) -> Container | None:
    container = _container(client, container_name(cache))
    if container is None or container.status != "running" or container.labels.get(_STORAGE_LABEL) != _storage(cache):
        return None
    return container if container.attrs["Image"] == image else None


def _storage(cache: Cache) -> str:
    # A container goes on serving a folder that was deleted and made anew under its name; the inode tells them apart.
    return f"{cache.registry} ({cache.registry.stat().st_ino})" if cache.registry.is_dir() else ""


def _container(client: DockerClient, name: str) -> Container | None:
    try:
        return client.containers.get(name)
    except docker.errors.NotFound:
        return None


def _require_ours(container: Container) -> None:
    # Somebody may be using a container of this name for something else; only what we labelled is ours to remove.
    if container.labels.get("faasmesh") != "registry":
        raise UserError(
            f"container {container.name}", expected="to be the local registry", seen="a container that was not started by faasmesh",
            hint=f"rename or remove it: docker rename {container.name} NEW-NAME",
        )


def _registry(container: Container) -> Registry:
    return Registry(push_address=f"127.0.0.1:{_host_port(container)}", container=str(container.name))


def _start(client: DockerClient, cache: Cache, image: str, step: progress.Step) -> Container:
    old = _container(client, container_name(cache))
    if old is not None:
        _require_ours(old)
        step.note(f"replacing the container that serves {old.labels.get(_STORAGE_LABEL)} and is {old.status}")
        old.remove(force=True)
    cache.registry.mkdir(parents=True, exist_ok=True)
    # Docker chooses the host's port, so there is none that somebody else could have taken.
    container: Container = client.containers.create(
        image, name=container_name(cache), network=NETWORK, ports={f"{PORT}/tcp": ("127.0.0.1", None)},  # type: ignore[dict-item]  # Docker chooses
        volumes={str(cache.registry): {"bind": "/var/lib/registry", "mode": "rw"}}, user=f"{os.getuid()}:{os.getgid()}",
        labels={"faasmesh": "registry", _STORAGE_LABEL: _storage(cache)},
    )
    container.start()
    return container


def _host_port(container: Container) -> int:
    container.reload()
    bound = container.attrs["NetworkSettings"]["Ports"].get(f"{PORT}/tcp") or []
    if not bound:
        raise UserError("local registry", expected="a port on 127.0.0.1", seen=f"container {container.status}", hint=f"docker logs {container.name}")
    return int(bound[0]["HostPort"])


def _await_answer(registry: Registry, container: Container) -> None:
    def answers() -> None:
        try:
            status = requests.get(f"http://{registry.push_address}/v2/", timeout=2, proxies={"http": "", "https": ""}).status_code
        except requests.RequestException as error:
            raise AssertionError(str(error)) from error
        assert status == requests.codes.ok, f"HTTP {status}"  # what eventually() waits for

    try:
        eventually(answers, within=_ANSWERS_WITHIN, every=0.1)
    except AssertionError as error:
        said = container.logs(tail=3).decode(errors="replace")
        raise UserError("local registry", expected="an answer", seen=f"{error}; {said}", hint=f"docker logs {container.name}") from error


def _tag(client: DockerClient, image: str, local: str) -> None:
    repository, _, tag = local.rpartition(":")
    client.api.tag(image, repository, tag)
