"""Witnesses: systems that claim to have seen a request, asked for it until they tell of it, and the judges of what they told."""

import time
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from clusters.components.jaeger.client import JaegerClient
from clusters.components.prometheus.client import PrometheusClient
from clusters.components.prometheus.witness import WitnessMissing
from clusters.components.store.client import StoreClient, StoreUnreachable
from clusters.waiting import CLOCK, Clock, TimedOut, Unsettled, eventually
from suites.support import tracing
from suites.support.quantiles import estimate
from suites.support.verdicts import Claim
from workloads.caller.client import Caller
from workloads.observed.client import CONTAINER
from workloads.records import Draw

INVOCATIONS = "serverless_function_invocations_total"
PROXY = "istio-proxy"
LOOK_EVERY_S = 0.2
# The slowest of them is the tracer: Envoy hands its spans over every 5 s.
WITHIN_S = 20.0
# Counters are scraped once a second.
COUNTED_WITHIN_S = 10.0
# The caller's proxy and the function's: two entries of a log, two spans of a trace.
SIDES = 2
# By these errors a witness says that it cannot be asked, which may change.
SILENCES: tuple[type[BaseException], ...] = (ConnectionError, StoreUnreachable, WitnessMissing)

# Told of a request: what the witness has of it, as JSON. AssertionError where it has nothing yet.
Look = Callable[[str], Any]


@dataclass(frozen=True)
class Statement:
    """What one witness had to say of one request.

    `after_s` is the time from the answer to the look that found it, 0 where nothing was found; `told` is what it said, and `missing`, where it
    said nothing until the end, why: what it said last, or that it could not be asked at all.
    """

    request_id: str
    after_s: float
    told: Any = None
    missing: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the statement as evidence keeps it."""
        return dict(vars(self))


@dataclass
class Watch:
    """Asks every witness for every request, all of them at the same time, from the moment at which the request was answered."""

    looks: Mapping[str, Look]
    within: float = WITHIN_S
    silences: tuple[type[BaseException], ...] = SILENCES
    clock: Clock = CLOCK
    _pool: ThreadPoolExecutor = field(init=False)
    _asked: dict[str, list[Future[Statement]]] = field(init=False)

    def __post_init__(self) -> None:
        """Make room for a thread each: a witness that is slow must not make the others look so."""
        self._pool = ThreadPoolExecutor(8 * len(self.looks))
        self._asked = {witness: [] for witness in self.looks}

    def expect(self, request_id: str, *, of: Collection[str] = ()) -> dict[str, "Future[Statement]"]:
        """Begin to ask the witnesses `of`, by default all of them, for a request that has just been answered; return what each will have said."""
        answered = self.clock.monotonic()
        asked = {witness: self._pool.submit(self._sight, look, request_id, answered) for witness, look in self.looks.items() if witness in (of or self.looks)}
        for witness, statement in asked.items():
            self._asked[witness].append(statement)
        return asked

    def finish(self) -> dict[str, list[Statement]]:
        """Return what every witness said of every request, once all of them have said it or the time is over."""
        with self._pool:
            return {witness: [one.result() for one in asked] for witness, asked in self._asked.items()}

    def _sight(self, look: Look, request_id: str, answered: float) -> Statement:
        found = answered

        def once() -> Any:  # noqa: ANN401  # JSON
            nonlocal found
            told = look(request_id)
            found = self.clock.monotonic()
            return told

        try:
            told = eventually(once, within=self.within, every=LOOK_EVERY_S, ignoring=self.silences, clock=self.clock)
        except Unsettled as never:
            return Statement(request_id, 0.0, missing=never.last)
        return Statement(request_id, found - answered, told)


@dataclass(frozen=True)
class Witnesses:
    """Where a request to the observed function `function` of a namespace is asked for; every question asserts that the request is there."""

    namespace: str
    function: str
    jaeger: JaegerClient
    prometheus: PrometheusClient
    store: StoreClient
    began: float = field(default_factory=time.time)
    _traces: dict[str, str] = field(default_factory=dict)

    def send(self, caller: Caller) -> tuple[Draw, str]:
        """Make one request with a trace of its own; return it, and the id by which the mesh knows it."""
        trace_id, parent_id = uuid.uuid4().hex, uuid.uuid4().hex[:16]
        context = tracing.context(tracing.W3C, trace_id, parent_id, "1")
        draw = caller.draw(f"http://{self.function}/", headers=context, keep_headers=(), keep_seen=("x-request-id",))
        request_id = known_as(draw.records[0].to_json())
        self._traces[request_id] = trace_id
        return draw, request_id

    def watch(self, within: float = WITHIN_S) -> Watch:
        """Return a watch over all of them but the caller, who has his answer."""
        return Watch({"function-log": self.function_log, "access-log": self.access_log, "trace": self.trace, "metric": self.metric}, within)

    def function_log(self, request_id: str) -> dict[str, Any]:
        """Return the one line that the function wrote of a request, from the store."""
        found = self.store.search(namespace=self.namespace, container=CONTAINER, request_id=request_id)
        assert len(found) == 1, f"{len(found)} lines of the function in the store"
        return {"trace_id": found[0].fields["trace_id"], "status": int(found[0].fields["status"]), "pod": found[0].pod}

    def access_log(self, request_id: str) -> dict[str, Any]:
        """Return what both proxies wrote, one line each, from the store."""
        found = self.store.search(namespace=self.namespace, container=PROXY, request_id=request_id)
        pods = sorted(line.pod for line in found)
        assert len(pods) == len(set(pods)) == SIDES, f"{len(pods)} lines of proxies in the store, of {', '.join(pods) or 'none'}"
        statuses = sorted({int(line.fields["response_code"]) for line in found})
        return {"status": statuses[0] if len(statuses) == 1 else statuses, "pods": pods}

    def trace(self, request_id: str) -> dict[str, Any]:
        """Return what the tracer has: one span of the caller's proxy and one of the function's, both of this request."""
        trace_id = self._traces[request_id]
        spans = self.jaeger.traces_by_id([trace_id]).get(trace_id, ())
        assert len(spans) == SIDES, f"{len(spans)} spans in trace {trace_id}"
        ids = {str(span.tags.get(tracing.REQUEST_ID)) for span in spans}
        assert ids == {request_id}, f"the spans of trace {trace_id} are of requests {', '.join(sorted(ids))}"
        return {"trace_id": trace_id, "status": int(spans[-1].tags[tracing.STATUS]), "services": [span.service for span in spans]}

    def metric(self, request_id: str) -> dict[str, Any]:
        """Return the example that the function's counter carries of a request."""
        found = self.prometheus.exemplars(self._counter, since=self.began - 1, until=time.time() + 1)
        ours = [one for one in found if one.labels.get("request_id") == request_id]
        assert ours, f"{len(found)} examples of {INVOCATIONS}, none of them of this request"
        return {"trace_id": ours[0].labels.get("trace_id", ""), "value": ours[0].value}

    def counter(self, answered: int) -> dict[str, Any]:
        """Return the function's counter as the scraper has it, once that is what the function itself says, or after a bounded wait what it is."""
        seen: dict[str, Any] = {"value": None, "missing": "it was not asked"}

        def as_the_function_says() -> None:
            found = self.prometheus.instant(self._counter)
            seen["value"], seen["missing"] = (found[0].value, "") if found else (None, f"there is no {INVOCATIONS} of {self.function}")
            assert seen["value"] == answered, f"{seen['value']} instead of {answered}"

        try:
            eventually(as_the_function_says, within=COUNTED_WITHIN_S, every=LOOK_EVERY_S, ignoring=(WitnessMissing,))
        except TimedOut as late:
            seen["missing"] = seen["missing"] and late.last
        return seen

    @property
    def _counter(self) -> str:
        return f'{INVOCATIONS}{{namespace="{self.namespace}",function="{self.function}"}}'


