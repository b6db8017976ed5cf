"""The objects of a pod that calls others: a ServiceAccount and a Deployment under a name of choice."""

from pathlib import Path
from typing import Any

from clusters.manifests import load_manifest


def client_pod(manifests: Path, name: str, service_account: str) -> list[dict[str, Any]]:
    """Read `manifests` (a ServiceAccount, then a Deployment) and return them as `name` with the identity `service_account`."""
    account, deployment = (document.body for document in load_manifest(manifests))
    account["metadata"]["name"] = service_account
    deployment["metadata"]["name"] = name
    deployment["spec"]["selector"]["matchLabels"] = {"app": name}
    template = deployment["spec"]["template"]
    template["metadata"]["labels"]["app"] = name
    template["spec"]["serviceAccountName"] = service_account
    return [account, deployment]
