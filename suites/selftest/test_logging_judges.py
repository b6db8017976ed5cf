"""Self-tests of the judges of logs: each holds on what is right, and each of its claims can be refuted or left open."""

import copy

import pytest

from suites.support import logs, requirements

FOUND = requirements.discover()
OF = {"namespace": "ns", "container": "observed"}
LINE = {**OF, "pod": "writer", "stream": "stdout", "labels": {"app": "f"}, "fields": {}}
WHOLE = {"digest": "a", "length": 3, "begins": "abc"}
CALLEE = {"namespace": "ns", "pod": "callee", "container": "istio-proxy"}


def seen(written, *, lost=(), again=()):
    return logs.tally(written, [str(one) for one in range(written) if one not in lost] + [str(one) for one in again])


def entry(name="one", **more):
    return {
        "request_id": f"{name}-4-x", "path": "/", "method": "GET", "response_code": 200, "rbac_decision": "allowed", "rbac_policy": "p",
        "downstream_peer_principal": "a", "upstream_peer_principal": "b", "writer": CALLEE, **more,
    }


GOOD = {
    "logging.exactly-once": {
        "found": [LINE], "writer": {**OF, "pod": "writer", "stream": "stdout"}, "labels": {"app": "f"}, "under_neighbour": [],
        "neighbour_s": [{**LINE, "pod": "neighbour"}], "neighbour": {**OF, "pod": "neighbour"}, "elsewhere": [], "written_elsewhere": True,
        "paced": seen(60), "read_again": seen(60), "backlog": {"read": 62, "size": 0, "retries": 0},
    },
    "logging.whole-lines": {"written": {"a-trace": "a", "a-line": "b"}, "found": [WHOLE, {**WHOLE, "digest": "b"}], "objects": [{"length": 65_536}]},
    "logging.under-load": {"took_s": 30.0, "killed": {"pods": ["a"], "after": 20_000, "then": ["b"]}, "seen": seen(60_000)},
    "logging.outage": {
        "away_s": 31.0, "said": "log store logging/store: GET /_cluster/health: expected a pod", "backlog": {"read": 10, "size": 900, "retries": 4},
        "files": {"before": ["1"], "seen": ["1", "2", "3", "4"]}, "seen": seen(5_600),
    },
    "logging.reference": {"warned": {"a": 20, "b": 20}, "as_published": 0, "corrected": seen(20, again=range(20))},
}


def judged(name, **changed):
    return FOUND[name].judge({**copy.deepcopy(GOOD[name]), **changed})


@pytest.mark.parametrize("name", GOOD)
def test_what_is_right_holds(name):
    assert judged(name).outcome == "held"


@pytest.mark.parametrize(("name", "changed", "claim", "held"), [
    ("logging.exactly-once", {"found": []}, "found-once-with-its-writer", False),
    ("logging.exactly-once", {"found": [LINE, LINE]}, "found-once-with-its-writer", False),
    ("logging.exactly-once", {"under_neighbour": [LINE]}, "not-found-under-another-pod", False),
    ("logging.exactly-once", {"neighbour_s": [LINE]}, "a-neighbour-s-is-its-own", False),
    ("logging.exactly-once", {"elsewhere": [LINE]}, "what-is-not-read-is-not-there", False),
    ("logging.exactly-once", {"written_elsewhere": False}, "what-is-not-read-is-not-there", None),
    ("logging.exactly-once", {"paced": seen(60, lost=[3])}, "each-is-found", False),
    ("logging.exactly-once", {"read_again": seen(60, again=[3])}, "once-after-all-was-read-again", False),
    ("logging.exactly-once", {"backlog": None}, "all-was-read-again", None),
    ("logging.exactly-once", {"backlog": {"read": 1, "size": 0, "retries": 0}}, "all-was-read-again", False),
    ("logging.whole-lines", {"found": [WHOLE]}, "a-line", False),
    ("logging.whole-lines", {"found": [WHOLE, WHOLE, {**WHOLE, "digest": "b"}]}, "a-trace", False),
    ("logging.whole-lines", {"objects": []}, "a-long-object-is-found-by-its-fields", False),
    ("logging.whole-lines", {"objects": [{"length": 16_000}]}, "a-long-object-is-found-by-its-fields", False),
    ("logging.under-load", {"took_s": 40.0}, "two-thousand-a-second", None),
    ("logging.under-load", {"seen": seen(60_000, lost=[7])}, "none-is-lost", False),
    ("logging.under-load", {"seen": seen(60_000, again=[7])}, "none-is-there-twice", False),
    ("logging.under-load", {"killed": {"pods": [], "after": 20_000, "then": ["b"]}}, "the-collector-was-killed-meanwhile", None),
    ("logging.under-load", {"killed": {"pods": ["a"], "after": 0, "then": ["b"]}}, "the-collector-was-killed-meanwhile", None),
    ("logging.under-load", {"killed": {"pods": ["a"], "after": 60_000, "then": ["b"]}}, "the-collector-was-killed-meanwhile", None),
    ("logging.under-load", {"killed": {"pods": ["a"], "after": 20_000, "then": ["a"]}}, "the-collector-was-killed-meanwhile", None),
    ("logging.outage", {"away_s": 3.0}, "the-store-was-away", None),
    ("logging.outage", {"said": ""}, "the-client-says-who-is-missing", False),
    ("logging.outage", {"said": "no lines"}, "the-client-says-who-is-missing", False),
    ("logging.outage", {"backlog": {"read": 0, "size": 0, "retries": 0}}, "the-collector-held-what-it-had-read", False),
    ("logging.outage", {"backlog": None}, "the-collector-held-what-it-had-read", None),
    ("logging.outage", {"files": {"before": ["2"], "seen": ["1", "2"]}}, "the-kubelet-rotated-the-log", None),
    ("logging.outage", {"seen": seen(5_600, lost=[0])}, "none-is-lost", False),
    ("logging.reference", {"warned": {"a": 20}}, "each-replica-warns-of-every-line", False),
    ("logging.reference", {"as_published": 3}, "nothing-arrives-as-published", False),
    ("logging.reference", {"warned": {"a": 0, "b": 0}}, "nothing-arrives-as-published", None),
    ("logging.reference", {"corrected": seen(20)}, "each-line-arrives-from-each-replica", False),
    ("logging.reference", {"corrected": seen(20, lost=[1], again=range(2, 20))}, "with-the-runtime-s-format-lines-arrive", False),
])
def test_each_claim_can_be_refuted_or_left_open(name, changed, claim, held):
    (one,) = [each for each in judged(name, **changed).claims if each.name == claim]

    assert one.held is held


def audit(name):
    return FOUND["security.audit"].judge.__globals__[name]


@pytest.mark.parametrize(("entries", "held"), [([entry(), entry("two")], True), ([entry(), entry("two", writer={**CALLEE, "pod": "another"})], False), ([entry(writer=None)], False), ([], None)])
def test_entries_of_the_audit_log_name_their_proxy(entries, held):
    assert audit("writers")("writers", entries, CALLEE).held is held


@pytest.mark.parametrize(("stored", "written", "held"), [
    ([entry()], [entry(writer=None)], True), ([], [entry()], False), ([entry(), entry()], [entry()], False), ([entry(path="/other")], [entry()], False), ([], [], None),
])
def test_the_store_has_what_the_proxy_wrote_and_no_more(stored, written, held):
    assert audit("same")("same", stored, written).held is held
