"""lambda_runtime: what Lambda's functions run in, AWS's runtime interface emulator with a runtime for Node 18 and one for Python."""

from pathlib import Path

IMAGE = "faasmesh.test/faasmesh/lambda-runtime:1"
# Where the emulator takes invocations, and the one path on which it does, whatever the function is called.
PORT = 8080
INVOCATIONS = "/2015-03-31/functions/function/invocations"
# Where a function's code lies in it.
TASK_ROOT = "/var/task"
APP = Path(__file__).parent / "app"
