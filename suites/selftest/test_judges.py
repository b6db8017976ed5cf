"""Self-tests of the judges: each holds, is refuted, stays open, and never holds on nothing."""

import dataclasses
import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusters.errors import UserError
from suites.support import judges, sampling
from workloads.records import CallRecord, Draw
from workloads.wiretap.client import WireEvidence

MEMBER = "spiffe://cluster.local/ns/serverless/sa/caller"
XFCC = f'By=spiffe://cluster.local/ns/serverless/sa/function;Hash=0a1b;Subject="O=x, CN=\\"a,b;URI=c\\"";URI={MEMBER}'
SEEN = {"x-forwarded-client-cert": [XFCC], "user-type": ["premium"]}


def record(version="v1", status=200, **more):
    return {"index": 0, "status": status, "error": "", "version": version, "flags": "", "seen": SEEN if version else {}, **more}


def draw(*records, count=None):
    numbered = [{**each, "index": index} for index, each in enumerate(records)]
    return {"count": len(numbered) if count is None else count, "records": numbered}


def wire(*, nonce=False, records=8, tls_streams=4, missing=0, segments=9, payload=900):
    return {
        "segments": segments, "payload_bytes": payload, "tls_records": records, "plaintext_nonce_found": nonce, "streams": 4,
        "tls_streams": tls_streams, "missing_bytes": missing,
    }


def shares(**counts):
    return draw(*(record(version) for version, count in counts.items() for _ in range(count)))


RESET = record("", 0, error="read tcp 10.0.0.1:4->10.0.0.2:80: read: connection reset by peer")
TIMEOUT = record("", 0, error="context deadline exceeded")
GONE = record("", 503, flags="UF,URX")
NO_ROUTE = record("", 404, flags="NR")
ALIVE = shares(v1=3)
DECLARED = {"standard": 0.9, "backup": 0.1}
OVERFLOW = record("", 503, flags="UO")
LATE = record("", 504, latency_ms=30.1)
HALVES = {("v1", 200): 3, ("v2", 500): 1}


def load(*records, most_in_hand=3):
    return {"function": {"most_in_hand": most_in_hand}, "waves": [draw(*records)]}


TIMED_OUT = record("", 504, flags="UT", latency_ms=1000.5, request_id="0b5f8c1e-1111-4222-8333-444444444444")
# As the function knows it once a proxy has written its tracing decision into the id.
ARRIVED = {"by_request_id": {"0b5f8c1e-1111-a222-8333-444444444444": 3}}

# Every judge over draws, with a draw on which it holds.
JUDGES = {
    "flagged": (lambda d: judges.flagged("c", d, 504, "UT"), draw(TIMED_OUT)),
    "not_before": (lambda d: judges.not_before("c", d, 1000), draw(TIMED_OUT)),
    "reached": (lambda d: judges.reached("c", d, ARRIVED, 3), draw(TIMED_OUT)),
    "no_failures": (lambda d: judges.no_failures("c", d), ALIVE),
    "every_status": (lambda d: judges.every_status("c", d, 200), ALIVE),
    "flagged by the proxy": (lambda d: judges.flagged("c", d, 503, "UO", by_proxy=True), draw(OVERFLOW, OVERFLOW)),
    "answers": (lambda d: judges.answers("c", d, HALVES), draw(*shares(v1=3)["records"], record("v2", 500))),
    "split": (lambda d: judges.split("c", d, declared=DECLARED, alpha=1e-5), shares(standard=1800, backup=200)),
    "sequential_split": (
        lambda d: judges.sequential_split("c", d, version="backup", test=sampling.SequentialTest(0.1, 0.05, 1e-3, 1e-2, 3000)),
        draw(*(record("backup" if index % 10 == 0 else "standard") for index in range(1500))),
    ),
    "only_version": (lambda d: judges.only_version("c", d, "v1"), ALIVE),
    "never_version": (lambda d: judges.never_version("c", d, "v2"), ALIVE),
    "versions_seen": (lambda d: judges.versions_seen("c", d, ["v1"]), ALIVE),
    "alike": (lambda d: judges.alike("c", d, ["v1", "v2"]), {**shares(v1=6, v2=5), "concurrency": 2}),
    "header_seen": (lambda d: judges.header_seen("c", d, "User-Type", "premium"), ALIVE),
    "answer_header": (lambda d: judges.answer_header("c", d, "X-Greeting", "Hello World!"), draw(*[record(headers={"x-greeting": ["Hello World!"]})] * 3)),
    "header_absent": (lambda d: judges.header_absent("c", d, "authorization"), ALIVE),
    "peer_identity": (lambda d: judges.peer_identity("c", d, MEMBER), ALIVE),
    "no_peer_identity": (lambda d: judges.no_peer_identity("c", d), draw(record(seen={"host": ["a"]}))),
    "taken": (lambda d: judges.taken("c", d, MEMBER, control=ALIVE), ALIVE),
    "taken without an identity": (lambda d: judges.taken("c", d, "", control=ALIVE), draw(record(seen={"host": ["a"]}))),
    "refused": (lambda d: judges.refused("c", d, control=ALIVE), draw(RESET, RESET)),
    "refused by alert": (lambda d: judges.refused("c", d, control=ALIVE), draw(record("", 0, error="tls: remote error: tls: expired certificate"))),
    "refused by status": (lambda d: judges.refused("c", d, control=ALIVE, status=404), draw(NO_ROUTE)),
    "refused, its control": (lambda d: judges.refused("c", draw(RESET), control=d), ALIVE),
    "all_refused": (lambda d: judges.all_refused("c", {"a": d, "b": draw(RESET)}, control=ALIVE), draw(RESET)),
}


