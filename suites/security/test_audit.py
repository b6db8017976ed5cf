"""The audit log in the store: every request once, with who asked whom, how, for what, and which policy decided how."""

from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import Any

import pytest

from clusters.components.istio.client import SIDECAR, IstioClient
from clusters.components.store.client import StoreClient
from suites.support import judges, permissions
from suites.support.manifests import Manifests
from suites.support.permissions import ALLOWED_BY_POLICY, DENIED, FORBIDDEN, AccessLogs, Case, Client, Target
from suites.support.requirements import requirement
from suites.support.verdicting import Decide
from suites.support.verdicts import Claim, Evidence, Verdict
from workloads.records import Draw, join_key

CASES = (
    Case("allowed-by-name", ALLOWED_BY_POLICY, "function-sa", path="/api/users", policy="policy[permit]"),
    Case("denied-by-name", FORBIDDEN, "function-sa", path="/api/admin", policy="policy[forbid]"),
    Case("nobody-named-it", DENIED, "another-sa", path="/api/users"),
    Case("no-identity", DENIED, "intruder", method="DELETE", path="/api/users"),
    # What a caller says of itself changes nothing of what is written down: not the path, nor the identity.
    Case("path-forged", DENIED, "function-sa", path="/elsewhere", headers=(("x-envoy-original-path", "/api/users"),)),
    Case("over-http2", ALLOWED_BY_POLICY, "function-sa", "over-http2", path="/api/users", protocol="h2", policy="policy[permit]"),
)
LOADED = 300
CONCURRENCY = 16
KEPT = ("request_id", "path", "method", "response_code", "rbac_decision", "rbac_policy", "downstream_peer_principal", "upstream_peer_principal")


def judge(evidence: Evidence) -> Verdict:
    """The table's requests, and those of a load, are in the log once each as they were; the callers' own proxies agree."""
    principals, load = evidence["principals"], evidence["load"]
    allowed, denied = load["allowed"], load["denied"]
    from_function_sa = {"downstream_peer_principal": principals["function-sa"]}
    return Verdict.of(
        *permissions.claims(CASES, evidence["table"]),
        paths("paths-are-those-that-were-judged", evidence["table"]),
        writers("each-entry-names-its-proxy", load["callee"], evidence["pods"]["callee"]),
        same("the-store-has-what-the-proxy-wrote", load["callee"], evidence["proxies"]),
        judges.every_status("under-load-allowed", allowed, 200, least=LOADED),
        judges.every_status("under-load-denied", denied, 403, least=LOADED),
        once("under-load-each-allowed-request-once", allowed, load["callee"], {"response_code": 200, "rbac_decision": "allowed", **from_function_sa}),
        once("under-load-each-denied-request-once", denied, load["callee"], {"response_code": 403, "rbac_decision": "denied", **from_function_sa}),
        once("the-caller-s-proxy-wrote-each-down-once", judges.joined({"allowed": allowed, "denied": denied}), load["caller"], {"upstream_peer_principal": principals["function"]}),
    )


def once(name: str, draw: Mapping[str, Any], entries: list[Mapping[str, Any]], fields: Mapping[str, object]) -> Claim:
    """Claim that a log has exactly one entry for each call of a draw, with these values in it."""
    records, incomplete = judges.records_of(name, draw)
    by_key = permissions.by_request(entries)
    wrong = Counter[str]()
    for record in records:
        found = by_key.get(join_key(record["request_id"]), [])
        if len(found) != 1:
            wrong[f"{len(found)} entries"] += 1
            continue
        wrong.update(f"{field} {found[0][field]}" for field, value in fields.items() if found[0][field] != value)
    if wrong:
        seen = ", ".join(f"{count} x {what}" for what, count in wrong.most_common(4))
        return Claim(name, held=False, said=f"of {len(records)} calls {seen}", expected="one entry each", got=seen)
    return incomplete or Claim(name, held=True, said=f"all {len(records)} calls are there exactly once")


