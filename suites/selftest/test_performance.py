"""Self-tests of the judges of the area `performance`: each claim holds on evidence as a healthy mesh gives it, and is refuted by what it is there for."""

import copy

import pytest

from suites.support import requirements

FOUND = requirements.discover()
IDENTITY = "spiffe://cluster.local/ns/ns/sa/caller"


def outcomes(requirement, evidence):
    return {claim.name: claim.held for claim in FOUND[f"performance.{requirement}"].judge(evidence).claims}


def changed(evidence, path, value):
    """Return the evidence with one thing in it changed."""
    copied = copy.deepcopy(evidence)
    inside = copied
    for step in path[:-1]:
        inside = inside[step]
    inside[path[-1]] = value
    return copied


def draw(count, *, latency_ms=1.0, status=200, version="bare", seen=None, flags="", error=""):
    record = {"status": status, "version": version, "latency_ms": latency_ms, "seen": seen or {"host": ["f"]}, "flags": flags, "error": error}
    return {"count": count, "records": [{**record, "index": index} for index in range(count)]}


def refusal(message):
    return {"status": 403, "message": message}


TAKEN = {"status": 201, "message": ""}
EXCEEDED = "exceeded quota: serverless-quota, requested: "
QUOTA = {
    "whole": TAKEN,
    "beyond": {
        "requests.cpu": refusal(f"{EXCEEDED}requests.cpu=4001m, used: requests.cpu=0, limited: requests.cpu=4"),
        "requests.memory": refusal(f"{EXCEEDED}requests.memory=8589934593, used: requests.memory=0, limited: requests.memory=8Gi"),
        "limits.cpu": refusal(f"{EXCEEDED}limits.cpu=8001m, used: limits.cpu=0, limited: limits.cpu=8"),
        "limits.memory": refusal(f"{EXCEEDED}limits.memory=17179869185, used: limits.memory=0, limited: limits.memory=16Gi"),
    },
    "unsaid": refusal(
        "failed quota: serverless-quota: must specify limits.cpu for: function; limits.memory for: function; requests.cpu for: function; requests.memory for: function",
    ),
    "fleet": {"created": 4, "failure": f'pods "x" is forbidden: {EXCEEDED}limits.cpu=2,limits.memory=4Gi,requests.cpu=1,requests.memory=2Gi, used: limits.cpu=8'},
    "freed": TAKEN,
    "with-sidecar": refusal(f"{EXCEEDED}limits.cpu=8200m,limits.memory=16640Mi,requests.cpu=4100m,requests.memory=8320Mi, used: limits.cpu=0"),
    "beside-sidecar": TAKEN,
    "elsewhere": dict.fromkeys(("requests.cpu", "requests.memory", "limits.cpu", "limits.memory"), TAKEN),
}
SILENT = {"status": 0, "message": "no answer"}


def test_the_quota_holds_as_it_is_declared():
    assert set(outcomes("quota", QUOTA).values()) == {True}


@pytest.mark.parametrize(("path", "value", "claim", "held"), [
    (["whole"], refusal(EXCEEDED), "at-the-limits-is-admitted", False),
    (["whole"], SILENT, "at-the-limits-is-admitted", None),
    (["beyond", "limits.cpu"], TAKEN, "limits.cpu-beyond-is-refused", False),
    (["beyond", "limits.cpu"], refusal(f"{EXCEEDED}limits.cpu=8001m, used: limits.cpu=2"), "limits.cpu-beyond-is-refused", False),
    (["beyond", "requests.memory"], SILENT, "requests.memory-beyond-is-refused", None),
    (["unsaid"], TAKEN, "unsaid-is-refused", False),
    (["fleet", "created"], 5, "four-fill-it-and-the-fifth-is-refused", False),
    (["fleet"], {"created": 3, "failure": EXCEEDED}, "four-fill-it-and-the-fifth-is-refused", False),
    (["fleet"], {"created": 2, "failure": ""}, "four-fill-it-and-the-fifth-is-refused", None),
    (["freed"], refusal(EXCEEDED), "freed-is-given-again", False),
    (["with-sidecar"], TAKEN, "finding-sidecar-counts", False),
    (["beside-sidecar"], refusal(EXCEEDED), "finding-beside-the-sidecar-is-admitted", False),
    (["elsewhere", "limits.cpu"], refusal("the other namespace has one, too"), "without-a-quota-all-are-admitted", False),
    (["elsewhere"], {}, "without-a-quota-all-are-admitted", None),
])
def test_each_claim_about_the_quota_can_fail(path, value, claim, held):
    assert outcomes("quota", changed(QUOTA, path, value))[claim] is held