@pytest.mark.parametrize("name", JUDGES)
def test_every_judge_can_hold(name):
    judge, good = JUDGES[name]

    claim = judge(good)

    assert claim.held is True, claim.text()


@pytest.mark.parametrize("name", JUDGES)
@pytest.mark.parametrize("empty", [{}, {"records": []}, {"count": 0, "records": []}, {"count": 5, "records": []}], ids=str)
def test_no_judge_holds_on_nothing(name, empty):
    assert JUDGES[name][0](empty).held is not True


@pytest.mark.parametrize("name", [name for name in JUDGES if name != "sequential_split"])
def test_no_judge_holds_on_a_draw_with_calls_missing(name):
    judge, good = JUDGES[name]

    assert judge({**good, "count": len(good["records"]) + 1}).held is not True


@pytest.mark.parametrize("name", [name for name in JUDGES if name != "refused, its control"])
@given(st.lists(st.sampled_from([TIMEOUT, record("", 0), GONE, record("", 502), record("", 0, error="no such host")]), min_size=1, max_size=5))
def test_no_judge_holds_on_calls_that_only_got_lost(name, lost):
    assert JUDGES[name][0](draw(*lost)).held is not True


@pytest.mark.parametrize("name", JUDGES)
@given(st.lists(st.fixed_dictionaries({
    "status": st.sampled_from([0, 200, 301, 403, 404, 500, 503]), "version": st.sampled_from(["", "v1", "standard", "backup"]),
    "flags": st.sampled_from(["", "-", "NR", "UF", "UF,URX", "FI"]), "error": st.sampled_from(["", "EOF", "i/o timeout"]),
}), max_size=6))
def test_every_judge_says_a_sentence_about_any_draw(name, records):
    claim = JUDGES[name][0](draw(*records))

    assert claim.said
    assert claim.held is not False or (claim.expected and claim.got)


@pytest.mark.parametrize("name", JUDGES)
@pytest.mark.parametrize("broken", [{"records": 5}, {"records": "abc"}, {"records": [1]}, {"records": [{"status": "200"}]}, [], "draw"], ids=str)
def test_what_is_no_draw_is_a_damaged_file(name, broken):
    with pytest.raises(UserError, match="evidence of claim c"):
        JUDGES[name][0](broken)


