"""The questions a check may ask of a Prometheus and of an Alertmanager that the operator made."""

import gzip
import math
import time
import uuid
from base64 import b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from clusters.components.prometheus.manifests import OWN, SHARED
from clusters.components.prometheus.witness import Refused, Witness, WitnessMissing
from clusters.kube import Kube, NotFound
from clusters.pods import describe
from clusters.timeouts import Timeouts
from clusters.waiting import Waited, eventually, timed

PORT = 9090
ALERTMANAGER_PORT = 9093
MONITOR = "monitoring.coreos.com/v1/ServiceMonitor"
POD_MONITOR = "monitoring.coreos.com/v1/PodMonitor"
RULE = "monitoring.coreos.com/v1/PrometheusRule"
CONFIGURING = {"ServiceMonitor", "PodMonitor", "PrometheusRule"}
# What the barrier is called; a label of its own for every instance, so that no other one loads it.
BARRIER = "faasmesh-barrier"
TOUCHED = "faasmesh.dev/touched"
# A kubelet looks after a pod's volumes when the pod changes, and otherwise once a minute or so.
TOUCH_EVERY_S = 1.0

Labels = Mapping[str, str]


@dataclass(frozen=True)
class Sample:
    """One value of one series; `at` is the time of the evaluation, or of the scrape where samples were asked for (seconds since 1970)."""

    labels: Labels
    value: float
    at: float

    def to_json(self) -> dict[str, Any]:
        """Return the sample as evidence keeps it; a value that JSON has no word for as text."""
        value = self.value if math.isfinite(self.value) else str(self.value)
        return {"labels": dict(self.labels), "value": value, "at": self.at}


@dataclass(frozen=True)
class Target:
    """One endpoint that is scraped every `interval`: `health` is up, down or unknown, `error` why it is down, `last` when it was scraped (0: never)."""

    pool: str
    url: str
    interval: str
    health: str
    error: str
    last: float
    labels: Labels

    def to_json(self) -> dict[str, Any]:
        """Return the target as evidence keeps it."""
        return {**vars(self), "labels": dict(self.labels)}


@dataclass(frozen=True)
class Alert:
    """One alert of a rule: `state` is pending or firing, `active_at` since when its expression holds."""

    labels: Labels
    annotations: Labels
    state: str
    active_at: float
    value: str

    def to_json(self) -> dict[str, Any]:
        """Return the alert as evidence keeps it."""
        return {**vars(self), "labels": dict(self.labels), "annotations": dict(self.annotations)}


