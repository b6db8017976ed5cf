"""The load generator's side: Locust runs this file in a process of its own, on the host or in a pod; nothing imports it.

What to do is a JSON object in the environment variable FAASMESH_LOAD (see `workloads.load.generator`). Every call becomes
one line of JSON in the file `calls.jsonl` of the folder that it names, every quarter of a second a line on the generator itself in
`generator.jsonl`; `begun` holds the time at which the load began. requests is used, not Locust's faster client: that one sends a
call again, unasked, when a kept connection turns out to be closed, and a failed call must be seen to fail.

As master and workers, every worker makes the arrivals of its own turn (index modulo the number of workers) and writes its own files.
"""

import itertools
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import psutil
from gevent.event import Event
from locust import HttpUser, constant_throughput, events, task
from locust.env import Environment
from locust.runners import WORKER_REPORT_INTERVAL, LocalRunner, MasterRunner, WorkerRunner

from workloads.load import WARM_UP, Arrival, OpenProfile

ORDER: dict[str, Any] = json.loads(os.environ["FAASMESH_LOAD"])
FOLDER = Path(ORDER["folder"])
PERSONAS = itertools.cycle(ORDER["personas"])
PROFILE = OpenProfile.from_json(ORDER["open"]) if "open" in ORDER else None
CLOSED = ORDER.get("closed", {})
# The messages between master and workers, beside Locust's own.
BEGIN, ENDED = "faasmesh-begin", "faasmesh-ended"
# Between the last worker's word that its users are there and the first arrival.
HEAD_START_S = 1.0
LOOK_EVERY_S = 0.25
NEVER_S = 1e6


class Turn:
    """The arrivals that are this process's to make, and how far it has come."""

    def __init__(self) -> None:
        self.begun = Event()
        self.at = 0.0
        self.left = 0
        self.arrivals: Iterator[Arrival] = iter(())

    def begin(self, environment: Environment, at: float) -> None:
        """Let the users loose at a time of the wall clock."""
        self.at = at
        if PROFILE is not None:
            index, workers = getattr(environment.runner, "worker_index", 0), ORDER["workers"] or 1
            mine = [arrival for arrival in PROFILE.schedule() if arrival.number % workers == index]
            self.left, self.arrivals = len(mine), iter(mine)
        (FOLDER / "begun").write_text(repr(at))
        self.begun.set()
        if PROFILE is not None and not self.left:
            self.left = 1
            self.over(environment)

    def over(self, environment: Environment) -> None:
        """Count a call that has ended; after the last one there is nothing left to do."""
        self.left -= 1
        if PROFILE is not None and self.left == 0 and environment.runner is not None:
            if isinstance(environment.runner, WorkerRunner):
                environment.runner.send_message(ENDED, {"index": environment.runner.worker_index})
            else:
                gevent.spawn(environment.runner.quit)


TURN = Turn()


class Somebody(HttpUser):
    """Calls one function again and again."""

    abstract = True
    host = ORDER["url"]
    arrival: Arrival | None = None
    found_free = True

    def on_start(self) -> None:
        """Become the next persona, and wait for the others."""
        persona = next(PERSONAS)
        # The environment's proxies are for the world outside; the function is next door.
        self.client.trust_env = False
        self.client.headers.update({**persona["headers"], "Host": ORDER["host"], ORDER["persona_header"]: persona["name"]})
        TURN.begun.wait()

    def call(self, due_at: float, stage: str, **context: Any) -> None:  # noqa: ANN401  # what is written down of it
        """Call the function once."""
        asked = self.client.get(
            ORDER["path"], timeout=ORDER["timeout_s"], allow_redirects=False, catch_response=True, context={**context, "stage": stage, "late_ms": 0.0},
        )
        with asked as response:
            made = response.request_meta
            if due_at:
                made["context"]["late_ms"] = max(0.0, 1000 * (made["start_time"] - due_at))
            # Locust's own figures and pages, too, count from when the call was due.
            made["response_time"] += made["context"]["late_ms"]


class Patient(Somebody):
    """Waits for an answer before the next call."""

    abstract = PROFILE is not None
    wait_time = constant_throughput(CLOSED.get("calls_per_s", 1))

    @task
    def again(self) -> None:
        """Call once more."""
        self.call(0, WARM_UP if time.time() < TURN.at + CLOSED["warm_up_s"] else "")


