# ruff: noqa: INP001  # a module of an image, no package here
"""An execution environment of Lambda: AWS's runtime interface emulator with the runtime that the function asks for, on the function's code.

    environment                    serves invocations on port 8080 until it is ended
    environment HANDLER EVENT      invokes the function once: what it printed goes to stderr, its answer is the last line of stdout;
                                   exit code 1 where the answer is an error (this is how moto runs a function)

Environment: AWS_EXECUTION_ENV (AWS_Lambda_nodejs18.x, AWS_Lambda_python3.11), _HANDLER, LAMBDA_TASK_ROOT, AWS_LAMBDA_FUNCTION_TIMEOUT in
seconds and what else Lambda tells a function. EMULATOR is the emulator's program and PORT what it listens on (8080).
"""

import json
import os
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from http import HTTPStatus

PORT = int(os.environ.get("PORT") or 8080)
# The emulator's one path; the function is called so there, whatever it is called.
INVOKE = f"http://127.0.0.1:{PORT}/2015-03-31/functions/function/invocations"
RUNTIMES = {"nodejs": ("/usr/local/bin/node", "/opt/runtime/bootstrap.mjs"), "python": ("/usr/bin/python3", "-m", "awslambdaric")}
# The emulator listens within a few milliseconds; a busy machine may take its time.
LISTENS_WITHIN_LOOKS = 1200
LOOK_EVERY_S = 0.025
# Beyond the function's own time limit, which the emulator holds it to.
SLACK_S = 30


def command(execution: str, handler: str) -> list[str]:
    """Return the emulator's command line for a runtime as AWS_EXECUTION_ENV names it; ValueError for one that is not here."""
    language = execution.removeprefix("AWS_Lambda_").rstrip("x.0123456789")
    if language not in RUNTIMES:
        raise ValueError(f"runtime {execution!r}: expected one of {', '.join(RUNTIMES)}")
    emulator = os.environ.get("EMULATOR") or "/usr/local/bin/aws-lambda-rie"
    return [emulator, "--runtime-interface-emulator-address", f"0.0.0.0:{PORT}", *RUNTIMES[language], handler]


def answer_of(status: int, body: bytes) -> tuple[str, bool]:
    """Return what the emulator said as one line of JSON, and whether it is an error.

    The emulator marks no error in its answer's head: it is told by its fields, or, where time ran out, by not being JSON.
    """
    try:
        said = json.loads(body or b"null")
    except ValueError:
        return json.dumps({"errorType": "Sandbox.Timedout", "errorMessage": body.decode("utf-8", "replace").strip()}), True
    wrong = isinstance(said, dict) and {"errorMessage", "errorType"} <= said.keys()
    return json.dumps(said), wrong or status != HTTPStatus.OK


def invoke(emulator: "subprocess.Popen[bytes]", event: str) -> tuple[str, bool]:
    """Invoke the function once, as soon as the emulator listens."""
    for _ in range(LISTENS_WITHIN_LOOKS):
        try:
            socket.create_connection(("127.0.0.1", PORT), 1).close()
            break
        except OSError:
            pass
        try:
            # A pause that ends with the emulator.
            code = emulator.wait(LOOK_EVERY_S)
        except subprocess.TimeoutExpired:
            continue
        return json.dumps({"errorType": "Runtime.ExitError", "errorMessage": f"the emulator ended with exit code {code}"}), True
    request = urllib.request.Request(INVOKE, event.encode(), {"content-type": "application/json"})
    limit = float(os.environ.get("AWS_LAMBDA_FUNCTION_TIMEOUT") or 3) + SLACK_S
    try:
        with urllib.request.urlopen(request, timeout=limit) as answer:  # noqa: S310
            return answer_of(answer.status, answer.read())
    except urllib.error.HTTPError as refused:
        return answer_of(refused.code, refused.read())
    except OSError as lost:
        return json.dumps({"errorType": "Runtime.ExitError", "errorMessage": f"the emulator did not answer: {lost}"}), True


def main(arguments: list[str]) -> int:
    """Serve, or invoke once and return the exit code."""
    handler = arguments[0] if arguments else os.environ["_HANDLER"]
    try:
        argv = command(os.environ["AWS_EXECUTION_ENV"], handler)
    except ValueError as unknown:
        sys.stdout.write(json.dumps({"errorType": "Runtime.InvalidRuntime", "errorMessage": str(unknown)}) + "\n")
        return 1
    os.environ["_HANDLER"] = handler
    # AWS's client for Python imports the function from where it is.
    os.chdir(os.environ["LAMBDA_TASK_ROOT"])
    if not arguments:
        os.execv(argv[0], argv)  # noqa: S606  # a fixed program, no shell
    emulator = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=sys.stderr)
    try:
        line, wrong = invoke(emulator, arguments[1])
    finally:
        emulator.terminate()
        try:
            emulator.wait(2)
        except subprocess.TimeoutExpired:
            emulator.kill()
            emulator.wait()
    sys.stderr.flush()
    sys.stdout.write(line + "\n")
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
