"""The questions a check may ask of Istio: has the configuration arrived, what does a proxy hold, what did it log."""

import json
import re
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from clusters.apiserver import ApiRefused, NoAnswer
from clusters.errors import UserError
from clusters.kube import ExecFailed, Kube
from clusters.manifests import load_manifest
from clusters.timeouts import Timeouts
from clusters.waiting import TimedOut, eventually

BARRIER = Path(__file__).parent / "manifests" / "propagation_barrier.yaml"
GATEWAY_BARRIER = Path(__file__).parent / "manifests" / "gateway_barrier.yaml"
SIDECAR = "istio-proxy"
CONTROL_PLANE = "istio-system"
# Each question is a program that starts in the pod; more of them at once are not answered sooner on two cores.
PROXIES_AT_ONCE = 4
NO_CONTENT = 204
# What is written into a proxy's listeners: the connections that a listener has keep its old configuration until they are drained.
OF_LISTENERS = frozenset({"AuthorizationPolicy", "EnvoyFilter", "PeerAuthentication", "RequestAuthentication", "Telemetry"})
UNSETTLED = "^listener_manager\\.total_(filter_chains_draining|listeners_draining|listeners_warming)$"


@dataclass(frozen=True)
class Propagation:
    """How long applied configuration took to reach each proxy, in seconds from the API server's answer."""

    kinds: tuple[str, ...]
    by_proxy: Mapping[str, float]

    @property
    def seconds(self) -> float:
        """The time until the last proxy held it; 0 when there was none to wait for."""
        return max(self.by_proxy.values(), default=0.0)


@dataclass(frozen=True)
class Endpoint:
    """One endpoint of a cluster as a proxy holds it.

    `zone` is its locality's zone, empty where none is known. `priority` 0 is taken first; a proxy turns to the next one only
    as far as an endpoint of a lower number is missing or ejected. `weight` is relative to the others of its locality.
    """

    address: str
    zone: str
    priority: int
    weight: int
    healthy: bool

    def to_json(self) -> dict[str, Any]:
        """Return the endpoint as evidence keeps it."""
        return dict(vars(self))


