"""The audit log: every request once, with who asked whom, how, for what, and which policy decided how."""

from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import Any

import pytest

from clusters.components.istio.client import IstioClient
from suites.support import judges, permissions
from suites.support.manifests import Manifests
from suites.support.permissions import ALLOWED_BY_POLICY, DENIED, FORBIDDEN, Case, Client, Target
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


def entries_of(istio: IstioClient, namespace: str, pod: str, draws: list[Draw]) -> list[dict[str, Any]]:
    """Return what a pod's proxy wrote down of some draws, once all of it is there, or after a bounded wait what is."""
    wanted = {join_key(record.request_id) for draw in draws for record in draw.records}
    found = permissions.written(partial(istio.access_log, namespace, pod, draws[0].began), wanted)
    return [{field: entry.get(field) for field in KEPT} for entry in found if join_key(str(entry["request_id"])) in wanted]


@pytest.mark.usefixtures("our_log")
@requirement("security.audit", level="MUST", judge=judge)
def test_every_request_is_written_down_once_with_its_decision(
    clients: Mapping[str, Client], targets: Mapping[str, Target], istio: IstioClient, manifests: Manifests, decide: Decide,
) -> None:
    """Each allowed and each denied request is in the access log exactly once, with its id, both principals, method, path, decision and policy.

    Until a log store collects them, the logs are read from the proxies.
    """
    manifests.apply("audit.yaml")
    client, target = clients["function-sa"], targets["function"]
    table = permissions.try_all(CASES, clients, targets, istio)
    draws = [client.caller.draw(target.url, path=path, count=LOADED, concurrency=CONCURRENCY, keep_seen=[], keep_headers=[]) for path in ("/api/users", "/api/admin")]

    decide(
        table=table,
        principals={"function-sa": client.principal, "function": target.principal},
        load={
            "allowed": draws[0], "denied": draws[1],
            "callee": entries_of(istio, target.function.namespace, target.function.pod, draws),
            "caller": entries_of(istio, client.caller.namespace, client.caller.pod, draws),
        },
    )
