"""The whole life of the reference's alert, recorded once: two Prometheis, one that is to be alarmed and one that is not, an Alertmanager and a receiver."""

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from clusters.components.prometheus.client import AlertmanagerClient, PrometheusClient
from clusters.waiting import TimedOut, eventually
from suites.support import alerts
from suites.support.alerts import Times
from suites.support.manifests import Manifests
from workloads.caller.client import Caller
from workloads.fixtures import World
from workloads.receiver.client import Receiver

# The two Prometheis, each of which scrapes the function of its own name and nothing else: the expression sums over all that there is.
LOUD, QUIET = "loud", "quiet"
ALERTMANAGER = "alerts"
STEADY, SHAKY = "steady", "shaky"
# The reference's alert, its twins by the same expression, and what is recorded at every evaluation: the expression without its threshold.
ALERT = "HighFunctionErrorRate"
GROUPED = "HighFunctionErrorShare"
CRITICAL = "CriticalFunctionErrorRate"
SILENCED = "SilencedFunctionErrorRate"
# What the silence matches.
MAINTENANCE = {"maintenance": "yes"}
ALERTS = (ALERT, GROUPED, CRITICAL, SILENCED)
SHARE = "faasmesh:function_error_share"
THRESHOLD = 5.0
# At so many evaluations nobody has called anything yet.
BEFORE = 4
REFUSED = 2
MANIFEST = "error_rate.yaml"
# What a check asks for: the whole life by given times, as JSON types.
Life = Callable[[Times], Mapping[str, Any]]


@dataclass(frozen=True)
class Calls:
    """So many calls of a function at an even pace: how many it answers with 500, or else with 200."""

    count: int
    per_s: float
    failing: bool = False


# What the loud function is called by, side by side: one in five calls fails until well after all of it has been notified, and the others go on
# until the failures have left the window. Rates are for a window of ten seconds.
LOUD_FAILING, LOUD_ANSWERED = Calls(84, 4, failing=True), Calls(480, 16)
# What the quiet one is called by, one after the other: three times failures that are soon diluted by others, so that the share is above the
# threshold for some five seconds each time; the first with the fewest calls, for each has to outweigh what is in the window.
FLAPPING = (
    Calls(3, 10, failing=True), Calls(20, 20), Calls(8, 2), Calls(80, 80), Calls(4, 2),
    Calls(10, 20, failing=True), Calls(8, 2), Calls(250, 250), Calls(4, 2),
    Calls(20, 20, failing=True), Calls(8, 2), Calls(450, 450), Calls(6, 2),
)
# And then, side by side, one failure in twenty-five calls for longer than a window and the rule's `for` together.
BELOW_FAILING, BELOW_ANSWERED = Calls(25, 1, failing=True), Calls(600, 24)


