"""Judges of traces over made spans, and looks into a Jaeger that is not there; hermetic."""

import ast
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusters.components.jaeger.client import JaegerUnreachable, Span
from suites.selftest.clock import FakeClock
from suites.support import tracing
from suites.support.requirements import SUITES
from suites.support.tracing import B3, FLUSHED_S, W3C, Hop, Sent, context, flaw, hops_of
from workloads.records import CallRecord, Draw

NAMES = ("caller.here", "first.here", "second.here", "third.here")
HOPS = hops_of(NAMES)


def trace_of(trace_id, parent_id, hops=HOPS):
    """Return the spans of a chain as its proxies report them."""
    spans, above = [], parent_id
    for hop in hops:
        for service, kind in hop.sides:
            span_id = f"{trace_id[:4]}{len(spans):04x}"
            tags = {"http.status_code": str(hop.status), "guid:x-request-id": f"request-{trace_id}"}
            spans.append(Span(trace_id, span_id, above, service, "call", kind, 1_000_000 + 5000 * len(spans), 500_000 - 10_000 * len(spans), tags))
            above = span_id
    return spans


def request(number, status=200):
    return Sent(f"{number:032x}", f"{number:016x}", f"request-{number:032x}", status, float(number))


def sighting(*sent, hops=HOPS, unanswered=""):
    traces = {one.trace_id: [span.to_json() for span in trace_of(one.trace_id, one.parent_id, hops)] for one in sent}
    return {"traces": traces, "whole_after_s": {one.trace_id: 1.0 + at for at, one in enumerate(sent)}, "unanswered": unanswered}


def plain(*sent):
    return [one.to_json() for one in sent]


@given(st.integers(1, 6), st.randoms())
def test_a_chain_of_any_length_is_flawless_in_whatever_order_its_spans_come(length, random):
    hops = hops_of([f"f{at}" for at in range(length + 1)])
    spans = trace_of("0" * 31 + "1", "parent", hops)
    random.shuffle(spans)

    assert flaw(spans, "parent", hops) == ""


@given(st.integers(0, 5), st.sampled_from(["dropped", "another parent", "another service", "another kind", "twice"]))
def test_no_span_of_a_chain_can_be_missing_misplaced_or_there_twice(at, fault):
    spans = trace_of("0" * 31 + "1", "parent")
    wrong = spans[at]
    changed = {
        "dropped": [],
        "another parent": [Span(**{**vars(wrong), "parent_id": "elsewhere"})],
        "another service": [Span(**{**vars(wrong), "service": "somebody.here"})],
        "another kind": [Span(**{**vars(wrong), "kind": "internal"})],
        "twice": [wrong, Span(**{**vars(wrong), "span_id": "again"})],
    }[fault]

    assert flaw([*spans[:at], *changed, *spans[at + 1 :]], "parent", HOPS)


def test_a_flaw_says_what_is_there_instead():
    spans = trace_of("0" * 31 + "1", "parent")

    assert flaw(spans[:3], "parent", HOPS) == "where the server span of second.here is to be, there is nothing"
    assert flaw(spans, "another", HOPS) == "where the client span of caller.here is to be, there is nothing"
    assert flaw([*spans, Span(**{**vars(spans[0]), "span_id": "x", "parent_id": "y"})], "parent", HOPS) == "7 spans instead of 6"


def test_who_is_beside_the_mesh_reports_nothing_and_the_chain_ends_before_it():
    hops = [*hops_of(NAMES[:2]), Hop(NAMES[1], "")]
    spans = trace_of("0" * 31 + "1", "parent", hops)

    assert [span.kind for span in spans] == ["client", "server", "client"]
    assert flaw(spans, "parent", hops) == ""
    assert flaw(spans[:2], "parent", hops) == "where the client span of first.here is to be, there is nothing"
    assert flaw(trace_of("0" * 31 + "1", "parent", hops_of(NAMES[:3])), "parent", hops) == "4 spans instead of 3"


def test_each_request_is_a_whole_trace_and_the_lag_is_said():
    sent = [request(number) for number in range(1, 21)]

    claim = tracing.each_whole("whole", plain(*sent), sighting(*sent), HOPS, least=20)

    assert claim.held
    assert claim.said == "each of 20 requests is one trace of 6 spans under its own id, whole in Jaeger at most 10.5 s after its answer in the median, 19.0 s for 95 %"