def known_as(record: Mapping[str, Any]) -> str:
    """Return the id by which the mesh knows a call: where it is traced, the first proxy writes that into the id (`workloads.records.join_key`)."""
    seen = record["seen"].get("x-request-id")
    return str(seen[0] if seen else record["request_id"])


def saw_all(name: str, statements: Sequence[Mapping[str, Any]], request_ids: Iterable[str]) -> Claim:
    """Claim that a witness told of every request, and say after how long; where it did not, what it said last.

    Nothing is claimed of no request.
    """
    wanted = list(request_ids)
    told = {one["request_id"]: one for one in statements}
    unheard = [one for one in wanted if one not in told or told[one]["missing"]]
    if not wanted:
        return Claim(name, held=None, said="no request was made")
    if unheard:
        last = told[unheard[0]]["missing"] if unheard[0] in told else "it was not asked"
        return Claim(
            name, held=False, said=f"the witness {name} is missing for {len(unheard)} of {len(wanted)} requests, the first of them {unheard[0]}; last: {last}",
            expected="every request", got=f"{len(wanted) - len(unheard)} of {len(wanted)}",
        )
    return Claim(name, held=True, said=f"all {len(wanted)} requests were seen, {lag(statements)}")


def agree(name: str, statements: Mapping[str, Sequence[Mapping[str, Any]]], of: Mapping[str, Callable[[Any], object]], what: str) -> Claim:
    """Claim that those witnesses of `of` that told of a request say the same of it; `of` picks it out of what each of them told.

    Inconclusive where no request was told of by two.
    """
    said: dict[str, dict[str, object]] = {}
    for witness, pick in of.items():
        for one in statements[witness]:
            if not one["missing"]:
                said.setdefault(one["request_id"], {})[witness] = pick(one["told"])
    compared = {request: values for request, values in said.items() if len(values) > 1}
    for request, values in compared.items():
        if len({repr(value) for value in values.values()}) > 1:
            text = ", ".join(f"{witness} {value!r}" for witness, value in values.items())
            return Claim(name, held=False, said=f"of request {request} they say different {what}: {text}", expected=f"one {what}", got=text)
    if not compared:
        return Claim(name, held=None, said=f"no two witnesses told of one request's {what}")
    return Claim(name, held=True, said=f"{len(compared)} requests have one {what} with {', '.join(of)}")


def lag(statements: Iterable[Mapping[str, Any]]) -> str:
    """Return how long after the answer requests were seen, as text: the median and the sample's own 95th percentile in ms."""
    seen = [1000 * one["after_s"] for one in statements if not one["missing"]]
    if not seen:
        return "none"
    return f"median {estimate(seen).value:.0f} ms after the answer, p95 {estimate(seen, 0.95).value:.0f} ms"
