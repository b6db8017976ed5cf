# ruff: noqa: INP001  # a module of an image, no package here
"""The media function: a function of the mesh that keeps what it is sent in object storage, and hands work to a Lambda function, through boto3.

Environment: ENDPOINTS (JSON, the address of each service of AWS: {"s3": "http://s3.serverless.local", "lambda": ...}; hosts of any other domain
are refused, AWS's among them), ACCESS_KEY and SECRET_KEY, TIMEOUT_S (5) of one call of AWS, PORT (8080), VERSION, POD_NAME.

    GET  /healthz              200
    POST /objects/BUCKET/KEY   writes the body there
    POST /functions/NAME       invokes the function with the body

A request's x-media-endpoint takes the place of the service's address, and x-media-keys (ACCESS:SECRET) that of the keys. Each call of AWS is made
once and carries the request's trace context on. The answer is JSON: what was seen of the request's headers, and what AWS said. Its status is 200
where AWS took the call, 502 where AWS or somebody on the way refused it, 504 where nobody answered; x-aws-status and x-aws-error say how, and
x-aws-said begins to say what.
"""

import contextvars
import json
import os
import signal
import sys
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import botocore.exceptions
import botocore.session
from botocore.config import Config

DOMAIN = ".serverless.local"
# What a proxy needs of a request to see that the next one is part of it.
CONTEXT = ("x-request-id", "traceparent", "tracestate", "baggage", "b3", "x-b3-traceid", "x-b3-spanid", "x-b3-parentspanid", "x-b3-sampled", "x-b3-flags")
ENDPOINTS: dict[str, str] = json.loads(os.environ.get("ENDPOINTS") or "{}")
TIMEOUT_S = float(os.environ.get("TIMEOUT_S") or 5)
OWN_KEYS = (os.environ.get("ACCESS_KEY", ""), os.environ.get("SECRET_KEY", ""))
_context: contextvars.ContextVar[Mapping[str, str]] = contextvars.ContextVar("context")
_clients: dict[tuple[str, str, tuple[str, str]], Any] = {}


class Refused(Exception):  # noqa: N818  # states what happened
    """An address that is none of ours."""


def client(service: str, endpoint: str, keys: tuple[str, str]) -> Any:  # noqa: ANN401  # botocore makes its classes as it runs
    """Return the client of a service at an address of ours; made once."""
    if not (urlsplit(endpoint).hostname or "").endswith(DOMAIN):
        raise Refused(f"endpoint {endpoint!r}: expected a host of {DOMAIN}")
    if (service, endpoint, keys) not in _clients:
        made = botocore.session.Session().create_client(
            service, "us-east-1", endpoint_url=endpoint, aws_access_key_id=keys[0], aws_secret_access_key=keys[1],
            config=Config(retries={"total_max_attempts": 1, "mode": "standard"}, connect_timeout=TIMEOUT_S, read_timeout=TIMEOUT_S, s3={"addressing_style": "path"}),
        )
        # Finding: added before the request is signed they would be part of what is signed, and a proxy on the way changes them.
        made.meta.events.register("before-send", lambda request, **_: request.headers.update(_context.get({})))
        _clients[service, endpoint, keys] = made
    return _clients[service, endpoint, keys]


def call(path: str, body: bytes, endpoint: str, keys: tuple[str, str]) -> dict[str, Any]:
    """Do what a request's path asks for, and return what AWS says."""
    match path.strip("/").split("/", 2):
        case ["objects", bucket, key]:
            told = client("s3", endpoint or ENDPOINTS["s3"], keys).put_object(Bucket=bucket, Key=key, Body=body)
            return {"status": told["ResponseMetadata"]["HTTPStatusCode"], "error": "", "said": told["ETag"].strip('"')}
        case ["functions", name]:
            told = client("lambda", endpoint or ENDPOINTS["lambda"], keys).invoke(FunctionName=name, Payload=body)
            said = told["Payload"].read()
            try:
                answer = json.loads(said)
            except ValueError:
                # The emulator says so in words when time ran out.
                return {"status": told["StatusCode"], "error": "Unreadable", "said": said.decode("utf-8", "replace")[:300]}
            error = answer.get("errorType", "") if isinstance(answer, dict) else ""
            return {"status": told["StatusCode"], "error": error or told.get("FunctionError", ""), "said": answer if len(said) < 10_000 else f"{len(said)} bytes"}  # noqa: PLR2004  # what fits into evidence
        case _:
            raise Refused(f"path {path}: expected /objects/BUCKET/KEY or /functions/NAME")