REFUTED = {
    "another flag": judges.flagged("c", draw(TIMED_OUT, record("", 504, flags="URX")), 504, "UT"),
    "no flag": judges.flagged("c", draw(record("", 504, flags="-")), 504, "UT"),
    "the flag with another status": judges.flagged("c", draw(record("", 503, flags="UT")), 504, "UT"),
    "too early": judges.not_before("c", draw(TIMED_OUT, record(latency_ms=989.9)), 1000),
    "too rarely": judges.reached("c", draw(TIMED_OUT), ARRIVED, 4),
    "too often": judges.reached("c", draw(TIMED_OUT), ARRIVED, 2),
    "never": judges.reached("c", draw(TIMED_OUT), {"by_request_id": {}}, 1),
    "too often for a lost call": judges.reached("c", draw({**TIMED_OUT, "status": 0}), ARRIVED, 2),
    "not as its answer says": judges.reached("c", draw(TIMED_OUT), ARRIVED, lambda seen: 0 if seen["status"] == 504 else 3),
    "a failed call": judges.no_failures("c", draw(record(), record("", 503))),
    "an excused and another": judges.no_failures("c", draw(GONE, record("v1", 500)), excused=judges.UPSTREAM_GONE),
    "another status": judges.every_status("c", draw(record(), record(status=201)), 200),
    "a call above the limit that was answered": judges.flagged("c", draw(OVERFLOW, record()), 503, "UO", by_proxy=True),
    "a 503 for another reason": judges.flagged("c", draw(OVERFLOW, GONE), 503, "UO", by_proxy=True),
    "a 503 of the function's own": judges.flagged("c", draw(record("v1", 503)), 503, "UO", by_proxy=True),
    "a time-out more than a tick early": judges.not_before("c", draw(LATE, {**LATE, "latency_ms": 19.9}), 30),
    "a time-out more than a tick early among lost calls": judges.not_before("c", draw(TIMEOUT, {**LATE, "latency_ms": 19.9}), 30),
    "one answer too many": judges.answers("c", shares(v1=4), HALVES),
    "one too many among lost calls": judges.answers("c", draw(*shares(v1=4)["records"], TIMEOUT), HALVES),
    "one answer too few": judges.answers("c", shares(v1=3), HALVES),
    "one count too few": judges.counter_rise("c", {"n": 4}, {"n": 6}, "n", 3),
    "one count too many": judges.counter_rise("c", {}, {"n": 4}, "n", 3),
    "one under way too many": judges.most_in_hand("c", load(record(), most_in_hand=4), 3),
    "one under way too few": judges.most_in_hand("c", load(record(), most_in_hand=2), 3),
    "one under way too many in spite of lost calls": judges.most_in_hand("c", load(TIMEOUT, most_in_hand=4), 3),
    "85 to 15": judges.split("c", shares(standard=1700, backup=300), declared=DECLARED, alpha=1e-5),
    "one leg silent": judges.split("c", shares(standard=2000), declared=DECLARED, alpha=1e-5),
    "an undeclared version": judges.split("c", shares(standard=1800, backup=199, premium=1), declared=DECLARED, alpha=1e-5),
    "a call without a route": judges.split("c", draw(*shares(standard=900, backup=100)["records"], NO_ROUTE), declared=DECLARED, alpha=1e-5),
    "a wrong split with lost calls": judges.split("c", draw(*shares(standard=1400, backup=600)["records"], GONE, GONE), declared=DECLARED, alpha=1e-5),
    "a wrong version": judges.only_version("c", shares(v1=99, v2=1), "v1"),
    "a wrong version among lost calls": judges.only_version("c", draw(record("v2"), GONE), "v1"),
    "no version but 404": judges.only_version("c", draw(record(), NO_ROUTE), "v1"),
    "the forbidden version": judges.never_version("c", shares(v1=99, v2=1), "v2"),
    "a version never seen": judges.versions_seen("c", ALIVE, ["v1", "v2"]),
    "more apart than connections": judges.alike("c", {**shares(v1=7, v2=4), "concurrency": 2}, ["v1", "v2"]),
    "further apart than lost calls explain": judges.alike("c", {**draw(*shares(v1=8, v2=4)["records"], GONE), "concurrency": 2}, ["v1", "v2"]),
    "one that nobody asked for": judges.alike("c", {**shares(v1=5, v2=5, v3=5), "concurrency": 2}, ["v1", "v2"]),
    "another answer": judges.answer_header("c", draw(record(headers={"x-greeting": ["Hello!"]})), "x-greeting", "Hello World!"),
    "an answer without the header": judges.answer_header("c", draw(record()), "x-greeting", "Hello World!"),
    "an answer from nobody": judges.answer_header("c", draw(NO_ROUTE), "x-greeting", "Hello World!"),
    "another header value": judges.header_seen("c", ALIVE, "user-type", "standard"),
    "a header twice": judges.header_seen("c", draw(record(seen={"user-type": ["premium", "premium"]})), "user-type", "premium"),
    "a header that should be gone": judges.header_absent("c", ALIVE, "user-type"),
    "another peer": judges.peer_identity("c", ALIVE, MEMBER + "x"),
    "no peer": judges.peer_identity("c", draw(record(seen={"host": ["a"]})), MEMBER),
    "a peer where none should be": judges.no_peer_identity("c", ALIVE),
    "closed on instead of taken": judges.taken("c", draw(RESET, RESET), MEMBER, control=ALIVE),
    "refused by the caller's proxy instead of taken": judges.taken("c", draw(record("", 503), record("", 503)), MEMBER, control=ALIVE),
    "taken for another": judges.taken("c", ALIVE, MEMBER + "x", control=ALIVE),
    "a refused call that was served": judges.refused("c", draw(RESET, record()), control=ALIVE),
    "a function that refuses itself": judges.refused("c", draw(record("v1", 403)), control=ALIVE, status=403),
    "refused with another status": judges.refused("c", draw(record("", 401)), control=ALIVE, status=403),
    "answered instead of closed": judges.refused("c", draw(record("", 403)), control=ALIVE),
    "one of several not refused": judges.all_refused("c", {"a": draw(RESET), "b": ALIVE}, control=ALIVE),
    "the nonce in the clear": judges.encrypted("c", wire(nonce=True)),
    "the nonce in an incomplete capture": judges.encrypted("c", wire(nonce=True, missing=3)),
    "no TLS record": judges.encrypted("c", wire(records=0, tls_streams=0)),
    "a stream that is not TLS": judges.encrypted("c", wire(tls_streams=3)),
    "no stream that is TLS": judges.encrypted("c", wire(tls_streams=0), every_stream=False),
    "no nonce": judges.plaintext("c", wire()),
}


