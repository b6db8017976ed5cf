"""media: a function of the mesh that keeps what it is sent in object storage and hands work to a Lambda function, by boto3 through its own proxy."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clusters.manifests import load_manifest

IMAGE = "faasmesh.test/faasmesh/media:1"
# The names under which functions know the services of AWS; the mesh says who may reach them, and where they are.
S3_HOST = "s3.serverless.local"
LAMBDA_HOST = "lambda-function.serverless.local"
# A name that the mesh is never told of, for the twin that is refused.
STRANGER_HOST = "s3.stranger.serverless.local"
_MANIFESTS = Path(__file__).parent / "manifests.yaml"


def media(name: str, *, address: str, keys: tuple[str, str], timeout_s: float = 5.0, labels: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
    """Return the ServiceAccount, Service and Deployment of a media function, for `World.deploy`; its Service takes requests on port 80.

    `address` is what its resolver answers for every name of AWS: where the machine's DNS would lead, were the mesh not in between. `keys` are those
    of its user; `timeout_s` is how long it waits for AWS.
    """
    account, front, deployment = (document.body for document in load_manifest(_MANIFESTS))
    front["metadata"]["name"] = deployment["metadata"]["name"] = name
    front["spec"]["selector"] = deployment["spec"]["selector"]["matchLabels"] = {"app": name}
    template = deployment["spec"]["template"]
    template["metadata"]["labels"] |= {**(labels or {}), "app": name}
    template["spec"]["hostAliases"] = [{"ip": address, "hostnames": [S3_HOST, LAMBDA_HOST, STRANGER_HOST]}]
    endpoints = {"s3": f"http://{S3_HOST}", "lambda": f"http://{LAMBDA_HOST}"}
    told = {"VERSION": name, "ENDPOINTS": json.dumps(endpoints), "ACCESS_KEY": keys[0], "SECRET_KEY": keys[1], "TIMEOUT_S": f"{timeout_s:g}"}
    template["spec"]["containers"][0]["env"] += [{"name": variable, "value": value} for variable, value in told.items()]
    return [account, front, deployment]
