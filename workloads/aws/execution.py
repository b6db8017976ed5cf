"""Execution environments of Lambda functions that stay: a container each, beside the cluster, that takes one invocation at a time."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from clusters.beside import Beside
from clusters.waiting import TimedOut, eventually
from workloads.aws import REGION, code
from workloads.aws.server import Aws
from workloads.lambda_runtime import IMAGE, PORT, TASK_ROOT

# What a function may take, and the emulator to notice.
IDLE_WITHIN_S = 20.0
_STARTED = re.compile(r"^START RequestId: (\S+)", re.MULTILINE)
_ENDED = re.compile(r"^END RequestId: (\S+)|Invoke failed .*?InvokeID=(\S+)", re.MULTILINE)


class NotTheFunction(Exception):  # noqa: N818  # states what happened
    """The code that was to be put into an environment is not the one that the account has of the function."""


@dataclass(frozen=True)
class Environment:
    """A function's execution environment, by the address that a virtual node's instance is registered with.

    Finding: AWS's emulator takes one invocation at a time, as an environment does; but where Lambda begins another environment or answers 429,
    the emulator is broken by a second one (a nil pointer, and the container ends).
    """

    beside: Beside

    @property
    def address(self) -> str:
        """Its address on the cluster's network."""
        return self.beside.address

    @property
    def attributes(self) -> dict[str, str]:
        """What Cloud Map is told of it."""
        return {"AWS_INSTANCE_IPV4": self.address, "AWS_INSTANCE_PORT": str(PORT)}

    def invocations(self, nonce: str, since: float = 0.0) -> int:
        """Return how often the function was run with this nonce, by its own log."""
        return sum(line.get("nonce") == nonce for line in events(self.beside.log(since)))

    def await_idle(self) -> None:
        """Return once no invocation is under way.

        Raises:
            TimedOut: one is.

        """

        def idle() -> None:
            left = busy(self.beside.log())
            assert not left, f"{', '.join(left)} under way"

        eventually(idle, within=IDLE_WITHIN_S, every=0.1, subject="an invocation in the environment")

    def lives(self) -> bool:
        """Tell whether it runs and comes to rest: one that was broken may run on with an invocation that never ends."""
        if not self.beside.running():
            return False
        try:
            self.await_idle()
        except TimedOut:
            return False
        return True

    def end(self) -> None:
        """Remove it."""
        self.beside.end()


def start(aws: Aws, function: str, content: Mapping[str, bytes], *, name: str) -> Environment:
    """Start an environment of a function of the account, with its handler, its variables, its time limit, and `content` as its code.

    Raises:
        NotTheFunction: the account has other code of it.
        UserError: Docker refuses.

    """
    told = aws.account.client("lambda").get_function_configuration(FunctionName=function)
    if (digest := code.digest(code.package(content))) != told["CodeSha256"]:
        raise NotTheFunction(f"{function}: {told['CodeSha256']} in the account, {digest} here")
    return Environment(Beside.start(
        aws.image(IMAGE), name=f"faasmesh-lambda-{name}-{aws.label}", port=PORT, env=environment_of(told),
        files={f"{TASK_ROOT}/{file}": data for file, data in content.items()}, memory=f"{told['MemorySize']}m",
    ))


def environment_of(told: Mapping[str, Any]) -> dict[str, str]:
    """Return what Lambda tells a function's process of the function, and the function's own variables."""
    return {
        "_HANDLER": told["Handler"], "AWS_EXECUTION_ENV": f"AWS_Lambda_{told['Runtime']}", "AWS_REGION": REGION,
        "AWS_LAMBDA_FUNCTION_NAME": told["FunctionName"], "AWS_LAMBDA_FUNCTION_TIMEOUT": str(told["Timeout"]),
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(told["MemorySize"]), "AWS_LAMBDA_FUNCTION_VERSION": told["Version"],
        **told.get("Environment", {}).get("Variables", {}),
    }


def events(log: str) -> list[dict[str, Any]]:
    """Return the lines that functions print for their invocations, out of whatever else was printed."""
    found = []
    for line in log.splitlines():
        if line.startswith("{"):
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
    return [one for one in found if isinstance(one, dict) and one.get("event") == "invoked"]


def busy(log: str) -> list[str]:
    """Return the invocations that an emulator began and has not ended, by its log."""
    ended = {one or other for one, other in _ENDED.findall(log)}
    return [one for one in _STARTED.findall(log) if one not in ended]

