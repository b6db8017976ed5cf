# ruff: noqa: INP001  # the code of a function, no package here
"""The function that a file upload runs: it prints a line for each invocation, with the objects that the event names, and answers with them."""

import json
import os
import platform
from pathlib import Path
from typing import Any
from urllib.parse import unquote_plus

RELEASE = json.loads((Path(__file__).parent / "release.json").read_text())["release"]


def handle(event: dict[str, Any], context: Any) -> dict[str, Any]:  # noqa: ANN401  # AWS's own class, which is only in the image
    """Say which objects were uploaded; `nonce` of the event, where it has one, comes back."""
    # Keys of an S3 event are written as in a query.
    objects = [
        {"name": record["eventName"], "bucket": record["s3"]["bucket"]["name"], "key": unquote_plus(record["s3"]["object"]["key"])}
        for record in event.get("Records", [])
    ]
    print(json.dumps({"event": "invoked", "function": context.function_name, "request": context.aws_request_id, "release": RELEASE, "objects": objects}), flush=True)  # noqa: T201  # a function's log
    return {
        "function": context.function_name, "runtime": f"python {platform.python_version()}", "release": RELEASE, "nonce": event.get("nonce", ""), "objects": objects,
        "variables": {name: os.environ.get(name, "") for name in ("APP_MESH_ENDPOINT", "ENVOY_LOG_LEVEL")},
    }