@dataclass
class Recorder:
    """Applies the manifest that lies beside the check, drives both functions by the clock of `times`, and writes down what comes of it."""

    world: World
    manifests: Manifests
    receiver: Receiver
    callers: Mapping[str, Caller]
    urls: Mapping[str, str]
    images: Mapping[str, str]
    times: Times

    @property
    def unit(self) -> float:
        """A second of a life whose window is ten of them."""
        return self.times.window / 10

    def record(self) -> dict[str, Any]:
        """Return the whole life as JSON types.

        Raises:
            WitnessMissing: a Prometheus or the Alertmanager stopped answering; the message says which, and what it said last.
            TimedOut: one of them did not come up.

        """
        # One that is on its way out would be taken for its successor of the same name.
        for pod in (*(f"prometheus-{name}-0" for name in (LOUD, QUIET)), f"alertmanager-{ALERTMANAGER}-0"):
            self.world.kube.await_gone("Pod", pod, self.world.namespace, within=self.world.timeouts.namespace_gone)
        self.manifests.apply(MANIFEST, **self.images, **self.times.texts(), hurried=alerts.written(self.times.group_interval / 5))
        kube, timeouts, namespace = self.world.kube, self.world.timeouts, self.world.namespace
        witnesses = {name: PrometheusClient(kube, timeouts, namespace, name) for name in (LOUD, QUIET)}
        alertmanager = AlertmanagerClient(kube, timeouts, namespace, ALERTMANAGER)
        alertmanager.await_ready()
        for one in witnesses.values():
            one.await_ready(alertmanagers=1)
            one.await_loaded(["ServiceMonitor", "PrometheusRule"])
        self.receiver.refuse(SHAKY)
        silence = alertmanager.silence(MAINTENANCE, seconds=600 * self.unit, why="the check that a silence holds")
        self._await_evaluations(witnesses)
        # By Prometheus's clock, as everything that it and the receiver write down: the host's may be another.
        ahead = witnesses[LOUD].instant("time()")[0].value - time.time()
        before, began = self.world.state(), time.time() + ahead
        # Two draws of each, and the one who orders the quiet one's.
        with ThreadPoolExecutor(5) as pool:
            driven = {
                LOUD: [pool.submit(self._call, LOUD, [calls]) for calls in (LOUD_FAILING, LOUD_ANSWERED)],
                QUIET: [pool.submit(self._drive_quiet, pool)],
            }
            watch = _Watch(self, alertmanager, silence, began, ahead)
            with suppress(TimedOut):
                eventually(lambda: watch.look(driven), within=60 * self.unit + 10, every=min(0.25 * self.unit, 5.0), subject="the alert's life")
            stimuli = {name: [one for future in futures for one in future.result()] for name, futures in driven.items()}
        return {
            "times": asdict(self.times), "began": began, "accepted_at": watch.accepted_at, "silence": {"id": silence, "expired_at": watch.expired_at},
            "alertmanager": watch.seen, "notifications": [one.to_json() for one in self.receiver.notifications() if one.at >= began],
            "sources": {name: f"{namespace}/{name}" for name in witnesses}, "before": before, "after": self.world.state(),
            **{name: {"stimulus": stimuli[name], **self._written(one, began - ahead)} for name, one in witnesses.items()},
        }

    def _await_evaluations(self, witnesses: Mapping[str, PrometheusClient]) -> None:
        """Return once the rules were evaluated some times with both counters there, and the expression is no number: nobody has called."""
        for name, one in witnesses.items():
            def evaluated(one: PrometheusClient = one) -> None:
                for what, query in (("scraped the function", "max(count_over_time(serverless_function_invocations_total[1h]))"), ("evaluated", f"count_over_time({SHARE}[1h])")):
                    times = [sample.value for sample in one.instant(query)] or [0]
                    assert times[0] >= BEFORE, f"{what} {times[0]:g} of {BEFORE} times"

            eventually(evaluated, within=self.world.timeouts.propagation + 2 * BEFORE * self.times.scrape, subject=f"Prometheus {name} does not evaluate its rules")

    def _drive_quiet(self, pool: ThreadPoolExecutor) -> list[dict[str, Any]]:
        made = self._call(QUIET, FLAPPING)
        futures = [pool.submit(self._call, QUIET, [calls]) for calls in (BELOW_FAILING, BELOW_ANSWERED)]
        return made + [one for future in futures for one in future.result()]

    def _call(self, name: str, series: Sequence[Calls]) -> list[dict[str, Any]]:
        return [self._draw(name, calls) for calls in series]

    def _draw(self, name: str, calls: Calls) -> dict[str, Any]:
        headers = [("x-observed-status", f"{name}-function=500")] if calls.failing else []
        rate_per_s = calls.per_s / self.unit
        draw = self.callers[name].draw(
            self.urls[name], count=calls.count, concurrency=8, rate_per_s=rate_per_s, headers=headers, keep_headers=[], keep_seen=[],
        )
        began = datetime.fromisoformat(draw.began).timestamp()
        started = [record.started_ms / 1000 for record in draw.records]
        # How long after its turn the latest call was answered: then it is counted.
        late_s = max((record.started_ms + record.latency_ms) / 1000 - record.index / rate_per_s for record in draw.records)
        return {
            "failing": calls.failing, "count": calls.count, "first": began + min(started), "last": began + max(started), "late_s": late_s,
            "statuses": {str(status): number for status, number in sorted(draw.statuses().items())},
        }

    def _written(self, one: PrometheusClient, began: float) -> dict[str, Any]:
        """Return what a Prometheus has written down itself: the expression and the alerts' states at every evaluation."""
        span = f"[{round(time.time() - began + 10 * self.times.evaluation)}s]"
        stamped: dict[str, dict[str, list[float]]] = {name: {alerts.PENDING: [], alerts.FIRING: []} for name in ALERTS}
        for sample in one.instant(f"ALERTS{span}"):
            stamped.setdefault(sample.labels["alertname"], {}).setdefault(sample.labels["alertstate"], []).append(round(sample.at, 3))
        shares = sorted((sample.at, sample.value) for sample in one.instant(f"{SHARE}{span}"))
        return {"points": [list(point) for point in alerts.joined(shares)], "alerts": stamped, "rules": [rule.to_json() for rule in one.rules()]}