WAITING = {"node": "", "running": False, "said": "0/1 nodes are available: 1 Insufficient cpu."}
PRIORITY = {
    "waiting": [{"control": {**WAITING, "said": ""}, "patient": WAITING}, {"control": WAITING, "patient": WAITING}],
    "high": {"node": "n", "running": True, "said": ""}, "fillers": {"before": ["a", "b", "c"], "after": ["a", "c"]}, "preempted": ["b"],
    "others": {"before": ["x/istiod"], "after": ["x/istiod", "x/new"]},
}
PLACED = {"node": "n", "running": False, "said": ""}


def test_priority_holds_as_it_is_declared():
    assert set(outcomes("priority", PRIORITY).values()) == {True}


@pytest.mark.parametrize(("path", "value", "claim", "held"), [
    (["waiting", 1, "control"], PLACED, "control-waits", False),
    (["waiting", 0, "patient"], PLACED, "patient-waits", False),
    (["waiting", 1, "control"], {**WAITING, "said": "node(s) had untolerated taint"}, "control-waits", None),
    (["waiting"], [], "patient-waits", None),
    (["high"], WAITING, "high-runs", False),
    (["high"], PLACED, "high-runs", None),
    (["fillers", "after"], ["a", "b", "c"], "one-filler-is-evicted", False),
    (["fillers", "after"], ["a"], "one-filler-is-evicted", False),
    (["preempted"], [], "one-filler-is-evicted", False),
    (["preempted"], ["a"], "one-filler-is-evicted", False),
    (["fillers", "before"], ["a", "b"], "one-filler-is-evicted", None),
    (["others", "after"], ["x/new"], "everybody-else-stays", False),
    (["others"], {"before": [], "after": []}, "everybody-else-stays", None),
])
def test_each_claim_about_priority_can_fail(path, value, claim, held):
    assert outcomes("priority", changed(PRIORITY, path, value))[claim] is held


MESHED = {"host": ["f"], "x-forwarded-client-cert": [f"By=spiffe://x;URI={IDENTITY}"]}


def overhead(*, both=1.2, none=0.2):
    arms = {
        "both": draw(10, latency_ms=both, version="meshed", seen=MESHED), "callers": draw(10, latency_ms=0.6),
        "functions": draw(10, latency_ms=0.6, version="meshed"), "none": draw(10, latency_ms=none),
    }
    used = {"calls": 2000, "callers_s": 0.5, "functions_s": 0.5, "seconds": 1.0}
    return {"rounds": [arms] * 48, "cpu": {"both": used, "none": {**used, "callers_s": 0.01, "functions_s": 0.01}}, "identity": IDENTITY}


def test_the_overhead_of_sidecars_is_as_it_is_declared():
    assert set(outcomes("mesh-overhead", overhead()).values()) == {True}


@pytest.mark.parametrize(("evidence", "claim", "held"), [
    (overhead(both=0.1), "p50-above-zero", False),
    (overhead(both=0.1), "p90-above-zero", False),
    (overhead(both=0.2), "p50-above-zero", None),
    (overhead(both=51), "p50-bounded", False),
    (overhead(both=101), "p90-bounded", False),
    (overhead(both=401), "slowest-bounded", False),
    (changed(overhead(), ["rounds"], overhead()["rounds"][:20]), "p50-above-zero", None),
    (changed(overhead(), ["rounds", 0, "both"], draw(10, status=503, version="", flags="UF")), "every-call-answered", False),
    (changed(overhead(), ["rounds", 0, "both"], draw(10, version="meshed")), "both-sides-have-a-sidecar", False),
    (changed(overhead(), ["rounds", 0, "none"], draw(10, version="meshed")), "neither-side-has-a-sidecar", False),
    (changed(overhead(), ["rounds", 0, "functions"], draw(10, version="meshed", seen=MESHED)), "functions-alone-has-no-peer", False),
    (changed(overhead(), ["rounds", 0, "callers"], draw(10, version="meshed")), "callers-alone-calls-the-bare-one", False),
    (changed(overhead(), ["rounds", 0, "none"], {"count": 10, "records": []}), "p50-bounded", None),
    (changed(overhead(), ["cpu", "none", "callers_s"], 0.4), "cpu-above-idle", False),
    (changed(overhead(), ["cpu", "both", "callers_s"], 7.6), "cpu-bounded", False),
    (changed(overhead(), ["cpu", "both", "calls"], 1999), "cpu-bounded", None),
    (changed(overhead(), ["cpu", "none", "calls"], 0), "cpu-above-idle", None),
])
def test_each_claim_about_overhead_can_fail(evidence, claim, held):
    assert outcomes("mesh-overhead", evidence)[claim] is held


