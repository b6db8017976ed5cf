"""receiver: where alerts are sent; it keeps every notification with the time at which it came, and refuses them when told to."""

from pathlib import Path
from typing import Any

from clusters.manifests import load_manifest

CONTROL_PORT = 9000
MANIFESTS = Path(__file__).parent / "manifests.yaml"


def receiver() -> list[dict[str, Any]]:
    """Return the Service and Deployment of a receiver, whose inbox X is reached as `http://receiver/X`."""
    return [document.body for document in load_manifest(MANIFESTS)]
