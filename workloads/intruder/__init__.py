"""intruder: the caller's program beside the mesh, without a sidecar: no identity, plaintext."""

from pathlib import Path
from typing import Any

from workloads.client_pod import client_pod

MANIFESTS = Path(__file__).parent / "manifests.yaml"


def intruder(name: str = "intruder") -> list[dict[str, Any]]:
    """Return the ServiceAccount and Deployment of an intruder."""
    return client_pod(MANIFESTS, name, name)
