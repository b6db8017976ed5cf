"""Invocations through boto3, and what the account's log has of them: what is evidence of a Lambda function."""

import json
import time
from collections.abc import Mapping
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from workloads.aws import execution
from workloads.aws.account import Account


def invoke(account: Account, function: str, event: Mapping[str, Any]) -> dict[str, Any]:
    """Invoke a function once and return what came of it as JSON types: `status`, `error`, `answer`, and the `seconds` it took.

    `status` is 0 where nobody answered. `error` is what the function, the service or the client calls it, and empty for an answer.
    """
    began = time.monotonic()
    try:
        told = account.client("lambda").invoke(FunctionName=function, Payload=json.dumps(event).encode())
        status, answer = int(told["StatusCode"]), _read(told["Payload"].read())
        error = answer.get("errorType", "") if isinstance(answer, dict) else ""
        error = error or str(told.get("FunctionError", ""))
    except ClientError as refused:
        status, error = int(refused.response["ResponseMetadata"]["HTTPStatusCode"]), str(refused.response["Error"].get("Code", ""))
        answer = str(refused.response["Error"].get("Message", ""))[:300]
    except BotoCoreError as lost:
        status, error, answer = 0, type(lost).__name__, str(lost)[:300]
    return {"status": status, "error": error, "answer": answer, "seconds": round(time.monotonic() - began, 3)}


def logged(account: Account, function: str) -> list[dict[str, Any]]:
    """Return the lines that a function printed for its invocations, as the account's log has them, each once."""
    client, group = account.client("logs"), f"/aws/lambda/{function}"
    found: list[dict[str, Any]] = []
    for stream in client.describe_log_streams(logGroupName=group)["logStreams"]:
        told = client.get_log_events(logGroupName=group, logStreamName=stream["logStreamName"], startFromHead=True)
        found += execution.events("\n".join(str(one["message"]) for one in told["events"]))
    return found


def _read(payload: bytes) -> Any:  # noqa: ANN401  # JSON has no narrower type
    text = payload.decode("utf-8", "replace")
    try:
        answer = json.loads(text)
    except ValueError:
        # moto's own words, where no function ran.
        return text[:600]
    return answer if len(text) <= 10_000 else f"{len(text)} bytes"  # noqa: PLR2004  # what fits into evidence
