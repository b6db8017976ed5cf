"""issuer: a token issuer of our own: keys and tokens are made here, a pod serves what a mesh may know of them."""

from pathlib import Path
from typing import Any

from clusters.manifests import load_manifest

CONTROL_PORT = 9000
MANIFESTS = Path(__file__).parent / "manifests.yaml"


def issuer(name: str = "issuer") -> list[dict[str, Any]]:
    """Return the Service and Deployment of an issuer's public side, reached as `http://<name>`."""
    front, deployment = (document.body for document in load_manifest(MANIFESTS))
    front["metadata"]["name"] = name
    front["spec"]["selector"] = {"app": name}
    deployment["metadata"]["name"] = name
    deployment["spec"]["selector"]["matchLabels"] = {"app": name}
    deployment["spec"]["template"]["metadata"]["labels"]["app"] = name
    return [front, deployment]