@pytest.mark.parametrize("name", REFUTED)
def test_every_judge_can_be_refuted(name):
    claim = REFUTED[name]

    assert claim.held is False, claim.text()
    assert claim.expected
    assert claim.got


OPEN = {
    "a flag that was never logged": judges.flagged("c", draw(TIMED_OUT, record("", 504)), 504, "UT"),
    "no answer to be early": judges.not_before("c", draw(TIMED_OUT, TIMEOUT), 1000),
    "lost before it arrived": judges.reached("c", draw({**TIMED_OUT, "flags": "UF"}), ARRIVED, 4),
    "no answer and arrived too rarely": judges.reached("c", draw({**TIMED_OUT, "status": 0}), ARRIVED, 4),
    "calls without an id": judges.reached("c", draw(record(request_id="")), ARRIVED, 3),
    "a count of nothing": judges.reached("c", draw(TIMED_OUT), {"by_request_id": {}}, 0),
    "only excused failures": judges.no_failures("c", draw(record(), GONE), excused=judges.UPSTREAM_GONE),
    "no answer": judges.every_status("c", draw(record(), TIMEOUT), 200),
    "fewer of a status than wanted": judges.every_status("c", ALIVE, 200, least=4),
    "a refusal that is not in the log": judges.flagged("c", draw(OVERFLOW, record("", 503)), 503, "UO", by_proxy=True),
    "a refusal without an answer": judges.flagged("c", draw(OVERFLOW, TIMEOUT), 503, "UO", by_proxy=True),
    "fewer refusals than wanted": judges.flagged("c", draw(OVERFLOW), 503, "UO", least=2, by_proxy=True),
    "a call that was lost late": judges.not_before("c", draw(LATE, {**TIMEOUT, "latency_ms": 50.0}), 30),
    "answers that were lost": judges.answers("c", draw(*shares(v1=3)["records"], TIMEOUT), HALVES),
    "a counter that is not kept": judges.counter_rise("c", {}, {}, "n", 0),
    "a proxy that started anew": judges.counter_rise("c", {"n": 4}, {"n": 0}, "n", 0),
    "fewer under way, but calls were lost": judges.most_in_hand("c", load(TIMEOUT, most_in_hand=2), 3),
    "as many under way, but calls were lost": judges.most_in_hand("c", load(TIMEOUT), 3),
    "no wave": judges.most_in_hand("c", {"function": {"most_in_hand": 3}}, 3),
    "a pod killed in the middle": judges.split("c", draw(*shares(standard=1800, backup=200)["records"], GONE), declared=DECLARED, alpha=1e-5),
    "too few to reject anything": judges.split("c", shares(standard=3), declared=DECLARED, alpha=1e-5),
    "too few for the shift": judges.split("c", shares(standard=1800, backup=200), declared=DECLARED, alpha=1e-5, shift=0.04),
    "a lost call": judges.only_version("c", draw(record(), TIMEOUT), "v1"),
    "fewer than wanted": judges.only_version("c", ALIVE, "v1", least=4),
    "a missing version and lost calls": judges.versions_seen("c", draw(record(), GONE), ["v1", "v2"]),
    "apart, but calls were lost": judges.alike("c", {**draw(*shares(v1=6, v2=4)["records"], GONE), "concurrency": 1}, ["v1", "v2"]),
    "too few for so many connections": judges.alike("c", {**shares(v1=2, v2=2), "concurrency": 2}, ["v1", "v2"]),
    "closed on like all others": judges.taken("c", draw(RESET, RESET), MEMBER, control=draw(RESET)),
    "lost rather than closed on": judges.taken("c", draw(RESET, TIMEOUT), MEMBER, control=ALIVE),
    "an alert that says nothing of a certificate": judges.refused("c", draw(record("", 0, error="tls: remote error: tls: internal error")), control=ALIVE),
    "a time-out is no refusal": judges.refused("c", draw(TIMEOUT), control=ALIVE),
    "nobody listens": judges.refused("c", draw(record("", 0, error="connect: connection refused")), control=ALIVE),
    "a dead control": judges.refused("c", draw(RESET), control=draw(TIMEOUT)),
    "a refused control": judges.refused("c", draw(record("", 403)), control=draw(record("", 403)), status=403),
    "nothing tried": judges.all_refused("c", {}, control=ALIVE),
    "one of several unclear": judges.all_refused("c", {"a": draw(RESET), "b": draw(TIMEOUT)}, control=ALIVE),
    "nothing captured": judges.encrypted("c", wire(segments=0, payload=0, records=0)),
    "an incomplete capture": judges.encrypted("c", wire(missing=3)),
    "an incomplete capture in the clear": judges.plaintext("c", wire(missing=3)),
    "no capture": judges.encrypted("c", {}),
    "nothing captured in the clear": judges.plaintext("c", {}),
    "undecided": judges.sequential_split("c", shares(v1=3), version="v1", test=sampling.SequentialTest(0.5, 0.1, 1e-3, 1e-2, 3)),
    "a call lost on the way to a decision": judges.sequential_split("c", draw(GONE, *shares(v1=900)["records"]), version="v1", test=sampling.SequentialTest(0.5, 0.1, 1e-3, 1e-2, 3000)),
}