@dataclass(frozen=True)
class Rule:
    """An alerting rule as it stands: `state` is inactive, pending or firing, `health` ok, err or unknown, `evaluated` when it was last looked at."""

    group: str
    name: str
    state: str
    health: str
    error: str
    evaluated: float
    alerts: tuple[Alert, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the rule as evidence keeps it."""
        return {**vars(self), "alerts": [one.to_json() for one in self.alerts]}


@dataclass(frozen=True)
class Exemplar:
    """One example that a series carries: the labels that lead to a trace or a request, the value and when it was seen."""

    series: Labels
    labels: Labels
    value: float
    at: float

    def to_json(self) -> dict[str, Any]:
        """Return the exemplar as evidence keeps it."""
        return {**vars(self), "series": dict(self.series), "labels": dict(self.labels)}


@dataclass
class PrometheusClient:
    """One Prometheus as a check sees it, through the API server only: the pod that the operator made for the resource `name`.

    Every question raises WitnessMissing where nobody answers; an answer without a result is an empty list.
    """

    kube: Kube
    timeouts: Timeouts
    namespace: str
    name: str
    witness: Witness = field(init=False)

    def __post_init__(self) -> None:
        """Find the pod by the name that the operator gives it."""
        self.witness = Witness(self.kube, "Prometheus", self.pod, self.namespace, PORT)

    @property
    def pod(self) -> str:
        """The one pod of the instance."""
        return f"prometheus-{self.name}-0"

    def await_ready(self, *, alertmanagers: int = 0) -> None:
        """Return once it answers and knows that many Alertmanagers.

        Raises:
            TimedOut: it does not; the message gives what was seen last.

        """
        def ready() -> None:
            try:
                self.instant("vector(1)")
            except WitnessMissing as missing:
                raise AssertionError(f"{missing}; {_pod_said(self.kube, self.namespace, self.pod)}") from missing
            known = self.alertmanagers()
            assert len(known) == alertmanagers, f"it sends alerts to {known or 'nobody'}"

        eventually(ready, within=self.timeouts.deployment_available, subject=f"Prometheus {self.namespace}/{self.name} not ready")

    def instant(self, query: str, *, at: float | None = None) -> list[Sample]:
        """Return the result of an expression now, or at a time (seconds since 1970).

        A range such as `up[1m]` gives every sample in it, with the time of its scrape. Raises Refused for an expression that is none.
        """
        told = self._data("/api/v1/query", {"query": query, **({} if at is None else {"time": f"{at:.3f}"})})
        kind, result = told["resultType"], told["result"]
        if kind == "matrix":
            samples = [Sample(one["metric"], float(value), float(when)) for one in result for when, value in one["values"]]
        elif kind == "vector":
            samples = [Sample(one["metric"], float(one["value"][1]), float(one["value"][0])) for one in result]
        else:
            samples = [Sample({}, float(result[1]), float(result[0]))]
        self.witness.remember(f"{query} = {', '.join(f'{dict(one.labels)} {one.value:g}' for one in samples[-3:]) or 'no result'}")
        return samples

    def targets(self) -> list[Target]:
        """Return what is scraped, with how the last scrape went."""
        found = [
            Target(one["scrapePool"], one["scrapeUrl"], one["scrapeInterval"], one["health"], one["lastError"], stamp(one["lastScrape"]), one["labels"])
            for one in self._data("/api/v1/targets", {"state": "active"})["activeTargets"]
        ]
        self.witness.remember(f"targets {', '.join(f'{one.url} {one.health}' for one in found) or 'none'}")
        return found

    def rules(self) -> list[Rule]:
        """Return the alerting rules as they stand."""
        found = [
            Rule(group["name"], one["name"], one["state"], one["health"], one.get("lastError", ""), stamp(one["lastEvaluation"]), tuple(_alert(told) for told in one["alerts"]))
            for group in self._data("/api/v1/rules", {"type": "alert"})["groups"] for one in group["rules"]
        ]
        self.witness.remember(f"rules {', '.join(f'{one.name} {one.state}' for one in found) or 'none'}")
        return found

    def exemplars(self, query: str, *, since: float, until: float) -> list[Exemplar]:
        """Return the exemplars of the series of an expression between two times (seconds since 1970)."""
        told = self._data("/api/v1/query_exemplars", {"query": query, "start": f"{since:.3f}", "end": f"{until:.3f}"})
        return [
            Exemplar(one["seriesLabels"], each["labels"], float(each["value"]), float(each["timestamp"]))
            for one in told for each in one["exemplars"]
        ]

    def metadata(self, metric: str) -> list[dict[str, str]]:
        """Return what targets say of a metric: type, help and unit, each way of saying it once."""
        found: list[dict[str, str]] = self._data("/api/v1/metadata", {"metric": metric}).get(metric, [])
        return found

    def alertmanagers(self) -> list[str]:
        """Return the addresses that alerts are sent to."""
        return [str(one["url"]) for one in self._data("/api/v1/alertmanagers")["activeAlertmanagers"]]

    def await_loaded(self, kinds: Sequence[str] = tuple(sorted(CONFIGURING))) -> Waited[None]:
        """Return when it works by every monitor and rule of these kinds that was applied to its namespace before this call.

        A barrier is sent behind them: a monitor of nothing and a rule without a sense, with a fresh name in each. The operator hears of
        each kind in order, so what holds the name holds what came before. Then the kubelet is asked to look at the pod's volumes, by a
        change of the pod: finding: it does that by itself once a minute or so, whatever the API server has told it.

        Raises:
            TimedOut: it does not; the message says who has not noticed yet, the operator or Prometheus.

        """
        wanted = [kind for kind in kinds if kind in CONFIGURING]
        marker = f"barrier{uuid.uuid4().hex[:12]}"
        self.kube.apply([barrier(kind, marker, self.name) for kind in wanted], self.namespace)
        touched = 0.0

        def loaded() -> None:
            nonlocal touched
            made = [kind for kind in wanted if marker not in self._made(kind)]
            assert not made, f"the operator has not made {', '.join(made)} into its configuration"
            held = self._held(wanted)
            missing = [kind for kind in wanted if marker not in held[kind]]
            if missing and time.monotonic() - touched > TOUCH_EVERY_S:
                self._touch(marker)
                touched = time.monotonic()
            assert not missing, f"it has not loaded {', '.join(missing)}"

        return timed(
            loaded, within=self.timeouts.propagation, every=0.1, ignoring=(WitnessMissing, NotFound),
            subject=f"Prometheus {self.namespace}/{self.name} works by an earlier configuration",
        )

    def _made(self, kind: str) -> str:
        """Return what the operator has written for it."""
        if kind == "PrometheusRule":
            made = self.kube.get("ConfigMap", f"prometheus-{self.name}-rulefiles-0", self.namespace)
            return "\n".join((made.get("data") or {}).values())
        secret = self.kube.get("Secret", f"prometheus-{self.name}", self.namespace)
        return gzip.decompress(b64decode(secret["data"]["prometheus.yaml.gz"])).decode()

    def _held(self, kinds: Sequence[str]) -> dict[str, str]:
        """Return what it works by, as text, for each of the kinds."""
        config = self._data("/api/v1/status/config")["yaml"]
        rules = str(self._data("/api/v1/rules", {"type": "record"})) if "PrometheusRule" in kinds else ""
        return {kind: rules if kind == "PrometheusRule" else config for kind in kinds}

    def _touch(self, marker: str) -> None:
        self.kube.annotate("Pod", self.pod, {TOUCHED: f"{marker}-{time.time():.3f}"}, self.namespace)

    def _data(self, path: str, parameters: Mapping[str, str] | None = None) -> Any:  # noqa: ANN401  # JSON
        told = self.witness.ask(path, parameters)
        if told.get("status") != "success":
            raise Refused(f"Prometheus {self.namespace}/{self.name} answered {path}: {told.get('error')}")
        return told["data"]


@dataclass
class AlertmanagerClient:
    """One Alertmanager as a check sees it, through the API server only: the pod that the operator made for the resource `name`."""

    kube: Kube
    timeouts: Timeouts
    namespace: str
    name: str
    witness: Witness = field(init=False)

    def __post_init__(self) -> None:
        """Find the pod by the name that the operator gives it."""
        self.witness = Witness(self.kube, "Alertmanager", self.pod, self.namespace, ALERTMANAGER_PORT)

    @property
    def pod(self) -> str:
        """The one pod of the instance."""
        return f"alertmanager-{self.name}-0"

    def await_ready(self) -> None:
        """Return once it answers; TimedOut says what was seen last."""
        def ready() -> None:
            try:
                self.status()
            except WitnessMissing as missing:
                raise AssertionError(f"{missing}; {_pod_said(self.kube, self.namespace, self.pod)}") from missing

        eventually(ready, within=self.timeouts.deployment_available, subject=f"Alertmanager {self.namespace}/{self.name} not ready")

    def status(self) -> dict[str, Any]:
        """Return its version, the configuration it works by and since when it runs."""
        told: dict[str, Any] = self.witness.ask("/api/v2/status")
        return {"version": told["versionInfo"]["version"], "config": told["config"]["original"], "since": told["uptime"]}

    def alerts(self) -> list[dict[str, Any]]:
        """Return the alerts that have not ended: labels, annotations, state (active, suppressed, unprocessed), what silences or inhibits them, receivers."""
        found = [
            {
                "labels": one["labels"], "annotations": one["annotations"], "state": one["status"]["state"],
                "silenced_by": one["status"]["silencedBy"], "inhibited_by": one["status"]["inhibitedBy"],
                "receivers": [each["name"] for each in one["receivers"]], "starts_at": stamp(one["startsAt"]), "ends_at": stamp(one["endsAt"]),
            }
            for one in self.witness.ask("/api/v2/alerts")
        ]
        self.witness.remember(f"alerts {', '.join(f'''{one['labels'].get('alertname')} {one['state']}''' for one in found) or 'none'}")
        return found

    def silence(self, matchers: Labels, *, seconds: float, why: str) -> str:
        """Keep alerts with these labels from being notified for a time; return the silence's id. It is in force from the answer on."""
        now = time.time()
        told = self.witness.ask("/api/v2/silences", method="POST", body={
            "matchers": [{"name": name, "value": value, "isRegex": False, "isEqual": True} for name, value in matchers.items()],
            "startsAt": _written(now), "endsAt": _written(now + seconds), "createdBy": "faasmesh", "comment": why,
        })
        return str(told["silenceID"])

    def expire(self, silence: str) -> None:
        """End a silence now."""
        self.witness.ask(f"/api/v2/silence/{silence}", method="DELETE")


def barrier(kind: str, marker: str, instance: str) -> dict[str, Any]:
    """Return an object of a kind that a Prometheus is configured by, which changes nothing but carries a name that is found again."""
    spec: dict[str, Any]
    if kind == "PrometheusRule":
        spec = {"groups": [{"name": BARRIER, "rules": [{"record": f"faasmesh:{marker}", "expr": "vector(1)"}]}]}
    else:
        endpoints = "endpoints" if kind == "ServiceMonitor" else "podMetricsEndpoints"
        nothing = {"matchLabels": {BARRIER: "selects-nothing"}}
        spec = {"selector": nothing, endpoints: [{"port": "none", "params": {"barrier": [marker]}}]}
    return {
        "apiVersion": "monitoring.coreos.com/v1", "kind": kind, "spec": spec,
        # The shared one takes what nobody calls his own.
        "metadata": {"name": f"{BARRIER}-{instance}", "labels": {} if instance == SHARED else {OWN: instance}},
    }


def stamp(text: str) -> float:
    """Return a time as both programs write it (RFC 3339, nanoseconds) in seconds since 1970; 0 for Go's time that never was."""
    return max(datetime.fromisoformat(text).timestamp(), 0.0)


def _written(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _alert(told: Mapping[str, Any]) -> Alert:
    return Alert(told["labels"], told["annotations"], told["state"], stamp(told["activeAt"]), str(told["value"]))


def _pod_said(kube: Kube, namespace: str, pod: str) -> str:
    try:
        return describe([kube.get("Pod", pod, namespace)]) or "its pod is ready"
    except NotFound:
        return "it has no pod"
