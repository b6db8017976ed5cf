"""The questions a check may ask of the log store: which lines has it of whom, how many, and is it there at all."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from clusters.apiserver import ApiRefused, NoAnswer
from clusters.components.istio.client import SIDECAR
from clusters.errors import UserError
from clusters.kube import Kube, PodUnreachable
from clusters.timeouts import Timeouts
from clusters.waiting import eventually

NAMESPACE = "logging"
DEPLOYMENT = "store"
# The name by which the reference's Fluentd finds its store.
HOST = "elasticsearch.logging.svc.cluster.local"
PORT = 9200
# What `logstash_format` names an index: one a day.
INDICES = "logstash-*"
_SCROLLED = 10_000
# An answer that leaves out what cannot be read at the moment would pass for a complete one.
_WHOLE = "allow_partial_search_results=false"
_OK = 200
_NOT_FOUND = 404
# Longer strings are kept and not found by: Lucene refuses a term of more than 32 766 bytes, which may be 8 191 characters.
_LONGEST_TERM = 8191
# Every value is found as it was written, and by no part of it: a request's id, a nonce, a path. Numbers too, for one function's number is another's
# word, and the second to come would be refused. Labels are kept as they are and not looked into: `app` and `app.kubernetes.io/name` cannot both be fields.
TEMPLATE: Mapping[str, Any] = {
    "index_patterns": [INDICES],
    "template": {
        "settings": {"number_of_shards": 1, "number_of_replicas": 0, "refresh_interval": "1s", "index.translog.durability": "request"},
        "mappings": {
            "date_detection": False,
            "properties": {
                "@timestamp": {"type": "date"},
                "kubernetes": {"properties": {"labels": {"type": "object", "enabled": False}, "annotations": {"type": "object", "enabled": False}}},
            },
            "dynamic_templates": [
                {kind: {"match_mapping_type": kind, "mapping": {"type": "keyword", "ignore_above": _LONGEST_TERM}}}
                for kind in ("string", "long", "double", "boolean")
            ],
        },
    },
}


class StoreUnreachable(UserError):  # noqa: N818  # states what happened
    """The store gave no answer, or none that says anything of its lines; an empty answer is not this."""


@dataclass(frozen=True)
class Line:
    """One line as the store has it: who wrote it, what, and, where it was a JSON object, its fields.

    `id` is the store's own name for it: a line that was delivered twice under one id is there once.
    """

    id: str
    namespace: str
    pod: str
    container: str
    stream: str
    at: str
    message: str
    labels: Mapping[str, str]
    fields: Mapping[str, Any]

    @classmethod
    def of(cls, hit: Mapping[str, Any]) -> "Line":
        """Read one hit of a search; what a line lacks is empty."""
        source = hit["_source"]
        of = source.get("kubernetes") or {}
        return cls(
            str(hit["_id"]), of.get("namespace_name", ""), of.get("pod_name", ""), of.get("container_name", ""), source.get("stream", ""),
            source.get("@timestamp", ""), source.get("message", ""), of.get("labels") or {}, source.get("fields") or {},
        )

    def to_json(self) -> dict[str, Any]:
        """Return the line as evidence keeps it."""
        return {**vars(self), "labels": dict(self.labels), "fields": dict(self.fields)}


@dataclass(frozen=True)
class StoreClient:
    """The store as a check sees it, through the API server only."""

    kube: Kube
    timeouts: Timeouts

    def health(self) -> str:
        """Return green, yellow or red; raises StoreUnreachable."""
        return str(self._asked("GET", "/_cluster/health")["status"])

    def await_healthy(self) -> None:
        """Return once the store answers and has all its lines; raises TimedOut with what it said last."""

        def healthy() -> None:
            seen = self.health()
            assert seen in {"green", "yellow"}, f"its health is {seen}"

        eventually(healthy, within=self.timeouts.deployment_available, ignoring=(StoreUnreachable,), subject="the log store is not healthy")

    def prepare(self) -> None:
        """Tell the store how lines are to be kept; again changes nothing."""
        self._asked("PUT", "/_index_template/faasmesh-lines", TEMPLATE)
        self._asked("PUT", "/_cluster/settings", {"persistent": {"action.auto_create_index": True}})

    def forget_former_days(self) -> None:
        """Delete the indices of the days before yesterday: a kept cluster would fill its disk with lines that no check asks for."""
        yesterday = f"logstash-{(datetime.now(UTC) - timedelta(days=1)):%Y.%m.%d}"
        for index in self._asked("GET", f"/_cat/indices/{INDICES}?format=json&h=index"):
            if index["index"] < yesterday:
                self._asked("DELETE", f"/{index['index']}")

    def refresh(self) -> None:
        """Have every line that the store has taken be found from now on."""
        self._asked("POST", f"/{INDICES}/_refresh")

    def count(self, **terms: str) -> int:
        """Return how many lines have these values, exactly: `namespace`, `pod`, `container`, `stream`, or a field of the line itself, such as `nonce`."""
        return int(self._asked("POST", f"/{INDICES}/_count", {"query": _query(terms)})["count"])

    def search(self, most: int = 100, *, since: float | str | None = None, **terms: str) -> list[Line]:
        """Return the lines that have these values, oldest first, over the last `since` seconds or since that time (RFC 3339); ValueError for more than one answer holds."""
        if most > _SCROLLED:
            raise ValueError(f"an answer holds {_SCROLLED} lines, got {most}; values() reads any number")
        found = self._asked("POST", f"/{INDICES}/_search?{_WHOLE}", {"query": _query(terms, since), "size": most, "sort": [{"@timestamp": "asc"}], "track_total_hits": True})
        hits = [Line.of(hit) for hit in found["hits"]["hits"]]
        if (total := found["hits"]["total"]["value"]) > len(hits):
            raise UserError(f"lines with {terms}", expected=f"at most {most}", seen=str(total), hint="narrow the search, or ask for their values()")
        return hits

    def texts(self, text: str, **terms: str) -> list[Line]:
        """Return the lines whose message holds a text, of those that have these values; the store is asked for all of the latter."""
        return [line for line in self.search(_SCROLLED, **terms) if text in line.message]

    def access_log(self, namespace: str, pod: str, since: float | str) -> list[Mapping[str, Any]]:
        """Return the access log entries of one proxy over the last `since` seconds, or since that time (RFC 3339), as the proxy wrote them.

        Of whom the store has each is added as `writer`.
        """
        lines = self.search(_SCROLLED, since=since, namespace=namespace, pod=pod, container=SIDECAR)
        return [
            {**line.fields, "writer": {"namespace": line.namespace, "pod": line.pod, "container": line.container, "labels": dict(line.labels)}}
            for line in lines if "request_id" in line.fields
        ]

    def values(self, field: str, **terms: str) -> list[str]:
        """Return the value that each of any number of lines has in one of its own fields; empty for a line without.

        The lines are those of one moment: what comes while they are read is not among them.
        """
        body = {"query": _query(terms), "size": _SCROLLED, "_source": [f"fields.{field}"], "sort": ["_doc"]}
        page = self._asked("POST", f"/{INDICES}/_search?scroll=1m&{_WHOLE}", body)
        scroll, found = page["_scroll_id"], list[str]()
        try:
            while hits := page["hits"]["hits"]:
                found += [str((hit["_source"].get("fields") or {}).get(field, "")) for hit in hits]
                page = self._asked("POST", "/_search/scroll", {"scroll": "1m", "scroll_id": scroll})
                scroll = page["_scroll_id"]
        finally:
            self._asked("DELETE", "/_search/scroll", {"scroll_id": [scroll]})
        return found

    @contextmanager
    def away(self) -> Iterator[None]:
        """Take the store away for a block, and have it back, with all it had, when the block ends; everybody's, so for lonely checks only."""
        self.kube.scale(NAMESPACE, DEPLOYMENT, 0)
        try:
            # Its own second, and not none: the API server forgets a pod of none at once, and one that began while the old one still ends would find
            # its data locked, fail, and be begun again only after a while.
            for pod in self.kube.pods(NAMESPACE, f"app={DEPLOYMENT}"):
                self.kube.await_gone("Pod", pod["metadata"]["name"], NAMESPACE, within=self.timeouts.deployment_available)
            yield
        finally:
            self.kube.scale(NAMESPACE, DEPLOYMENT, 1)
            self.kube.wait_deployment(NAMESPACE, DEPLOYMENT, within=self.timeouts.deployment_available)
            self.await_healthy()

    def _asked(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:  # noqa: ANN401  # as the store answers
        """Return what the store answers to one question.

        Raises:
            StoreUnreachable: it gave no answer, or a refusal.

        """
        what = f"log store {NAMESPACE}/{DEPLOYMENT}: {method} {path}"
        pods = [pod["metadata"]["name"] for pod in self.kube.pods(NAMESPACE, f"app={DEPLOYMENT}") if not pod["metadata"].get("deletionTimestamp")]
        if not pods:
            raise StoreUnreachable(what, expected="a pod that answers", seen="no pod", hint=f"kubectl -n {NAMESPACE} get deployment {DEPLOYMENT} says why")
        content = None if body is None else json.dumps(body).encode()
        try:
            answer = self.kube.request(pods[0], NAMESPACE, PORT, method, path, content, {"Content-Type": "application/json"})
        except (PodUnreachable, NoAnswer, ApiRefused) as error:
            raise StoreUnreachable(what, expected="an answer", seen=str(error), hint=f"kubectl -n {NAMESPACE} logs {pods[0]} says why") from error
        if answer.status != _OK:
            raise StoreUnreachable(what, expected="status 200", seen=f"{answer.status} {answer.body.decode(errors='replace')[:200]}", hint=f"kubectl -n {NAMESPACE} logs {pods[0]} says more")
        return json.loads(answer.body)


_OF_THE_WRITER = {"namespace": "kubernetes.namespace_name", "pod": "kubernetes.pod_name", "container": "kubernetes.container_name", "stream": "stream"}


def _query(terms: Mapping[str, str], since: float | str | None = None) -> dict[str, Any]:
    filters: list[dict[str, Any]] = [{"term": {_OF_THE_WRITER.get(name, f"fields.{name}"): value}} for name, value in terms.items()]
    if since is not None:
        filters.append({"range": {"@timestamp": {"gte": since if isinstance(since, str) else f"now-{since * 1000:.0f}ms"}}})
    return {"bool": {"filter": filters}}
