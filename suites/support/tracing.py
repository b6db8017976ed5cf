"""Requests whose trace is known before it is made, what a Jaeger comes to show of them, and judges of traces: all but the asking is pure."""

import math
import time
import uuid
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Protocol

from clusters.components.jaeger.client import CLIENT, SERVER, JaegerClient, JaegerUnreachable, Span, Trace
from clusters.waiting import CLOCK, Clock, TimedOut, consistently, eventually
from suites.support.quantiles import estimate
from suites.support.verdicts import Claim
from workloads.caller.client import Caller
from workloads.observed import RUNTIMES, observed
from workloads.records import join_key

B3, W3C = "b3", "w3c"
# Envoy hands its spans over every 5 s (runtime `tracing.zipkin.flush_interval_ms` and its namesake of OTLP), or by fives; each worker
# thread of a proxy for itself. Nothing that was not there by then is still on its way.
FLUSHED_S = 6.0
# Three times that, on a busy machine.
WHOLE_WITHIN_S = 18.0
LOOK_EVERY_S = 0.2
# One clock for all proxies of a node, read by each of them a moment apart from what it measures.
CLOCK_SLACK_US = 1000
REQUEST_ID = "guid:x-request-id"
STATUS = "http.status_code"


@dataclass(frozen=True)
class Chain:
    """A chain of functions as its spans tell of it: `services` are the caller's and the functions' names there, in order."""

    url: str
    services: tuple[str, ...]


def chain_of(names: Sequence[str], annotations: Mapping[str, str] | None = None) -> dict[str, list[dict[str, Any]]]:
    """Return the objects of functions of which each calls the next, in turn in one language and in the other, for `World.deploy`."""
    languages = tuple(RUNTIMES)
    return {
        name: observed(name, runtime=languages[at % len(languages)], calls=[f"http://{other}/" for other in names[at + 1 : at + 2]], annotations=annotations)
        for at, name in enumerate(names)
    }


def service_names(names: Sequence[str], namespace: str) -> tuple[str, ...]:
    """Return the names by which the proxies of pods with these `app` labels call themselves in spans."""
    return tuple(f"{name}.{namespace}" for name in names)


class Traces(Protocol):
    """What looking needs of `clusters.components.jaeger.client.JaegerClient`."""

    @property
    def where(self) -> str:
        """Which Jaeger this is."""

    def traces_by_id(self, trace_ids: Iterable[str]) -> dict[str, Trace]:
        """Return those of some traces that are there."""


@dataclass(frozen=True)
class Sent:
    """One request that said which trace it belongs to, and whose child it is; `answered_s` is by the clock of the waits."""

    trace_id: str
    parent_id: str
    request_id: str
    status: int
    answered_s: float

    def to_json(self) -> dict[str, Any]:
        """Return the request as evidence keeps it."""
        return dict(vars(self))


def context(propagation: str, trace_id: str, parent_id: str, sampled: str = "") -> list[tuple[str, str]]:
    """Return the headers that make a request part of a trace; `sampled` is the decision that it brings: 0, 1, or none.

    W3C's header always brings one: none is 0 there. Raises ValueError for another propagation.
    """
    if propagation == W3C:
        return [("traceparent", f"00-{trace_id}-{parent_id}-0{sampled or 0}")]
    if propagation == B3:
        return [("x-b3-traceid", trace_id), ("x-b3-spanid", parent_id), *([("x-b3-sampled", sampled)] if sampled else [])]
    raise ValueError(f"no propagation {propagation!r}, expected {B3} or {W3C}")


def send(
    caller: Caller, url: str, count: int, *, propagation: str, sampled: str = "", headers: Sequence[tuple[str, str]] = (), clock: Clock = CLOCK,
) -> list[Sent]:
    """Make `count` requests one after the other, each part of a trace of its own, and return what is known of each."""
    made = []
    for _ in range(count):
        trace_id, parent_id = uuid.uuid4().hex, uuid.uuid4().hex[:16]
        (record,) = caller.draw(url, headers=[*context(propagation, trace_id, parent_id, sampled), *headers], keep_headers=(), keep_seen=()).records
        made.append(Sent(trace_id, parent_id, record.request_id, record.status, clock.monotonic()))
    return made