@pytest.mark.parametrize("name", OPEN)
def test_every_judge_can_stay_open(name):
    claim = OPEN[name]

    assert claim.held is None, claim.text()


@given(st.lists(st.integers(0, 3), min_size=1, max_size=8), st.integers(0, 3))
def test_arrivals_hold_exactly_when_every_call_arrived_as_often_as_it_should(arrivals, times):
    calls = draw(*(record(request_id=f"{index:08}-0000-4000-8000-000000000000") for index in range(len(arrivals))))
    counts = {"by_request_id": {each["request_id"]: count for each, count in zip(calls["records"], arrivals, strict=True) if count} | {"another's": 1}}

    assert (judges.reached("c", calls, counts, times).held is True) == all(count == times for count in arrivals)


def test_counts_that_are_none_are_a_damaged_file():
    with pytest.raises(UserError, match="counts by request id"):
        judges.reached("c", draw(TIMED_OUT), {}, 1)


def test_a_label_takes_the_version_s_place_and_without_one_a_call_is_lost():
    mixed = judges.labelled(draw(record("v1"), record("", 418), record("", 403)), lambda seen: {200: "answered", 418: "aborted"}.get(seen["status"], ""))

    assert [(each["version"], each["status"]) for each in mixed["records"]] == [("answered", 200), ("aborted", 418), ("", 0)]
    assert judges.split("c", mixed, declared={"answered": 0.5, "aborted": 0.5}, alpha=1e-5).held is None


def test_a_part_of_an_incomplete_draw_is_incomplete():
    part = judges.chosen(draw(record("v1"), record("v2"), count=3), lambda seen: seen["version"] == "v1")

    assert [each["version"] for each in part["records"]] == ["v1"]
    assert judges.only_version("c", part, "v1").held is None