@dataclass(frozen=True)
class IstioClient:
    """Istio as a check sees it, through the API server only."""

    kube: Kube
    timeouts: Timeouts

    def await_propagation(
        self, namespace: str, pods: Iterable[str], kinds: Iterable[str], applied_at: float, removed: Iterable[str] = (),
    ) -> Propagation:
        """Return when every proxy of `pods` holds all configuration that was applied before this call, `kinds`, and none that was `removed` before.

        Istio has no reliable answer to "has it arrived?", so a barrier is sent behind the configuration: a
        VirtualService whose route carries a fresh name. istiod pushes whole snapshots, and in one push routes come last
        (clusters, endpoints, listeners, routes), so a proxy that shows the name holds everything that istiod knew
        when it built that snapshot. Another kind travels through another watch and may be a moment behind the first
        barrier; a second one, sent after the first was seen, is at least one debounce window later and closes the gap.

        Finding: a policy binds connections that are made after it arrived. One that is open serves its next request by the old policy,
        and an idle one is cut off only after the proxy's drain duration (45 s unless the pod says otherwise; ours say 1 s). So where
        listeners were changed, the proxies are also asked until none of their old ones is left, and none of the new ones is warming.

        The barrier confirms that the configuration is *there*, whatever it says. Whether it says the right thing is for
        the traffic to show; that is why a mutated manifest passes here and fails there.

        Raises:
            TimedOut: a proxy did not get the barrier, or keeps connections of earlier listeners; the message names the proxy, what it
                holds, and what istiod knows of it.

        """
        kinds = tuple(dict.fromkeys(kinds))
        pods, changed = tuple(pods), {*kinds, *removed}
        by_proxy: dict[str, float] = {}
        with ThreadPoolExecutor(PROXIES_AT_ONCE) as pool:
            for sent in range(_rounds(changed)):
                marker = f"barrier-{uuid.uuid4().hex[:12]}"
                self.kube.apply(load_manifest(BARRIER, marker=marker), namespace)
                held_at = list(pool.map(partial(self._await_barrier, namespace, marker=marker, kinds=kinds), pods))
                # What only waits for something that was removed is no part of the time that the applied took.
                if sent < _rounds(kinds):
                    by_proxy = {pod: at - applied_at for pod, at in zip(pods, held_at, strict=True)}
            if not OF_LISTENERS.isdisjoint(changed):
                list(pool.map(partial(self._await_drained, namespace), pods))
        return Propagation(kinds, by_proxy)

    def await_gateway(self, namespace: str, kinds: Iterable[str], applied_at: float, status_of: Callable[[str], int]) -> Propagation:
        """Return when the ingress gateway serves all configuration that was applied before this call.

        Its admin port belongs to the cluster's owner, so the barrier is asked for with traffic that is thrown away:
        `status_of` requests `/` of a host and returns the status, and only the barrier's own host is answered 204.

        Raises:
            TimedOut: the gateway did not get the barrier.

        """
        kinds = tuple(dict.fromkeys(kinds))
        for _ in range(_rounds(kinds)):
            marker = f"barrier-{uuid.uuid4().hex[:12]}"
            self.kube.apply(load_manifest(GATEWAY_BARRIER, marker=marker, namespace=namespace), namespace)

            def served(host: str = f"{marker}.{namespace}.propagation-barrier.internal") -> None:
                status = status_of(host)
                assert status == NO_CONTENT, f"host {host} is answered {status}, expected {NO_CONTENT}"

            eventually(served, within=self.timeouts.propagation, every=0.1, consecutive=2, subject=f"configuration of {', '.join(kinds)} not at the ingress gateway")
        return Propagation(kinds, {"istio-ingressgateway": time.monotonic() - applied_at})

    def sync_state(self, namespace: str, pod: str) -> str:
        """Say in one line what istiod knows of a proxy: per kind of configuration whether the last push was acknowledged.

        It is what `istioctl proxy-status` shows, asked of istiod's own debug interface. Never raises: it is asked when
        something is already wrong, and says so when it cannot be had.
        """
        try:
            known = list(self._synchronized(f"{pod}.{namespace}"))
        except (UserError, NoAnswer, ExecFailed, ValueError, KeyError) as error:
            return f"istiod's view of it cannot be had ({error})"
        if not known:
            return "istiod knows no such proxy: it is not connected"
        return "; ".join(_said_of(one) for one in known)

    def jwks_failures(self) -> int:
        """Return how many fetches of an issuer's keys have failed since istiod's pods started (their metric of that name).

        Finding: istiod keeps the address of a `jwksUri` for a week after the last policy that named it is gone. One of them that no
        longer answers makes it refresh everybody's keys after a minute instead of its interval, then two, up to an hour.
        """
        told = [self.kube.exec(name, CONTROL_PLANE, "discovery", ["pilot-discovery", "request", "GET", "/metrics"]) for name in self.istiod()]
        return sum(int(float(count)) for text in told for count in re.findall(r"^pilot_jwks_resolver_network_fetch_fail_total (\S+)$", text, re.MULTILINE))

    def istiod(self) -> dict[str, str]:
        """Return the addresses of istiod's pods by name."""
        return {str(pod["metadata"]["name"]): str(pod.get("status", {}).get("podIP", "")) for pod in self.kube.pods(CONTROL_PLANE, "app=istiod")}

    def restart_istiod(self) -> None:
        """Put another pod in istiod's place and return when it serves, so that it has forgotten what it kept of issuers.

        Proxies go on by what they have and connect anew. Only for a cluster of our own. Raises TimedOut.
        """
        gone = self.istiod()
        for name in gone:
            self.kube.delete_one("Pod", name, CONTROL_PLANE)

        def replaced() -> None:
            left = gone.keys() & self.istiod().keys()
            assert not left, f"{', '.join(left)} is still there"

        eventually(replaced, within=self.timeouts.istio_ready, subject="istiod's old pod not gone")
        self.kube.wait_deployment(CONTROL_PLANE, "istiod", self.timeouts.istio_ready)

        def validating() -> None:
            self.kube.apply(load_manifest(BARRIER, marker="restarted"), CONTROL_PLANE, dry_run=True)

        # Its Service leads to the new pod a moment after that is ready, and nothing is applied without its webhook's word.
        eventually(validating, within=self.timeouts.webhook_serving, consecutive=3, ignoring=(ApiRefused,), subject="istiod's webhook not serving")

    def _synchronized(self, proxy: str) -> Iterator[Mapping[str, Any]]:
        for name in self.istiod():
            told = json.loads(self.kube.exec(name, CONTROL_PLANE, "discovery", ["pilot-discovery", "request", "GET", "/debug/syncz"]))
            yield from (one for one in told or () if one["proxy"] == proxy)

    def _await_barrier(self, namespace: str, pod: str, *, marker: str, kinds: Iterable[str]) -> float:
        """Return the moment at which a proxy was seen to hold the barrier."""
        what = f"configuration of {', '.join(kinds)} not at proxy {namespace}/{pod}"
        try:
            eventually(partial(self._assert_holds, namespace, pod, marker), within=self.timeouts.propagation, every=0.1, subject=what)
        except TimedOut as late:
            said = f"istiod says: {self.sync_state(namespace, pod)}"
            raise TimedOut(f"{late}; {said}", seconds=late.seconds, attempts=late.attempts, last=f"{late.last}; {said}") from late
        return time.monotonic()

    def _await_drained(self, namespace: str, pod: str) -> None:
        """Return once no connection is served by a listener's earlier configuration."""

        def drained() -> None:
            left = {name.removeprefix("listener_manager."): value for name, value in self.stats(namespace, pod, UNSETTLED).items() if value}
            assert not left, f"expected none, seen {left}"

        eventually(drained, within=self.timeouts.propagation, every=0.2, subject=f"earlier listeners of proxy {namespace}/{pod} not gone")

    def _assert_holds(self, namespace: str, pod: str, marker: str) -> None:
        held = self.routes_dump(namespace, pod)
        if marker not in held:
            seen = sorted(set(re.findall(r"barrier-[0-9a-f]{12}", held)))
            version = re.findall(r'"version_info":\s*"([^"]+)"', held)
            raise AssertionError(
                f"VirtualService/propagation-barrier has not arrived: expected route {marker}, "
                f"the proxy holds {seen or 'no barrier'} at version {version[:1] or 'unknown'}",
            )

    def routes_dump(self, namespace: str, pod: str) -> str:
        """Return a proxy's dynamic routes as JSON text; a proxy that does not answer yet counts as not yet there.

        Raises:
            AssertionError: the proxy's admin port did not answer.

        """
        return self.proxy_admin(namespace, pod, "config_dump?resource=dynamic_route_configs")

    def proxy_admin(self, namespace: str, pod: str, path: str) -> str:
        """Return the answer of a proxy's admin port, which listens on the pod's loopback only.

        Raises:
            AssertionError: the proxy's admin port did not answer.

        """
        try:
            return self.kube.exec(pod, namespace, SIDECAR, ["pilot-agent", "request", "GET", path])
        except ExecFailed as error:
            raise AssertionError(f"proxy {namespace}/{pod} does not answer GET {path}: {error}") from None

    def stats(self, namespace: str, pod: str, pattern: str) -> dict[str, int]:
        """Return the counters and gauges of a proxy whose names match the regular expression `pattern`, zeroes included.

        Istio's proxies keep few of Envoy's counters unless `proxyStatsMatcher` asks for more; the caller's keeps those of
        every upstream cluster (workloads/caller/manifests.yaml).

        Raises:
            AssertionError: the proxy's admin port did not answer.

        """
        told = json.loads(self.proxy_admin(namespace, pod, f"stats?format=json&filter={quote(pattern, safe='')}"))
        return {one["name"]: one["value"] for one in told["stats"] if isinstance(one.get("value"), int)}

    def upstream(self, namespace: str, pod: str, host: str, port: int = 80) -> dict[str, int]:
        """Return a proxy's counters and gauges of one upstream, the Service `host` of the same namespace, by their names below its cluster.

        A counter goes on when the cluster is replaced, as a changed DestinationRule does; a gauge starts anew. Finding: Istio has
        Envoy make them at a cluster's first use (deferred creation), so before the first call there are none, not zeroes.

        Raises:
            AssertionError: the proxy's admin port did not answer.

        """
        name = f"cluster.outbound|{port}||{host}.{namespace}.svc."
        told = self.stats(namespace, pod, "^" + re.escape(name))
        return {full.rpartition(".")[2] if ";" not in full else full.rpartition(";.")[2]: value for full, value in told.items()}

    def endpoints(self, namespace: str, pod: str, service: str, *, subset: str = "", port: int = 80) -> list[Endpoint]:
        """Return the endpoints that a proxy holds of a Service of its own namespace, ordered by zone and address.

        An unknown Service, and one that the proxy does not know yet, has none. `healthy` is Envoy's own view: neither
        withdrawn by the control plane nor ejected as an outlier.

        Raises:
            AssertionError: the proxy's admin port did not answer.

        """
        name = f"outbound|{port}|{subset}|{service}.{namespace}.svc."
        return sorted(map(_endpoint, self._hosts(namespace, pod, name)), key=lambda each: (each.zone, each.address))

    def external_endpoints(self, namespace: str, pod: str, host: str, port: int) -> list[Endpoint]:
        """Return the endpoints that a proxy holds of a host that a ServiceEntry names, ordered by address; an unknown one has none.

        Raises:
            AssertionError: the proxy's admin port did not answer.

        """
        return sorted(map(_endpoint, self._hosts(namespace, pod, f"outbound|{port}||{host}")), key=lambda each: each.address)

    def ejected(self, namespace: str, pod: str, host: str, port: int = 80) -> dict[str, bool]:
        """Return, for each address of the Service `host` of the same namespace, whether a proxy's outlier detection has ejected it.

        Raises:
            AssertionError: the proxy's admin port did not answer.

        """
        return {
            one["address"]["socket_address"]["address"]: bool(one["health_status"].get("failed_outlier_check"))
            for one in self._hosts(namespace, pod, f"outbound|{port}||{host}.{namespace}.svc.")
        }

    def _hosts(self, namespace: str, pod: str, name: str) -> list[Mapping[str, Any]]:
        """Return what a proxy says of each endpoint of the cluster whose name begins so."""
        told = json.loads(self.proxy_admin(namespace, pod, "clusters?format=json"))
        return [one for cluster in told.get("cluster_statuses", []) if cluster["name"].startswith(name) for one in cluster.get("host_statuses", [])]

    def certificates(self, namespace: str, pod: str) -> list[dict[str, Any]]:
        """Return the workload certificates that a proxy uses, each once: `serial` as its access log writes it, `not_before` and `not_after` in seconds since 1970.

        Raises:
            AssertionError: the proxy's admin port did not answer.

        """
        told = json.loads(self.proxy_admin(namespace, pod, "certs"))
        held = {one["serial_number"]: one for context in told["certificates"] for one in context.get("cert_chain", [])[:1]}
        return [
            {"serial": serial, "not_before": _seconds(one["valid_from"]), "not_after": _seconds(one["expiration_time"])}
            for serial, one in held.items()
        ]

    def trusted_roots(self, namespace: str, pod: str) -> set[str]:
        """Return the serials of the roots by which a proxy knows its peers; AssertionError when its admin port did not answer."""
        told = json.loads(self.proxy_admin(namespace, pod, "certs"))
        return {root["serial_number"] for context in told["certificates"] for root in context.get("ca_cert", [])}

    def access_log(self, namespace: str, pod: str, since: float | str) -> list[Mapping[str, Any]]:
        """Return the JSON access log entries of one proxy over the last `since` seconds, or since that time (RFC 3339)."""
        entries = []
        for line in self.kube.logs(pod, namespace, SIDECAR, since=since).splitlines():
            if line.startswith("{"):
                try:
                    entries.append(json.loads(line))
                except json.JSONDecodeError:
                    # A line that was cut while the log was read is complete at the next reading.
                    continue
        return [entry for entry in entries if "request_id" in entry]