def outcome(path: str, body: bytes, endpoint: str, keys: tuple[str, str]) -> tuple[HTTPStatus, dict[str, Any]]:
    """Return what became of a call of AWS, and the status by which the caller is told."""
    try:
        said = call(path, body, endpoint, keys)
    except Refused as refused:
        return HTTPStatus.BAD_REQUEST, {"status": 0, "error": "Refused", "said": str(refused)}
    except botocore.exceptions.ClientError as error:
        told = error.response
        return HTTPStatus.BAD_GATEWAY, {
            "status": told["ResponseMetadata"]["HTTPStatusCode"], "error": str(told["Error"].get("Code", "")), "said": str(told["Error"].get("Message", ""))[:300],
        }
    except (botocore.exceptions.ReadTimeoutError, botocore.exceptions.ConnectTimeoutError) as late:
        return HTTPStatus.GATEWAY_TIMEOUT, {"status": 0, "error": type(late).__name__, "said": str(late)[:300]}
    except (botocore.exceptions.BotoCoreError, OSError) as lost:
        return HTTPStatus.BAD_GATEWAY, {"status": 0, "error": type(lost).__name__, "said": str(lost)[:300]}
    return (HTTPStatus.BAD_GATEWAY if said["error"] else HTTPStatus.OK), said


class Media(BaseHTTPRequestHandler):
    """Answers one request with one call of AWS."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    identity: Mapping[str, str] = {
        "x-version": os.environ.get("VERSION") or "media", "x-pod": os.environ.get("POD_NAME") or os.uname().nodename,
    }

    def do_GET(self) -> None:
        """Say that it listens."""
        found = self.path == "/healthz"
        self.answer(HTTPStatus.OK if found else HTTPStatus.NOT_FOUND, b"ok\n" if found else b"there is no such thing\n", {"content-type": "text/plain"})

    def do_POST(self) -> None:
        """Make the call of AWS that the path names."""
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        seen: dict[str, list[str]] = {}
        for name, value in self.headers.items():
            seen.setdefault(name.lower(), []).append(value)
        _context.set({name: seen[name][0] for name in CONTEXT if name in seen})
        access, _, secret = self.headers.get("x-media-keys", "").partition(":")
        status, said = outcome(self.path, body, self.headers.get("x-media-endpoint", ""), (access, secret) if access else OWN_KEYS)
        request_id = self.headers.get("x-request-id", "")
        print(json.dumps({"event": "request", "request_id": request_id, "path": self.path, "aws": said}), flush=True)  # noqa: T201  # a function's log
        self.answer(status, json.dumps({"headers": seen, "aws": said}).encode() + b"\n", {
            "content-type": "application/json", "x-request-id": request_id, "x-aws-status": str(said["status"]), "x-aws-error": said["error"],
            # JSON writes what is not ASCII otherwise, and no line ends.
            "x-aws-said": json.dumps(said["said"])[:500], **self.identity,
        })

    def answer(self, status: HTTPStatus, body: bytes, headers: Mapping[str, str]) -> None:
        """Send an answer whole."""
        self.send_response(status)
        for name, value in {"content-length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Leave http.server's own log out: a request has its line already."""


def main() -> None:
    """Serve until SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    for service, endpoint in ENDPOINTS.items():
        # Made now: the first call of a service reads its description, which takes a second.
        client(service, endpoint, OWN_KEYS)
    server = ThreadingHTTPServer(("", int(os.environ.get("PORT") or 8080)), Media)
    server.daemon_threads = True
    server.serve_forever()


if __name__ == "__main__":
    main()
