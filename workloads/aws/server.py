"""moto's server beside the cluster: boto3 reaches it on the loopback, pods on the cluster's network, and it runs Lambda functions in containers."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import docker.errors
from docker import DockerClient

from clusters import beside
from clusters.beside import Beside
from clusters.images.registry import NETWORK, docker_client
from workloads.aws import IMAGE, PORT
from workloads.aws.account import Account, Keys
from workloads.lambda_runtime import IMAGE as RUNTIME_IMAGE

# moto fills the volume with a function's code by way of a container of this image, which is asked for by no other name.
FILLER = "busybox:latest"
_SOCKET = "/var/run/docker.sock"


@dataclass
class Aws:
    """An AWS of one process: a moto of its own, and the account there.

    `image` names our images as this machine's Docker has them; `label` is part of the names of all its containers.
    """

    server: Beside
    account: Account
    role: str
    image: Callable[[str], str]
    label: str
    _keys: dict[str, Keys] = field(default_factory=dict)

    def keys(self, user: str, *actions: str) -> Keys:
        """Return the keys of a user who may do `actions`, made when it is first asked for."""
        if user not in self._keys:
            self._keys[user] = self.account.user(user, actions)
        return self._keys[user]


@contextlib.contextmanager
def started(image: Callable[[str], str], label: str, *, runtime: str | None = None) -> Iterator[Aws]:
    """Lend an AWS; `runtime` is the image that its functions run in, by default ours.

    Raises:
        UserError: an image cannot be had, or Docker refuses; one line says which.

    """
    own = image(IMAGE)
    with docker_client() as client:
        beside.sweep(client)
        _lend_filler(client, own)
        socket = beside.socket_path(client)
    environment = {
        "MOTO_DOCKER_LAMBDA_IMAGE": runtime or image(RUNTIME_IMAGE), "MOTO_DOCKER_NETWORK_NAME": NETWORK,
        # A bucket is named in the path; the first label of our host is no bucket.
        "S3_IGNORE_SUBDOMAIN_BUCKETNAME": "true",
    }
    server = Beside.start(own, name=f"faasmesh-moto-{label}", port=PORT, env=environment, volumes={socket: _SOCKET})
    account = Account(server.url)
    try:
        yield Aws(server, account, account.role("function"), image, label)
    finally:
        account.close()
        server.end()
        with docker_client() as client:
            _take_filler_back(client)


def _lend_filler(client: DockerClient, image: str) -> None:
    """Let moto find an image under the filler's name: somebody's own where this machine has it, else moto's, which does as well."""
    try:
        client.images.get(FILLER)
    except docker.errors.ImageNotFound:
        repository, _, tag = FILLER.partition(":")
        client.api.tag(image, repository, tag)


def _take_filler_back(client: DockerClient) -> None:
    """Take the filler's name off our image, once nobody beside the cluster needs it, and end what moto left."""
    beside.sweep(client)
    if client.containers.list(all=True, filters={"label": beside.LABEL}):
        return
    with contextlib.suppress(docker.errors.ImageNotFound):
        if beside.LABEL in client.images.get(FILLER).labels:
            client.api.remove_image(FILLER, noprune=True)