def _seconds(time_of_day: str) -> float:
    """Return a time as RFC 3339 writes it in seconds since 1970."""
    return datetime.fromisoformat(time_of_day).timestamp()


def _rounds(kinds: Iterable[str]) -> int:
    """Return how many barriers show that objects of `kinds` have arrived: what travels with the barrier itself needs one."""
    return 1 if set(kinds) <= {"VirtualService"} else 2


def _said_of(known: Mapping[str, Any]) -> str:
    """Compare what istiod sent with what the proxy acknowledged, kind by kind."""
    kinds = [name.removesuffix("_sent") for name in known if name.endswith("_sent") and known[name]]
    states = [f"{kind} {'SYNCED' if known.get(f'{kind}_acked') == known[f'{kind}_sent'] else 'STALE (sent, not acknowledged)'}" for kind in kinds]
    return ", ".join(states) or "nothing was ever sent to it"
def _endpoint(host: Mapping[str, Any]) -> Endpoint:
    # Envoy leaves out what is zero or empty; what makes a host unhealthy is a flag of its own.
    at, health = host["address"]["socket_address"], host.get("health_status", {})
    ill = {flag for flag, value in health.items() if value is True}
    return Endpoint(
        address=f"{at['address']}:{at['port_value']}", zone=host.get("locality", {}).get("zone", ""), priority=int(host.get("priority", 0)),
        weight=int(host.get("weight", 1)), healthy=not ill and health.get("eds_health_status", "HEALTHY") == "HEALTHY",
    )
