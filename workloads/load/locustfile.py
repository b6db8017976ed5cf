"""The load generator's side: Locust runs this file in a process of its own; nothing imports it.

What to do is a JSON object in the environment variable FAASMESH_LOAD (see `workloads.load.generator`). Every call becomes
one line of JSON in the file that it names. requests is used, not Locust's faster client: that one sends a call again,
unasked, when a kept connection turns out to be closed, and a failed call must be seen to fail.
"""

import itertools
import json
import os
from pathlib import Path
from typing import Any

import gevent
from locust import HttpUser, constant_throughput, events, task
from locust.env import Environment

ORDER: dict[str, Any] = json.loads(os.environ["FAASMESH_LOAD"])
RECORDS = Path(ORDER["records"]).open("a", encoding="utf-8", buffering=1)  # noqa: SIM115  # open as long as the process lives
PERSONAS = itertools.cycle(ORDER["personas"])


class FunctionUser(HttpUser):
    """Somebody who calls one function again and again."""

    host = ORDER["url"]
    wait_time = constant_throughput(ORDER["calls_per_s"])

    def on_start(self) -> None:
        """Become the next persona."""
        persona = next(PERSONAS)
        # The environment's proxies are for the world outside; the function is next door.
        self.client.trust_env = False
        self.client.headers.update({**persona["headers"], "Host": ORDER["host"], ORDER["persona_header"]: persona["name"]})

    @task
    def call(self) -> None:
        """Call the function once."""
        self.client.get(ORDER["path"], timeout=ORDER["timeout_s"], allow_redirects=False)


@events.request.add_listener  # type: ignore[untyped-decorator]  # Locust publishes none
def record(response: Any, exception: Exception | None, start_time: float, response_time: float, **_: object) -> None:  # noqa: ANN401  # requests', or None
    """Write down one call; a status that Locust counts as a failure is an answer all the same."""
    status = getattr(response, "status_code", 0) or 0
    headers = {name.lower(): value for name, value in response.headers.items()} if status else {}
    seen = response.json().get("headers", {}) if status and "x-version" in headers else {}
    RECORDS.write(json.dumps({
        "status": status, "error": "" if status else f"{type(exception).__name__}: {exception}", "started_at": start_time, "latency_ms": response_time,
        "version": headers.get("x-version", ""), "pod": headers.get("x-pod", ""), "seen": {name: seen[name] for name in ORDER["keep_seen"] if name in seen},
    }) + "\n")


@events.init.add_listener  # type: ignore[untyped-decorator]  # Locust publishes none
def end_with_parent(environment: Environment, **_: object) -> None:
    """A run that was killed must not leave load behind."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            gevent.sleep(1)
        if environment.runner is not None:
            environment.runner.quit()

    gevent.spawn(watch)