def test_a_trace_that_is_missing_or_of_another_parent_refutes():
    one, two, three = (request(number) for number in (1, 2, 3))
    seen = sighting(one, two)

    claim = tracing.each_whole("whole", plain(one, Sent(**{**vars(two), "parent_id": "0"}), three), seen, HOPS)

    assert (claim.held, claim.got) == (False, "1 x where the client span of caller.here is to be, there is nothing; 1 x no trace")


@pytest.mark.parametrize(
    ("sent", "seen", "said"),
    [
        ([request(1)], sighting(unanswered="Jaeger here does not answer; it last showed 0 of 1"), "a witness is missing: Jaeger here does not answer"),
        ([request(1, status=0)], sighting(), "1 of 1 requests got no answer"),
        ([], sighting(), "0 of 0 requests got no answer, 1 are wanted"),
    ],
    ids=["no witness", "no answer", "no request"],
)
def test_what_nobody_witnessed_is_held_against_nobody(sent, seen, said):
    for claim in (tracing.each_whole("whole", plain(*sent), seen, HOPS), tracing.none_seen("none", plain(*sent), seen, control=[])):
        assert claim.held is None
        assert said in claim.said


def test_no_trace_is_a_finding_only_beside_one_that_is_seen():
    quiet, control = request(1), request(2)

    assert tracing.none_seen("none", plain(quiet), sighting(control), control=plain(control)).held
    assert tracing.none_seen("none", plain(quiet), sighting(), control=plain(control)).held is None
    assert tracing.none_seen("none", plain(quiet), sighting(control), control=[]).held is None
    assert tracing.none_seen("none", plain(quiet), sighting(quiet, control), control=plain(control)).held is False


def test_a_child_that_began_before_its_parent_refutes():
    one = request(1)
    seen = sighting(one)
    assert tracing.parents_first("order", seen).held
    seen["traces"][one.trace_id][3]["started_us"] -= 100_000

    claim = tracing.parents_first("order", seen)

    assert (claim.held, claim.got) == (False, "1 x the server span of second.here began before the client span of first.here")
    assert tracing.parents_first("order", sighting()).held is None


def test_the_status_is_told_by_each_side_of_its_own_hop():
    one = request(1)
    hops = [*hops_of(NAMES[:3], 502), Hop(NAMES[2], NAMES[3], 500)]

    assert tracing.status_told("status", sighting(one, hops=hops), hops).held
    assert "2 x" not in tracing.status_told("status", sighting(one, hops=hops), HOPS).got
    assert tracing.status_told("status", sighting(one, hops=hops), HOPS).held is False
    assert tracing.status_told("status", sighting(), HOPS).held is None


def test_the_requests_of_traces_are_known_whatever_a_proxy_wrote_into_their_ids():
    spans = [{"tags": {"guid:x-request-id": "12345678-1234-9234-8234-123456789012"}}, {"tags": {}}]

    assert tracing.request_ids([spans]) == tracing.request_ids([[{"tags": {"guid:x-request-id": "12345678-1234-4234-8234-123456789012"}}]])


def test_a_context_says_trace_parent_and_decision():
    assert context(W3C, "t", "p", "1") == [("traceparent", "00-t-p-01")]
    assert context(W3C, "t", "p") == [("traceparent", "00-t-p-00")]
    assert context(B3, "t", "p") == [("x-b3-traceid", "t"), ("x-b3-spanid", "p")]
    assert context(B3, "t", "p", "0")[-1] == ("x-b3-sampled", "0")
    with pytest.raises(ValueError, match="no propagation 'jaeger'"):
        context("jaeger", "t", "p")


def test_every_request_is_sent_with_a_trace_of_its_own():
    class Caller:
        def __init__(self):
            self.headers = []

        def draw(self, url, *, headers, keep_headers, keep_seen):
            assert (url, keep_headers, keep_seen) == ("http://first/", (), ())
            self.headers.append(dict(headers))
            record = CallRecord(index=0, status=200, error="", latency_ms=1.0, started_ms=0.0, request_id=f"id-{len(self.headers)}")
            return Draw(url, "GET", 1, 1, (record,), "2026-01-01T00:00:00Z", 0.1)

    caller = Caller()
    sent = tracing.send(caller, "http://first/", 3, propagation=B3, headers=[("x", "y")], clock=FakeClock(7.0))

    assert [one.request_id for one in sent] == ["id-1", "id-2", "id-3"]
    assert [headers["x-b3-traceid"] for headers in caller.headers] == [one.trace_id for one in sent]
    assert len({one.trace_id for one in sent}) == len({one.parent_id for one in sent}) == 3
    assert all(len(one.trace_id) == 32 and len(one.parent_id) == 16 and one.answered_s == 7.0 and headers["x"] == "y" for one, headers in zip(sent, caller.headers, strict=True))


