"""Egress: under REGISTRY_ONLY a caller reaches outside the mesh what a ServiceEntry registers, and nothing else."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import pytest

from clusters.components.istio.client import IstioClient
from clusters.waiting import TimedOut, eventually
from suites.support import judges
from suites.support.manifests import Manifests
from suites.support.requirements import requirement
from suites.support.verdicting import Decide
from suites.support.verdicts import Claim, Evidence, Verdict
from workloads.caller import caller as caller_objects
from workloads.caller.client import Caller
from workloads.fixtures import World
from workloads.greeter import greeter
from workloads.greeter.client import Greeter
from workloads.records import Draw, join_key

REGISTERED = ("Host", "api.partner.example")
UNREGISTERED = ("Host", "api.stranger.example")
# A port on which the mesh has no service, so that its proxies have no listener for it.
PORT = 7070
# Whether an address is let out is decided by configuration, not by chance.
CALLS = 20
# Envoy writes its access log out once a second; a busy machine takes longer to pass it on.
LOGGED_WITHIN_S = 15.0
CLOSED = ("closed by the other side", "connection reset", "broken pipe")


def judge(evidence: Evidence) -> Verdict:
    """The registered name is reached; other names are answered by the proxy, other addresses end in the black hole; the control reaches both."""
    registered, names, address = evidence["registered"], evidence["unknown-names"], evidence["unknown-address"]
    control = evidence["control"]
    return Verdict.of(
        judges.answers("registered-reached", registered, {("registered", 200): CALLS}),
        # Finding: a name on a port that the mesh knows does not end in BlackHoleCluster but is answered 502 by the route `block_all`.
        judges.all_refused("unknown-hosts-refused", names, control=control["name"], status=502),
        judges.logged("refused-by-block-all", evidence["log"]["names"], {"route_name": "block_all", "response_code_details": "direct_response"}, CALLS * len(names)),
        judges.refused("unknown-address-refused", address, control=control["address"], closed=CLOSED),
        judges.logged("sent-to-the-black-hole", evidence["log"]["address"], {"upstream_cluster": "BlackHoleCluster", "response_flags": "UH"}, CALLS),
        nothing_arrived("nothing-arrived", evidence["arrived"]),
        judges.answers("control-name-reached", control["name"], {("unregistered", 200): CALLS}),
        judges.answers("control-address-reached", control["address"], {("unregistered", 200): CALLS}),
    )


def nothing_arrived(name: str, counts: Evidence) -> Claim:
    """Claim that no call reached the unregistered function while only the restricted caller called."""
    total = counts["total"]
    return Claim(name, held=total == 0, said=f"{total} calls reached the unregistered function", expected="0", got=str(total))


@pytest.fixture(scope="module")
def outside(world: World) -> Caller:
    """Two functions beside the mesh, whose Services it does not see; returns a caller of its own, on whom the restriction lies."""
    world.deploy({"egress-caller": caller_objects("egress-caller"), **{f"{version}-function": _hidden(version) for version in ("registered", "unregistered")}})
    return Caller(world.kube, world.namespace, world.pod("egress-caller"))


def _hidden(version: str) -> list[dict[str, Any]]:
    account, front, deployment = greeter(f"{version}-function", version, port=PORT, inject=False)
    # The cluster's DNS and its addresses lead there, the mesh's registry does not know it: all that is outside about a host.
    front["metadata"]["annotations"] = {"networking.istio.io/exportTo": "~"}
    return [account, front, deployment]


@requirement("routing.egress", level="MUST", judge=judge)
def test_only_what_is_registered_is_reached(
    outside: Caller, caller: Caller, world: World, istio: IstioClient, manifests: Manifests, decide: Decide,
) -> None:
    """Under REGISTRY_ONLY a host of a ServiceEntry is reached, and every other name and address outside the mesh is refused.

    Names are tried on port 80, which the mesh's proxies serve, addresses on a port that they do not know: they go different ways.
    """
    stranger = Greeter(world.kube, world.namespace, world.pod("unregistered-function"))
    address = f"http://{world.address(stranger.pod)}:{PORT}/"
    manifests.apply("egress.yaml")

    stranger.reset_counts()
    registered = outside.draw("http://registered-function/", count=CALLS, headers=[REGISTERED])
    names = {
        "at the registered address": outside.draw("http://registered-function/", count=CALLS, headers=[UNREGISTERED]),
        "at an unregistered address": outside.draw("http://unregistered-function/", count=CALLS, headers=[UNREGISTERED]),
    }
    unknown = outside.draw(address, count=CALLS, fresh_connections=True)
    arrived = stranger.counts()
    control = {
        "name": caller.draw("http://unregistered-function/", count=CALLS, headers=[UNREGISTERED]),
        "address": caller.draw(address, count=CALLS, fresh_connections=True),
    }

    decide(
        registered=registered, control=control, arrived=arrived, log=log_of(istio, outside, list(names.values()), unknown),
        **{"unknown-names": names, "unknown-address": unknown},
    )


def log_of(istio: IstioClient, caller: Caller, draws: list[Draw], unknown: Draw) -> dict[str, list[Mapping[str, Any]]]:
    """Return what the caller's proxy logged of the calls by name, and of the connections of the draw `unknown`, which have no request id."""
    ids = {join_key(record.request_id) for draw in draws for record in draw.records}
    found: dict[str, list[Mapping[str, Any]]] = {}

    def read() -> None:
        entries = istio.access_log(caller.namespace, caller.pod, draws[0].began)
        found["names"] = [entry for entry in entries if entry["request_id"] and join_key(entry["request_id"]) in ids]
        found["address"] = [entry for entry in entries if not entry["request_id"] and _moment(entry["start_time"]) >= _moment(unknown.began)]
        assert len(found["names"]) >= len(ids), f"{len(found['names'])} of {len(ids)} calls by name are logged"
        assert len(found["address"]) >= unknown.count, f"{len(found['address'])} of {unknown.count} connections are logged"

    with suppress(TimedOut):
        eventually(read, within=LOGGED_WITHIN_S)
    return found


def _moment(text: str) -> str:
    """Cut a time of the proxy or the caller, ISO 8601 in UTC, to the milliseconds that both have."""
    return text[:23]