def paths(name: str, trial: Mapping[str, Any]) -> Claim:
    """Claim that the log has the path of each request of the table as it was sent."""
    logged = {join_key(str(entry["request_id"])): entry["path"] for entries in trial["logged"].values() for entry in entries}
    seen = {(case.name, case.path, logged.get(join_key(record["request_id"]))) for case in CASES for record in trial["draws"].get(case.name, {}).get("records", [])}
    wrong = sorted((case, path) for case, wanted, path in seen if path and path != wanted)
    if wrong:
        return Claim(name, held=False, said=f"{wrong[0][0]} is in the log as {wrong[0][1]}", expected="the path that was sent", got=str(wrong))
    if not seen or any(path is None for _, _, path in seen):
        return Claim(name, held=None, said="not every request is in the log")
    return Claim(name, held=True, said=f"{len(seen)} paths are in the log as they were sent")


def writers(name: str, entries: list[Mapping[str, Any]], pod: Mapping[str, str]) -> Claim:
    """Claim that the store has each entry under the proxy that wrote it: namespace, pod and container."""
    seen = Counter(tuple((entry["writer"] or {}).get(field) for field in pod) for entry in entries)
    wrong = {" ".join(map(str, one)): count for one, count in seen.items() if one != tuple(pod.values())}
    if wrong or not seen:
        return Claim(name, held=False if wrong else None, said=f"of {seen.total()} entries {wrong or 'none'} are of another", expected=str(dict(pod)), got=str(wrong))
    return Claim(name, held=True, said=f"{seen.total()} entries are of {' '.join(pod.values())}")


def same(name: str, stored: list[Mapping[str, Any]], written: list[Mapping[str, Any]]) -> Claim:
    """Claim that every entry of the proxy's own log is in the store with the same values, and no other."""
    def told(entries: list[Mapping[str, Any]]) -> Counter[tuple[Any, ...]]:
        return Counter(tuple(entry[field] for field in KEPT) for entry in entries)

    missing, more = told(written) - told(stored), told(stored) - told(written)
    said = f"of {len(written)} entries of the proxy {missing.total()} are not in the store, which has {more.total()} others"
    if not written and not stored:
        return Claim(name, None, said)
    return Claim(name, held=not missing and not more, said=said, expected="the same", got=str([*missing, *more][:2]))


def entries_of(source: AccessLogs, namespace: str, pod: str, draws: list[Draw]) -> list[dict[str, Any]]:
    """Return what a pod's proxy wrote down of some draws, once all of it is there, or after a bounded wait what is."""
    wanted = {join_key(record.request_id) for draw in draws for record in draw.records}
    found = permissions.written(partial(source.access_log, namespace, pod, draws[0].began), wanted)
    return [{field: entry.get(field) for field in (*KEPT, "writer")} for entry in found if join_key(str(entry["request_id"])) in wanted]


@pytest.fixture(scope="module")
def collected(our_log: None, request: pytest.FixtureRequest) -> StoreClient:
    """The store, and who fills it; only where the log is ours."""
    del our_log
    request.getfixturevalue("fluentd")
    store: StoreClient = request.getfixturevalue("store")
    return store


@requirement("security.audit", level="MUST", judge=judge)
def test_every_request_is_written_down_once_with_its_decision(
    collected: StoreClient, clients: Mapping[str, Client], targets: Mapping[str, Target], istio: IstioClient, manifests: Manifests, decide: Decide,
) -> None:
    """Each allowed and each denied request is in the log store exactly once, with its id, both principals, method, path, decision and policy, under the proxy that wrote it.

    The proxies' own logs are read beside it: the store has what they wrote, and no more.
    """
    manifests.apply("audit.yaml")
    client, target = clients["function-sa"], targets["function"]
    table = permissions.try_all(CASES, clients, targets, collected)
    draws = [client.caller.draw(target.url, path=path, count=LOADED, concurrency=CONCURRENCY, keep_seen=[], keep_headers=[]) for path in ("/api/users", "/api/admin")]

    decide(
        table=table,
        principals={"function-sa": client.principal, "function": target.principal},
        load={
            "allowed": draws[0], "denied": draws[1],
            "callee": entries_of(collected, target.function.namespace, target.function.pod, draws),
            "caller": entries_of(collected, client.caller.namespace, client.caller.pod, draws),
        },
        proxies=entries_of(istio, target.function.namespace, target.function.pod, draws),
        pods={"callee": {"namespace": target.function.namespace, "pod": target.function.pod, "container": SIDECAR}},
    )