class Shown:
    """A Jaeger in which traces come to be there at a time, and which may be away from a time on."""

    where = "Jaeger here/it"

    def __init__(self, clock, there, *, away_from=float("inf"), away_until=float("inf")):
        self.clock, self.there, self.away = clock, there, (away_from, away_until)
        self.looks = 0

    def traces_by_id(self, trace_ids):
        self.looks += 1
        if self.away[0] <= self.clock.now < self.away[1]:
            raise JaegerUnreachable(f"{self.where} has no running pod")
        return {one: tuple(trace_of(one, "p")[:count]) for one in trace_ids for at, count in self.there.get(one, ()) if at <= self.clock.now}


def look(there, sent, **options):
    clock = FakeClock(10.0)
    away = {name: options.pop(name) for name in ("away_from", "away_until") if name in options}
    jaeger = Shown(clock, there, **away)
    return tracing.sighted(jaeger, sent, spans=6, clock=clock, **options), clock, jaeger


def known(number, answered_s=10.0):
    return Sent(f"{number:032x}", "p", "r", 200, answered_s)


def test_what_is_whole_is_waited_for_and_what_may_still_come_as_well():
    one = known(1, answered_s=9.0)

    seen, clock, _ = look({one.trace_id: [(10.5, 4), (12.0, 6)]}, [one])

    assert seen.whole_after_s == {one.trace_id: pytest.approx(3.0, abs=0.3)}
    assert len(seen.traces[one.trace_id]) == 6
    # Nothing more can come once the proxies have handed over what they had when the last request was answered.
    assert clock.now == pytest.approx(9.0 + FLUSHED_S)
    assert seen.unanswered == ""
    json.dumps(seen.to_json())


def test_a_span_too_many_that_comes_later_is_seen():
    one = known(1)

    seen, _, _ = look({one.trace_id: [(10.0, 5), (10.2, 6)], known(2).trace_id: []}, [one], whole=[])

    assert len(seen.traces[one.trace_id]) == 6


def test_what_never_comes_is_waited_for_in_bounded_time():
    seen, clock, _ = look({}, [known(1)], within=20.0)

    assert (seen.traces, seen.whole_after_s, seen.unanswered) == ({}, {}, "")
    assert clock.now == pytest.approx(30.0)


def test_nothing_is_waited_for_where_nothing_is_to_come_but_what_could():
    _, clock, _ = look({}, [known(1)], whole=[])

    assert clock.now == pytest.approx(10.0 + FLUSHED_S)


def test_a_jaeger_that_was_never_there_is_named_with_what_it_did_not_show():
    seen, clock, _ = look({}, [known(1), known(2)], away_from=0.0, within=3.0, settle=0.0)

    assert seen.unanswered == "Jaeger here/it has no running pod; it last showed 0 of 2 traces whole and 0 in part"
    assert clock.now == pytest.approx(13.0)


def test_a_jaeger_that_is_lost_half_way_is_named_with_what_it_showed():
    one, two, three = known(1), known(2), known(3)
    there = {one.trace_id: [(10.0, 6)], two.trace_id: [(10.0, 2)], three.trace_id: [(12.0, 6)]}

    seen, _, _ = look(there, [one, two, three], away_from=11.0)

    assert seen.unanswered == "Jaeger here/it has no running pod; it last showed 1 of 3 traces whole and 1 in part"
    assert set(seen.traces) == {one.trace_id, two.trace_id}


def test_a_jaeger_that_comes_back_is_a_witness_again():
    one = known(1)

    seen, _, _ = look({one.trace_id: [(10.0, 6)]}, [one], away_from=10.0, away_until=12.0)

    assert (set(seen.whole_after_s), seen.unanswered) == ({one.trace_id}, "")


def test_whoever_says_where_the_otlp_provider_leads_has_its_name_for_itself():
    naming = {(file.parent, file.name.partition(".")[0]) for file in SUITES.glob("*/*.yaml") if "collector.faasmesh.internal" in file.read_text()}

    for folder, stem in naming:
        checks = [one for one in ast.parse((folder / f"test_{stem}.py").read_text()).body if isinstance(one, ast.FunctionDef) and one.name.startswith("test_")]
        bare = [check.name for check in checks if not any("otlp_collector" in ast.unparse(mark) for mark in check.decorator_list)]
        assert bare == [], f"{folder.name}/{stem}: two namespaces that name it are traced by neither"
    assert len(naming) > 3