@dataclass(frozen=True)
class Sighting:
    """What a Jaeger showed of some traces in the end.

    `whole_after_s` tells how long after its answer every span of a trace was there, for those of which that many came. `unanswered` is empty
    where Jaeger answered the last question; else it says which Jaeger gave no answer, why, and what it had shown before.
    """

    traces: Mapping[str, Trace]
    whole_after_s: Mapping[str, float] = field(default_factory=dict)
    unanswered: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the sighting as evidence keeps it."""
        return {**vars(self), "traces": {one: [span.to_json() for span in trace] for one, trace in self.traces.items()}}


@dataclass
class _Look:
    jaeger: Traces
    answered_s: Mapping[str, float]
    spans: int
    clock: Clock
    traces: dict[str, Trace] = field(default_factory=dict)
    whole_after_s: dict[str, float] = field(default_factory=dict)
    unanswered: str = ""

    def again(self) -> None:
        try:
            self.traces |= self.jaeger.traces_by_id(self.answered_s)
        except JaegerUnreachable as error:
            self.unanswered = f"{error}; {self.said}"
            raise
        self.unanswered = ""
        now = self.clock.monotonic()
        for one, trace in self.traces.items():
            if len(trace) >= self.spans:
                self.whole_after_s.setdefault(one, now - self.answered_s[one])

    @property
    def said(self) -> str:
        return f"it last showed {len(self.whole_after_s)} of {len(self.answered_s)} traces whole and {len(self.traces) - len(self.whole_after_s)} in part"


def sighted(
    jaeger: Traces, sent: Iterable[Sent], *, spans: int, whole: Collection[str] | None = None, within: float = WHOLE_WITHIN_S, settle: float = FLUSHED_S,
    clock: Clock = CLOCK,
) -> Sighting:
    """Return what Jaeger shows of the traces of `sent` once those that are to be `whole` (all, where not said) have `spans` spans, and nothing more can come.

    Returns in bounded time whatever Jaeger does: what is missing after `within` seconds is for the verdict to tell, and a Jaeger that does
    not answer is named in `unanswered`.
    """
    answered_s = {one.trace_id: one.answered_s for one in sent}
    wanted = set(answered_s if whole is None else whole)
    look = _Look(jaeger, answered_s, spans, clock)

    def all_whole() -> None:
        look.again()
        assert wanted <= look.whole_after_s.keys(), look.said

    with suppress(TimedOut):
        eventually(all_whole, within=within, every=LOOK_EVERY_S, ignoring=(JaegerUnreachable,), subject=f"traces not in {jaeger.where}", clock=clock)

    def later() -> None:
        with suppress(JaegerUnreachable):
            look.again()

    consistently(later, during=max(0.0, max(answered_s.values(), default=0.0) + settle - clock.monotonic()), every=1.0, clock=clock)
    return Sighting(dict(look.traces), dict(look.whole_after_s), look.unanswered)


@dataclass(frozen=True)
class Window:
    """The traces of one service that began since this was made, for requests that do not know theirs."""

    jaeger: JaegerClient
    service: str
    spans: int
    began: float = field(default_factory=time.time)

    def every(self) -> list[Trace]:
        """Return all of them that are there by now. Raises JaegerUnreachable."""
        return self.jaeger.traces(self.service, since=self.began)

    def of(self, requests: Iterable[str]) -> list[Trace]:
        """Return the traces of these requests (by their ids) once nothing more can come and all have as many spans as they should, or after a bounded wait.

        To be asked when the last request has been answered. Raises JaegerUnreachable.
        """
        wanted = {join_key(one) for one in requests}
        found: list[Trace] = []
        consistently(lambda: None, during=FLUSHED_S, every=FLUSHED_S)

        def all_whole() -> None:
            found[:] = [
                trace for trace in self.every()
                if any(join_key(str(span.tags.get(REQUEST_ID, ""))) in wanted for span in trace)
            ]
            parts = sum(len(trace) < self.spans for trace in found)
            assert not parts, f"{parts} of {len(found)} traces are there in part"

        with suppress(TimedOut):
            eventually(all_whole, within=WHOLE_WITHIN_S - FLUSHED_S, subject=f"traces of {self.service} not whole in {self.jaeger.where}")
        return found


# Judges, over what the above saves.

Plain = Mapping[str, Any]


@dataclass(frozen=True)
class Hop:
    """One call of a chain: which service makes it, which one takes it, by their names in spans, and the status that each tells.

    `callee` is empty where who takes the call reports nothing, as nobody does who is beside the mesh.
    """

    caller: str
    callee: str
    status: int = 200

    @property
    def sides(self) -> tuple[tuple[str, str], ...]:
        """The spans of the call from the outer to the inner: whose, and of which kind."""
        return ((self.caller, CLIENT), (self.callee, SERVER))[: 2 if self.callee else 1]


def hops_of(services: Sequence[str], status: int = 200) -> list[Hop]:
    """Return the hops of services that each call the next."""
    return [Hop(caller, callee, status) for caller, callee in pairwise(services)]


def spans_of(plain: Iterable[Plain]) -> list[Span]:
    """Return the spans of a trace as evidence has it."""
    return [Span.from_json(one) for one in plain]


def sides_of(hops: Iterable[Hop]) -> list[tuple[str, str]]:
    """Return the spans of a chain from the outermost to the innermost: whose, and of which kind."""
    return [side for hop in hops for side in hop.sides]


def flaw(spans: Sequence[Span], parent_id: str, hops: Sequence[Hop]) -> str:
    """Say what is wrong with a trace that is to be a chain below a request's own span, or "" where nothing is.

    Right is: for each hop, one client span of the caller below what came before, and one server span of the callee below it, and not a span more.
    """
    above, sides = parent_id, sides_of(hops)
    for service, kind in sides:
        found = [span for span in spans if span.parent_id == above]
        if [(span.service, span.kind) for span in found] != [(service, kind)]:
            seen = ", ".join(sorted(f"{span.kind or 'no kind'} span of {span.service}" for span in found)) or "nothing"
            return f"where the {kind} span of {service} is to be, there is {seen}"
        above = found[0].span_id
    if len(spans) != len(sides):
        return f"{len(spans)} spans instead of {len(sides)}"
    return ""


def each_whole(name: str, sent: Sequence[Plain], sighting: Plain, hops: Sequence[Hop], *, least: int = 1) -> Claim:
    """Claim that each request is one trace under its own id that is exactly the chain `hops`, and say after how long it was there.

    A request that was not answered leaves it inconclusive, and so does a Jaeger that did not answer: it says nothing of traces.
    """
    flaws = Counter[str]()
    for one in sent:
        spans = spans_of(sighting["traces"].get(one["trace_id"], ()))
        if wrong := flaw(spans, one["parent_id"], hops) if spans else "no trace":
            flaws[wrong] += 1
    if open_claim := _unsettled(name, sent, sighting, least):
        return open_claim
    if flaws:
        return Claim(name, held=False, said=f"{flaws.total()} of {len(sent)} requests: {_most(flaws)}", expected="one whole trace each", got=_most(flaws))
    return Claim(name, held=True, said=f"each of {len(sent)} requests is one trace of {len(sides_of(hops))} spans under its own id{visible(sighting)}")


def none_seen(name: str, sent: Sequence[Plain], sighting: Plain, *, control: Sequence[Plain]) -> Claim:
    """Claim that no request of `sent` left a span, while each of `control` left some in the same Jaeger."""
    if open_claim := _unsettled(name, [*sent, *control], sighting, 1):
        return open_claim
    traced = [one for one in sent if sighting["traces"].get(one["trace_id"])]
    if traced:
        return Claim(name, held=False, said=f"{len(traced)} of {len(sent)} requests left spans", expected="no trace", got=f"{len(traced)} traces")
    unseen = [one for one in control if not sighting["traces"].get(one["trace_id"])]
    if unseen or not control or not sent:
        return Claim(name, held=None, said=f"{len(unseen)} of {len(control)} requests that are to be traced were not, so nothing shows that a trace would be seen")
    return Claim(name, held=True, said=f"none of {len(sent)} requests left a span, while {len(control)} others were traced")


def parents_first(name: str, sighting: Plain) -> Claim:
    """Claim that every span begins no earlier than the span above it, by the clock of the node."""
    wrong, pairs = Counter[str](), 0
    for plain in sighting["traces"].values():
        spans = spans_of(plain)
        by_id = {span.span_id: span for span in spans}
        for span in spans:
            if (above := by_id.get(span.parent_id)) is not None:
                pairs += 1
                wrong.update(_disorder(above, span))
    if wrong:
        return Claim(name, held=False, said=f"of {pairs} spans below another {_most(wrong)}", expected="parents before children", got=_most(wrong))
    if not pairs:
        return Claim(name, held=None, said="no span is below another")
    return Claim(name, held=True, said=f"all {pairs} spans below another began after it")


def _disorder(above: Span, below: Span) -> Iterable[str]:
    if below.started_us < above.started_us - CLOCK_SLACK_US:
        yield f"the {below.kind} span of {below.service} began before the {above.kind} span of {above.service}"


def status_told(name: str, sighting: Plain, hops: Sequence[Hop]) -> Claim:
    """Claim that both sides of every hop tell the status of its answer."""
    wanted = {side: str(hop.status) for hop in hops for side in hop.sides}
    wrong, seen = Counter[str](), 0
    for plain in sighting["traces"].values():
        for span in spans_of(plain):
            seen += 1
            told = str(span.tags.get(STATUS, "none"))
            if told != wanted.get((span.service, span.kind)):
                wrong[f"the {span.kind} span of {span.service} tells {told}"] += 1
    if wrong:
        return Claim(name, held=False, said=f"of {seen} spans {_most(wrong)}", expected=", ".join(sorted(set(wanted.values()))), got=_most(wrong))
    return Claim(name, held=True, said=f"all {seen} spans tell the status of the answer") if seen else Claim(name, held=None, said="there is no span")


def request_ids(traces: Iterable[Iterable[Plain]]) -> set[str]:
    """Return the ids of the requests that left spans, as far as a proxy leaves them alone."""
    return {join_key(str(span["tags"][REQUEST_ID])) for trace in traces for span in trace if REQUEST_ID in span["tags"]}


def visible(sighting: Plain) -> str:
    """Say after how long at most traces were whole: the median and the value that 95 % do not exceed; empty where none was.

    At most, because nobody looks before the last request of a draw is answered.
    """
    after = sorted(sighting["whole_after_s"].values())
    if not after:
        return ""
    p95 = after[math.ceil(0.95 * len(after)) - 1]
    return f", whole in Jaeger at most {estimate(after).value:.1f} s after its answer in the median, {p95:.1f} s for 95 %"


def _unsettled(name: str, sent: Sequence[Plain], sighting: Plain, least: int) -> Claim | None:
    if sighting["unanswered"]:
        return Claim(name, held=None, said=f"a witness is missing: {sighting['unanswered']}")
    lost = [one for one in sent if not one["status"]]
    if lost or len(sent) < least:
        return Claim(name, held=None, said=f"{len(lost)} of {len(sent)} requests got no answer, {least} are wanted")
    return None


def _most(counter: Mapping[str, int], most: int = 3) -> str:
    return "; ".join(f"{count} x {what}" for what, count in Counter(counter).most_common(most))