@dataclass
class _Watch:
    """Looks at the Alertmanager and the receiver while the functions are called, lets the shaky inbox recover and ends the silence."""

    recorder: Recorder
    alertmanager: AlertmanagerClient
    silence: str
    began: float
    ahead: float
    accepted_at: float | None = None
    expired_at: float | None = None
    suppressed_at: float | None = None

    def __post_init__(self) -> None:
        self.seen: list[dict[str, Any]] = []

    def look(self, driven: Mapping[str, Sequence["Future[Any]"]]) -> None:
        """Look once; an AssertionError says what is still to come."""
        now = time.time() + self.ahead
        states = {str(one["labels"]["alertname"]): {"state": one["state"], "silenced_by": one["silenced_by"]} for one in self.alertmanager.alerts() if one["labels"].get("prometheus", "").endswith(f"/{LOUD}")}
        if not self.seen or self.seen[-1]["alerts"] != states:
            self.seen.append({"at": now, "alerts": states})
        came = [one for one in self.recorder.receiver.notifications() if one.at >= self.began]
        if self.accepted_at is None and sum(one.refused for one in came) >= REFUSED:
            self.recorder.receiver.accept(SHAKY)
            self.accepted_at = now
        self._end_silence(states, now)
        # Whatever a driver raises is to end the recording, not to be found at its end.
        waiting = [name for name, futures in driven.items() for future in futures if not (future.done() and future.result() is not None)]
        resolved = {one.inbox for one in came if one.status == alerts.RESOLVED and not one.refused}
        assert not waiting, f"{', '.join(waiting)} is still called"
        assert {STEADY, SHAKY} <= resolved, f"resolved came to {', '.join(sorted(resolved)) or 'nobody'}"

    def _end_silence(self, states: Mapping[str, Mapping[str, Any]], now: float) -> None:
        """Expire it three seconds of a scaled life after its alert came: time enough for what is not silenced to be notified."""
        if self.suppressed_at is None and SILENCED in states:
            self.suppressed_at = now
        if self.expired_at is None and self.suppressed_at is not None and now - self.suppressed_at >= self.recorder.times.group_wait + 2 * self.recorder.unit:
            self.alertmanager.expire(self.silence)
            self.expired_at = now


@dataclass
class Lives:
    """Lives that were recorded, by the fault under which they were: several checks are judged by one."""

    recorded: dict[tuple[str, float], dict[str, Any]]

    def of(self, fault: str, times: Times, record: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return the life under a fault (empty: none), recorded when it is asked for first."""
        key = (fault, times.window)
        if key not in self.recorded:
            self.recorded[key] = record()
        return self.recorded[key]