class Newcomer(Somebody):
    """Is whoever arrives next."""

    abstract = PROFILE is None

    def wait_time(self) -> float:
        """Take the next arrival and say in how many seconds it is due."""
        self.arrival = next(TURN.arrivals, None)
        if self.arrival is None:
            return NEVER_S
        due_in = TURN.at + self.arrival.due_s - time.time()
        self.found_free = due_in > 0
        return max(0.0, due_in)

    @task
    def arrive(self) -> None:
        """Make the call that has become due; before the first wait there is none."""
        if self.arrival is not None and PROFILE is not None:
            try:
                self.call(TURN.at + self.arrival.due_s, PROFILE.stages[self.arrival.stage].name, number=self.arrival.number, found_free=self.found_free)
            finally:
                TURN.over(self.environment)


@events.request.add_listener  # type: ignore[untyped-decorator]  # Locust publishes none
def record(response: Any, exception: Exception | None, start_time: float, response_time: float, context: dict[str, Any], **_: object) -> None:  # noqa: ANN401  # requests', or None
    """Write down one call; a status that Locust counts as a failure is an answer all the same."""
    status = getattr(response, "status_code", 0) or 0
    headers = {name.lower(): value for name, value in response.headers.items()} if status else {}
    seen = response.json().get("headers", {}) if status and "x-version" in headers else {}
    CALLS.write(json.dumps({
        "status": status, "error": "" if status else f"{type(exception).__name__}: {exception}",
        # From when it was due, where it was due at a time.
        "started_at": start_time - context["late_ms"] / 1000, "latency_ms": response_time, **context,
        "version": headers.get("x-version", ""), "pod": headers.get("x-pod", ""), "seen": {name: seen[name] for name in ORDER["keep_seen"] if name in seen},
    }) + "\n")


CALLS = (FOLDER / "calls.jsonl").open("a", encoding="utf-8", buffering=1)


@events.init.add_listener  # type: ignore[untyped-decorator]  # Locust publishes none
def prepare(environment: Environment, **_: object) -> None:
    """Say when to begin and when all has ended; look at this process meanwhile, and end with the one that ordered it."""
    runner = environment.runner
    if isinstance(runner, LocalRunner):
        _when_spawned(environment, lambda: TURN.begin(environment, time.time()))
    elif isinstance(runner, WorkerRunner):
        runner.register_message(BEGIN, lambda msg, **_: TURN.begin(environment, msg.data["at"]))
    elif isinstance(runner, MasterRunner):
        _lead(environment, runner)
    # Unlike after SIGTERM, calls under way are waited for and Locust's own page is written.
    gevent.signal_handler(signal.SIGUSR1, lambda: gevent.spawn(_end, environment))
    gevent.spawn(_look_after)
    gevent.spawn(_end_with_parent, environment)


def _lead(environment: Environment, runner: MasterRunner) -> None:
    waiting = set(range(ORDER["workers"]))

    def begin() -> None:
        (FOLDER / "begun").write_text(repr(at := time.time() + HEAD_START_S))
        runner.send_message(BEGIN, {"at": at})

    def ended(msg: Any, **_: object) -> None:  # noqa: ANN401  # Locust publishes no type
        waiting.discard(msg.data["index"])
        if not waiting:
            # Locust waits half a second for the workers' last figures, which are sent less often.
            gevent.spawn_later(WORKER_REPORT_INTERVAL + 1, runner.quit)

    _when_spawned(environment, begin)
    runner.register_message(ENDED, ended)


def _when_spawned(environment: Environment, then: Callable[[], None]) -> None:
    environment.events.spawning_complete.add_listener(lambda **_: then())  # type: ignore[no-untyped-call]  # Locust publishes none


def _end(environment: Environment) -> None:
    if environment.runner is not None:
        environment.runner.quit()


def _look_after() -> None:
    """Write down how busy this process is, and how late it comes to what it wanted to do by now."""
    process = psutil.Process()
    process.cpu_percent()
    with (FOLDER / "generator.jsonl").open("a", encoding="utf-8", buffering=1) as out:
        while True:
            wanted = time.time() + LOOK_EVERY_S
            gevent.sleep(LOOK_EVERY_S)
            now = time.time()
            out.write(json.dumps({"at": now, "cpu": round(process.cpu_percent() / 100, 4), "lag_ms": round(max(0.0, 1000 * (now - wanted)), 2)}) + "\n")


def _end_with_parent(environment: Environment) -> None:
    """A run that was killed must not leave load behind."""
    parent = os.getppid()
    while os.getppid() == parent:
        gevent.sleep(1)
    _end(environment)
