"""caller: makes any number of HTTP calls on one request, from inside the mesh, and records each."""

from pathlib import Path
from typing import Any

from workloads.client_pod import client_pod

CONTROL_PORT = 9000
IMAGE = "faasmesh.test/faasmesh/caller:1"
MANIFESTS = Path(__file__).parent / "manifests.yaml"


def caller(name: str = "caller", *, service_account: str | None = None) -> list[dict[str, Any]]:
    """Return the ServiceAccount and Deployment of a caller; its identity is `service_account`, by default its name."""
    return client_pod(MANIFESTS, name, service_account or name)