HELD = {
    "connect_timeout": 0.01, "max_connections": 1000, "max_pending_requests": 10000, "max_requests": 10000, "max_retries": 3,
    "max_requests_per_connection": 100, "keepalive_time": 7200, "keepalive_interval": 75,
}
DEFAULTS = {**dict.fromkeys(HELD, 4294967295), "connect_timeout": 10.0}


def counted(connections, closed):
    return {
        "draw": draw(1000), "function": {"total": 1000, "connections": connections},
        "before": {"upstream_cx_max_requests": 5}, "after": {"upstream_cx_max_requests": 5 + closed},
    }


POOL = {
    "recycled": counted(10, 10), "kept": counted(1, 0), "settings": {"pooled": HELD, "default": DEFAULTS},
    "timers": {"pooled": {"connections": 2, "keep_alive_s": [7198.0, 7199.0]}, "default": {"connections": 2, "keep_alive_s": []}},
    "deaf": {"pooled": draw(5, latency_ms=90, status=503, version="", flags="UF"), "default": draw(1, latency_ms=2000, status=0, version="")},
    "rounds": [{"pooled": draw(26, latency_ms=1.1), "default": draw(26, latency_ms=1.0)}] * 32,
}


def test_the_connection_pool_holds_as_it_is_declared():
    assert set(outcomes("connection-pool", POOL).values()) == {True}


@pytest.mark.parametrize(("path", "value", "claim", "held"), [
    *((["settings", "pooled", name], value + 1, "every-setting-is-the-proxys", False) for name, value in HELD.items()),
    (["settings", "pooled"], {}, "every-setting-is-the-proxys", False),
    (["settings", "default", "max_retries"], 3, "control-has-other-settings", False),
    (["recycled", "draw"], draw(1000, status=503), "every-call-answered", False),
    (["recycled"], counted(11, 10), "connections-a-thousand-requests", False),
    (["recycled"], counted(10, 9), "closed-by-the-limit", False),
    (["recycled", "function", "total"], 999, "connections-a-thousand-requests", None),
    (["kept", "draw"], draw(1000, status=404), "control-answered", False),
    (["kept"], counted(10, 10), "control-keeps-one-connection", False),
    (["timers", "pooled", "keep_alive_s"], [7198.0], "keep-alive-armed", False),
    (["timers", "pooled", "keep_alive_s"], [7198.0, 3599.0], "keep-alive-armed", False),
    (["timers", "pooled"], {"connections": 0, "keep_alive_s": []}, "keep-alive-armed", None),
    (["timers", "default", "keep_alive_s"], [7198.0], "control-without-keep-alive", False),
    (["timers", "default", "connections"], 0, "control-without-keep-alive", None),
    (["deaf", "pooled"], draw(5, status=0, version=""), "deaf-is-given-up", None),
    (["deaf", "pooled"], draw(5, status=0, version="", error="read: timeout"), "deaf-is-given-up", False),
    (["deaf", "pooled"], draw(5, status=200), "deaf-is-given-up", False),
    (["deaf", "default"], draw(1, status=503, version="", flags="UF"), "control-waits-on", False),
    (["rounds"], [{"pooled": draw(26, latency_ms=2.1), "default": draw(26, latency_ms=1.0)}] * 32, "latency-at-most-a-little-more", False),
    (["rounds"], [], "latency-at-most-a-little-more", None),
])
def test_each_claim_about_the_connection_pool_can_fail(path, value, claim, held):
    assert outcomes("connection-pool", changed(POOL, path, value))[claim] is held