def test_a_capture_that_holds():
    assert judges.encrypted("c", wire()).held is True
    assert judges.encrypted("c", wire(tls_streams=1), every_stream=False).held is True
    assert judges.plaintext("c", wire(nonce=True, records=0, tls_streams=0)).held is True


def test_counters_and_loads_that_hold():
    assert judges.counter_rise("c", {"n": 4}, {"n": 7}, "n", 3).held is True
    assert judges.counter_rise("c", {}, {"n": 0}, "n", 0).held is True
    assert judges.most_in_hand("c", load(record()), 3).held is True


def test_a_time_out_may_be_a_tick_of_the_proxys_clock_early():
    assert judges.not_before("c", draw({**LATE, "latency_ms": 20.0}), 30).held is True


@given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 100))
def test_a_counter_holds_at_its_own_rise_only(before, rise, expected):
    claim = judges.counter_rise("c", {"n": before}, {"n": before + rise}, "n", expected)

    assert claim.held is (rise == expected)


@pytest.mark.parametrize("broken", [{"waves": []}, {"function": {}, "waves": []}, {"function": {"most_in_hand": "x"}}], ids=str)
def test_what_is_no_load_is_a_damaged_file(broken):
    with pytest.raises(UserError, match="evidence of claim c"):
        judges.most_in_hand("c", broken, 3)


def test_what_is_no_counter_is_a_damaged_file():
    with pytest.raises(UserError, match="evidence of claim c"):
        judges.counter_rise("c", {"n": "x"}, {"n": 1}, "n", 1)


@given(st.lists(st.sampled_from([record(), record("v2", 500), record("", 503), TIMEOUT]), min_size=1, max_size=8))
def test_answers_hold_exactly_on_what_was_seen(records):
    seen = Counter((one["version"], one["status"]) for one in records)

    assert judges.answers("c", draw(*records), seen).held is (None if TIMEOUT in records else True)


def test_the_wiretap_saves_what_the_judge_reads():
    assert set(wire()) == {field.name for field in dataclasses.fields(WireEvidence)}


def test_the_caller_saves_what_the_judges_read():
    calls = tuple(CallRecord(index=index, status=200, error="", latency_ms=1.0, started_ms=0.0, version="v1") for index in range(3))
    saved = json.loads(json.dumps(Draw("http://a", "GET", 3, 1, calls, "2099-01-01T00:00:00+00:00", 0.1).to_json()))

    assert judges.only_version("c", saved, "v1", least=3).held is True


def test_a_capture_with_fields_missing_is_a_damaged_file():
    with pytest.raises(UserError, match="payload_bytes"):
        judges.encrypted("c", {"segments": 4})


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 12))
def test_a_split_with_lost_calls_is_refuted_only_if_every_way_of_filling_them_is(standard, backup, lost):
    declared = {"standard": 0.5, "backup": 0.5}
    claim = judges.split("c", draw(*shares(standard=standard, backup=backup)["records"], *[GONE] * lost), declared=declared, alpha=1e-3)

    if claim.held is False:
        assert all(sampling.split({"standard": standard + extra, "backup": backup + lost - extra}, declared, 1e-3).rejected for extra in range(lost + 1))
    if lost:
        assert claim.held is not True


def test_the_split_judge_agrees_with_the_band_at_its_ends():
    for backup, held in ((142, False), (143, True), (262, True), (263, False)):
        assert judges.split("c", shares(standard=2000 - backup, backup=backup), declared=DECLARED, alpha=1e-5).held is held


@pytest.mark.parametrize(("headers", "peer"), [
    ([XFCC], MEMBER),
    ([f"URI={MEMBER}"], MEMBER),
    # A caller may send the header itself; its proxy's element comes last.
    ([f"URI=spiffe://forged,{XFCC}"], MEMBER),
    (["URI=spiffe://forged", XFCC], MEMBER),
    ([f"{XFCC},By=spiffe://x;Hash=1"], ""),
    (['By=spiffe://a;Subject="URI=spiffe://forged"'], ""),
    (["URI=spiffe://a;URI=spiffe://b"], ""),
    (["URI=https://a"], ""),
    ([""], ""),
    ([], ""),
])
def test_the_peer_is_the_last_element_of_the_forwarded_certificate(headers, peer):
    assert judges.peer_of({"seen": {"x-forwarded-client-cert": headers}}) == peer
