"""What every provider of a cluster hands to a run."""

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Cluster:
    """A cluster that answers, and what a run may do with it.

    `gateway_url` is the ingress gateway's address on the host's loopback, or None where the host cannot reach it
    (an existing cluster: checks then enter through a client inside the cluster). `owned` says whether the run may install
    components and change cluster-wide objects.
    """

    name: str
    provider: str
    kubeconfig: Path
    context: str
    owned: bool
    gateway_url: str | None = None
    origin: str = "unknown"
    nodes: tuple[str, ...] = ()
    facts: dict[str, str] = field(default_factory=dict)
