"""Containers beside the cluster: on its network and this machine's loopback, ended with the process that started them or by the next one."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

import docker.errors
import requests
from docker import DockerClient
from docker.models.containers import Container
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer

from clusters.errors import UserError
from clusters.images.cache import alive, process_mark
from clusters.images.failures import docker_missing, explain
from clusters.images.registry import NETWORK
from clusters.waiting import GiveUp, TimedOut, eventually

# On every such container: the mark of the process that is to end it. Images whose containers others start carry it with UNOWNED.
LABEL = "faasmesh.beside"
UNOWNED = "unowned"
# testcontainers' own way to end what was left needs an image of its own; the labels do it here.
testcontainers_config.ryuk_disabled = True
LISTENS_WITHIN_S = 30.0


@dataclass(frozen=True)
class Beside:
    """A container that runs beside the cluster and listens on `port`."""

    made: DockerContainer
    port: int

    @classmethod
    def start(
        cls, image: str, *, name: str, port: int, env: Mapping[str, str] | None = None, files: Mapping[str, bytes] | None = None,
        volumes: Mapping[str, str] | None = None, memory: str = "512m",
    ) -> Self:
        """Start a container of a local image and return when its port takes connections; Docker chooses the port of the loopback in front of it.

        `files` are put in before it starts, by their absolute paths; `volumes` lead from paths of this machine to paths in it.

        Raises:
            UserError: Docker refuses, the image is not there, or nothing listens; its last words are quoted.

        """
        made = DockerContainer(image, env=dict(env or {}), name=name, volumes=[(there, here, "rw") for there, here in (volumes or {}).items()])
        # Docker's own way to say loopback; testcontainers' has the whole machine listen.
        made.ports = {f"{port}/tcp": ("127.0.0.1", None)}  # type: ignore[dict-item]
        made.with_kwargs(network=NETWORK, labels={LABEL: process_mark()}, mem_limit=memory)
        for path, content in (files or {}).items():
            made.with_copy_into_container(content, path, 0o644)
        beside = cls(made, port)
        try:
            made.start()
            beside.await_listening()
        except docker.errors.APIError as error:
            beside.end()
            raise explain(f"container {name}", str(error.explanation or error), code="docker") from error
        except requests.RequestException as error:
            raise docker_missing(error) from error
        except TimedOut as error:
            said = beside.said()
            beside.end()
            raise UserError(f"container {name}", expected=f"to listen on port {port}", seen=f"{error}; {said}", hint="python -m clusters images verify") from error
        except BaseException:
            beside.end()
            raise
        return beside

    @property
    def container(self) -> Container:
        """Docker's view of it."""
        return self.made.get_wrapped_container()

    @property
    def address(self) -> str:
        """Its address on the cluster's network: what pods reach."""
        return str(self.container.attrs["NetworkSettings"]["Networks"][NETWORK]["IPAddress"])

    @property
    def url(self) -> str:
        """Where this machine reaches it, on the loopback."""
        bound = self.container.attrs["NetworkSettings"]["Ports"].get(f"{self.port}/tcp") or []
        if not bound:
            raise UserError(f"container {self.container.name}", expected="a port on 127.0.0.1", seen=f"container {self.container.status}", hint="docker logs, docker inspect")
        return f"http://127.0.0.1:{bound[0]['HostPort']}"

    def await_listening(self) -> None:
        """Return once its port answers HTTP, whatever it says.

        Raises:
            TimedOut: nothing listens.
            NeverReached: the container ended.

        """

        def listening() -> None:
            self.container.reload()
            if self.container.status in ("exited", "dead"):
                raise GiveUp(f"it ended: {self.said()}")
            assert self.container.status == "running", f"it is {self.container.status}"
            try:
                requests.get(self.url, timeout=2, proxies={"http": "", "https": ""})
            except requests.RequestException as error:
                raise AssertionError(str(error)) from error

        eventually(listening, within=LISTENS_WITHIN_S, every=0.1, subject=f"container {self.container.name} not listening")

    def log(self, since: float = 0.0) -> str:
        """Return what it printed since a time, in seconds since 1970."""
        return bytes(self.container.logs(since=since or None)).decode(errors="replace")

    def said(self) -> str:
        """Return its last words in a line."""
        with contextlib.suppress(docker.errors.APIError):
            return " | ".join(bytes(self.container.logs(tail=3)).decode(errors="replace").split("\n"))
        return "nothing"

    def running(self) -> bool:
        """Tell whether it has not ended."""
        self.container.reload()
        return bool(self.container.status == "running")

    @contextlib.contextmanager
    def hanging(self) -> Iterator[None]:
        """Hold it still for the block: it takes connections, as the kernel does that for it, and answers none."""
        self.container.pause()
        try:
            yield
        finally:
            self.container.unpause()

    def end(self) -> None:
        """Remove it and its nameless volumes; nothing happens when it is gone."""
        try:
            with contextlib.suppress(docker.errors.NotFound):
                self.made.stop()
        finally:
            self.made.get_docker_client().client.close()


def sweep(client: DockerClient) -> int:
    """Remove the containers of processes that are gone; return how many.

    What such containers had started themselves goes, with its volumes, once no living process has any beside the cluster.
    """
    found = {container: container.labels[LABEL] for container in client.containers.list(all=True, filters={"label": LABEL})}
    living = any(alive(owner) for owner in found.values())
    doomed = [container for container, owner in found.items() if (not living if owner == UNOWNED else not alive(owner))]
    for container in doomed:
        volumes = [mount["Name"] for mount in container.attrs["Mounts"] if mount.get("Type") == "volume"] if container.labels[LABEL] == UNOWNED else []
        with contextlib.suppress(docker.errors.NotFound):
            container.remove(force=True, v=True)
        for volume in volumes:
            with contextlib.suppress(docker.errors.APIError):
                client.volumes.get(volume).remove()
    return len(doomed)


def socket_path(client: DockerClient) -> str:
    """Return where this machine has Docker's socket, for a container that starts others.

    Raises:
        UserError: Docker is reached by other means.

    """
    adapter: Any = client.api.get_adapter(client.api.base_url)
    path = getattr(adapter, "socket_path", "")
    if not path or not os.path.exists(path):  # noqa: PTH110  # what Docker calls it
        raise UserError("docker", expected="a socket of this machine, which a container can be lent", seen=os.environ.get("DOCKER_HOST", "another way"), hint="unset DOCKER_HOST")
    return str(path)

