"""What a lonely check may change of the kubelets of a kind cluster: how long a container's log grows before it is rotated."""

import base64
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import yaml
from docker.models.containers import Container

from clusters.errors import UserError
from clusters.images.registry import docker_client
from clusters.waiting import eventually

_CONFIGURATION = "/var/lib/kubelet/config.yaml"
# Below /run, so that a node that is started anew has forgotten both.
_OURS = "/run/faasmesh-kubelet.yaml"
_DROP_IN = "/run/systemd/system/kubelet.service.d/90-faasmesh.conf"
# The kubelet takes no shorter one.
SHORTEST_ROUND = "3s"
_ANSWERS_WITHIN_S = 60.0
_LOGS = "/var/log/pods"


@contextmanager
def rotating(nodes: Iterable[str], largest: str) -> Iterator[None]:
    """Have the kubelets of some node containers rotate every log that is larger than `largest`, looking every three seconds, for a block.

    It concerns every container of the cluster. A run that is killed meanwhile leaves it so; `restore` mends it.

    Raises:
        UserError: a node refuses.

    """
    names = tuple(nodes)
    try:
        for node in names:
            with _container(node) as container:
                configuration: dict[str, Any] = yaml.safe_load(_run(container, ["cat", _CONFIGURATION]))
                configuration |= {"containerLogMaxSize": largest, "containerLogMonitorInterval": SHORTEST_ROUND}
                drop_in = f'[Service]\nEnvironment="KUBELET_CONFIG_ARGS=--config={_OURS}"\n'
                _put(container, {_OURS: yaml.safe_dump(configuration), _DROP_IN: drop_in})
                _start_anew(container)
        yield
    finally:
        for node in names:
            with _container(node) as container:
                restore(container)


def restore(container: Container) -> None:
    """Give a node's kubelet its own configuration back, where it has another."""
    if container.exec_run(["test", "-e", _DROP_IN]).exit_code == 0:
        _run(container, ["rm", "-f", _DROP_IN, _OURS])
        _start_anew(container)


def log_files(node: str, namespace: str, pod: str, uid: str, container: str) -> list[str]:
    """Return the names of the log files that a node has of one container: the one that is written to, and those that were rotated."""
    with _container(node) as found:
        return sorted(_run(found, ["ls", f"{_LOGS}/{namespace}_{pod}_{uid}/{container}"]).split())


@contextmanager
def _container(node: str) -> Iterator[Container]:
    with docker_client() as client:
        yield client.containers.get(node)


def _start_anew(container: Container) -> None:
    _run(container, ["systemctl", "daemon-reload"])
    _run(container, ["systemctl", "restart", "kubelet"])

    def answers() -> None:
        done = container.exec_run(["curl", "--silent", "--fail", "http://127.0.0.1:10248/healthz"])
        assert done.exit_code == 0, f"curl ends with {done.exit_code}"

    eventually(answers, within=_ANSWERS_WITHIN_S, every=0.2, subject=f"the kubelet of {container.name} is not healthy")


def _put(container: Container, files: dict[str, str]) -> None:
    # What Docker copies into a container goes below the file systems that are mounted in it, as /run is.
    for name, content in files.items():
        encoded = base64.b64encode(content.encode()).decode()
        _run(container, ["sh", "-c", 'mkdir -p "$(dirname "$2")" && echo "$1" | base64 --decode > "$2"', "sh", encoded, name])


def _run(container: Container, argv: list[str]) -> str:
    done = container.exec_run(argv)
    output = cast("bytes", done.output).decode(errors="replace")
    if done.exit_code != 0:
        raise UserError(f"{' '.join(argv)} in node {container.name}", expected="exit code 0", seen=f"{done.exit_code}: {output.strip()[:200]}", hint="the node must be one of kind's")
    return output
