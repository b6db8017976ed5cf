"""Workload certificates: renewed in time without a request that fails, and worth nothing once they have ended."""

import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import Any

import pytest

from clusters.components.istio.client import IstioClient
from clusters.waiting import TimedOut, eventually
from suites.support import judges
from suites.support.manifests import Manifests
from suites.support.requirements import requirement
from suites.support.verdicting import Decide
from suites.support.verdicts import Claim, Evidence, Verdict
from workloads.caller.client import LOGGED_WITHIN_S, Caller
from workloads.credentials import Holder, await_end
from workloads.fixtures import World
from workloads.records import Draw, join_key

# Long enough for two renewals of the holder's certificate: each takes two fifths of twelve seconds, a hundredth of jitter, and the time to be signed.
SECONDS = 11
RATE_PER_S = 10
RENEWALS = 2
CALLS = 5
HTTP_OK = 200
DEFAULT_TTL_S = 24 * 3600
# How far Istio's CA dates a certificate back, for peers whose clocks are late (Istio, security/pkg/pki/util, ClockSkewGracePeriod).
# Finding: it is two minutes, so a callee five minutes late takes no certificate in its first three.
BACKDATED_S = 120
# Istio, pilot-agent option SECRET_GRACE_PERIOD_RATIO_JITTER.
JITTER = 0.01
# Certificates say whole seconds.
WHOLE_SECOND = 1


def judge_rotation(evidence: Evidence) -> Verdict:
    """Nothing fails; new connections bear new certificates and kept ones what they were made with; renewal is on schedule; a control keeps its own."""
    draws, served, looks, asked = (evidence[name] for name in ("draws", "served", "looks", "asked"))
    return Verdict.of(
        judges.no_failures("no-request-fails", judges.joined(draws)),
        _renewed("new-connections-bear-new-certificates", draws["holder-fresh"], served, looks["holder"]),
        _one_serial("kept-connections-bear-what-they-were-made-with", draws["holder-kept"], served),
        _on_schedule("caller-renews-on-schedule", looks["holder"], asked),
        _on_schedule("callee-renews-on-schedule", looks["function"], asked),
        _lifetime("lifetime-as-asked", looks["holder"], asked["ttl_s"]),
        _one_serial("control-keeps-its-certificate", judges.joined({name: draws[name] for name in ("caller-fresh", "caller-kept")}), served),
        _lifetime("control-lifetime-is-a-day", looks["caller"], DEFAULT_TTL_S),
    )


def judge_expiry(evidence: Evidence) -> Verdict:
    """One credential is taken before its end and refused after it, with the alert that says so, while a later one of the same workload is taken."""
    end = evidence["ending"]["not_after"]
    early, late = _times(evidence["before"]), _times(evidence["after"])
    after = [judges.refused("refused-after-its-end", evidence["after"], control=evidence["fresh"], closed=("tls: expired certificate",))]
    before = [judges.peer_identity("accepted-before-its-end", evidence["before"], evidence["spiffe"], least=CALLS)]
    return Verdict.of(
        *(before if early and max(early) < end else [Claim("accepted-before-its-end", None, "the credential was not presented before its end")]),
        *(after if late and min(late) > end else [Claim("refused-after-its-end", None, "the credential was not presented after its end")]),
        judges.peer_identity("fresh-one-accepted-then", evidence["fresh"], evidence["spiffe"], least=CALLS),
        _outlived("kept-connection-outlives-it", evidence["kept"], end),
    )


def _served(name: str, draw: judges.Draw, served: Mapping[str, Any]) -> tuple[list[tuple[str, float]], Claim | None]:
    """Return serial and time of each request of a draw as the callee's proxy logged it, in that order, and the claim that is left when some are missing."""
    records, incomplete = judges.records_of(name, draw)
    entries = [served.get(join_key(str(record["request_id"]))) for record in records]
    found = sorted(((str(serial), float(at)) for serial, at in filter(None, entries)), key=lambda one: one[1])
    missing = len(records) - len(found)
    return found, incomplete or (Claim(name, None, f"{missing} of {len(records)} requests are not in the callee's log") if missing else None)


def _one_serial(name: str, draw: judges.Draw, served: Mapping[str, Any]) -> Claim:
    """Claim that the callee saw one and the same certificate on every request of a draw."""
    found, incomplete = _served(name, draw, served)
    serials = {serial for serial, _ in found}
    if found and (len(serials) > 1 or "" in serials):
        return Claim(name, held=False, said=f"{len(found)} requests came with {_shown(serials)}", expected="one certificate", got=_shown(serials))
    return incomplete or Claim(name, held=True, said=f"{len(found)} requests came with one certificate")


def _renewed(name: str, draw: judges.Draw, served: Mapping[str, Any], looks: Sequence[Mapping[str, Any]]) -> Claim:
    """Claim that requests came with each certificate in its turn, at least RENEWALS times another, and never with one outside its time."""
    found, incomplete = _served(name, draw, served)
    known = {look["serial"]: look for look in looks}
    serials = list(dict.fromkeys(serial for serial, _ in found))
    outside = [serial for serial, at in found if serial in known and not known[serial]["not_before"] <= at < known[serial]["not_after"] + WHOLE_SECOND]
    if outside or (found and "" in serials):
        return Claim(name, held=False, said=f"{len(outside)} requests came with a certificate outside its time, {sum(not serial for serial, _ in found)} without any", expected="a certificate in its time", got=_shown(set(outside) or {""}))
    if incomplete or not looks:
        return incomplete or Claim(name, None, "nobody looked at the certificates")
    if len(serials) <= RENEWALS:
        return Claim(name, held=False, said=f"{len(found)} requests came with {_shown(serials)}", expected=f"at least {RENEWALS + 1} certificates", got=str(len(serials)))
    if unknown := [serial for serial in serials if serial not in known]:
        return Claim(name, None, f"of {len(serials)} certificates that came, {len(unknown)} were not seen at the caller's proxy")
    return Claim(name, held=True, said=f"{len(found)} requests came with {len(serials)} certificates, each in its time")


def _on_schedule(name: str, looks: Sequence[Mapping[str, Any]], asked: Mapping[str, float]) -> Claim:
    """Claim that each certificate was followed by another, no sooner than the grace ratio says and before its own end, at least RENEWALS times.

    When one was issued follows from its own end, whichever way it is dated back.
    """
    ttl_s, ratio = asked["ttl_s"], asked["grace_ratio"]
    issued = [look["not_after"] - ttl_s for look in looks]
    apart = [later - earlier for earlier, later in pairwise(issued)]
    least = (1 - ratio - JITTER) * ttl_s - WHOLE_SECOND
    expected = f"from {least:.1f} to {ttl_s} s between two"
    wrong = [gap for gap in apart if not least <= gap < ttl_s]
    if wrong:
        return Claim(name, held=False, said=f"{len(wrong)} of {len(apart)} renewals were early or late: {_gaps(wrong)}", expected=expected, got=_gaps(wrong))
    if len(apart) < RENEWALS:
        watched = looks[-1]["last_seen"] - looks[0]["first_seen"] if looks else 0.0
        said = f"{len(apart)} renewals in {watched:.0f} s, {RENEWALS} were to be seen"
        # Watched for that long, a certificate that is still there has not been renewed in time.
        return Claim(name, held=False, said=said, expected=expected, got="none") if watched >= SECONDS else Claim(name, None, said)
    return Claim(name, held=True, said=f"{len(apart)} renewals, {_gaps(apart)} apart")


def _lifetime(name: str, looks: Sequence[Mapping[str, Any]], ttl_s: float) -> Claim:
    """Claim that each certificate lasts exactly as long as was asked for, counted from its issue, and begins BACKDATED_S before that."""
    seen = sorted({look["not_after"] - look["not_before"] for look in looks})
    if not seen:
        return Claim(name, None, "nobody looked at the certificates")
    expected = f"{ttl_s} s and {BACKDATED_S} s back"
    if seen != [ttl_s + BACKDATED_S]:
        return Claim(name, held=False, said=f"certificates span {_gaps(seen)}", expected=expected, got=_gaps(seen))
    late = [look for look in looks if look["first_seen"] - look["not_before"] < BACKDATED_S - WHOLE_SECOND]
    if late:
        return Claim(name, held=False, said=f"{len(late)} of {len(looks)} certificates were seen sooner than {BACKDATED_S} s after their beginning", expected=expected, got="not dated back")
    return Claim(name, held=True, said=f"{len(looks)} certificates span {ttl_s} s and the {BACKDATED_S} s by which they are dated back")


def _outlived(name: str, draw: judges.Draw, end: float) -> Claim:
    """Claim that one connection, made before the certificate's end, was served after it: a certificate is looked at when a connection is made."""
    records, incomplete = judges.records_of(name, draw)
    times = _times(draw)
    failed = [record for record in records if record["status"] != HTTP_OK]
    connections = {record["connection"] for record in records}
    if failed:
        return Claim(name, held=False, said=f"{len(failed)} of {len(records)} calls failed: {judges.shapes(failed)}", expected="calls on a connection go on", got=judges.shapes(failed))
    if incomplete or len(connections) != 1 or not min(times) < end < max(times):
        return incomplete or Claim(name, None, f"{len(connections)} connections, the first call {end - min(times):.1f} s before and the last {max(times) - end:.1f} s after its end")
    return Claim(name, held=True, said=f"{sum(at > end for at in times)} of {len(records)} calls on one connection came after the end of its certificate")


def _times(draw: judges.Draw) -> list[float]:
    """Return when each call began, in seconds since 1970 by its caller's clock."""
    began = datetime.fromisoformat(draw["began"]).timestamp() if draw.get("began") else 0.0
    return [began + record["started_ms"] / 1000 for record in draw.get("records", [])]


def _shown(serials: Iterable[str]) -> str:
    said = [serial[:8] or "no certificate" for serial in serials]
    return f"{len(said)}: {', '.join(said)}"


def _gaps(gaps: Iterable[float]) -> str:
    return ", ".join(f"{gap:.0f} s" for gap in gaps)


# Two renewals have to be waited for, and the proxies of two namespaces.
@pytest.mark.usefixtures("our_log")
@requirement("security.certificates-rotation", level="MUST", judge=judge_rotation)
def test_certificates_are_renewed_under_traffic(
    renewing_function: str, caller: Caller, holder: Holder, istio: IstioClient, world: World, manifests: Manifests, decide: Decide,
) -> None:
    """Callers and callees renew their certificates on schedule, new connections bear the new ones, and no request fails meanwhile."""
    manifests.apply("certificates.yaml")
    istio.await_propagation(holder.caller.namespace, [holder.caller.pod], ["Service"], time.monotonic())

    certificates = Certificates(istio, {
        "holder": (holder.caller.namespace, holder.caller.pod), "caller": (caller.namespace, caller.pod), "function": (world.namespace, renewing_function),
    })
    # Before the first call: what is renewed a moment later would otherwise never have been seen.
    certificates.look()
    with ThreadPoolExecutor() as pool:
        steady = {
            f"{who}-{how}": pool.submit(client.draw, f"http://by-{how}-connections.{world.namespace}/", count=SECONDS * RATE_PER_S, rate_per_s=RATE_PER_S, keep_headers=[], keep_seen=[])
            for who, client in {"holder": holder.caller, "caller": caller}.items() for how in ("fresh", "kept")
        }
        certificates.watch(list(steady.values()))
    draws = {name: drawn.result() for name, drawn in steady.items()}

    decide(
        asked={"ttl_s": holder.ttl_s, "grace_ratio": holder.grace_ratio}, looks=certificates.by_age(), draws={name: draw.to_json() for name, draw in draws.items()},
        served=_logged(istio, world.namespace, renewing_function, list(draws.values())),
    )


# A credential has to end, which takes up to twelve seconds.
@requirement("security.certificates-expiry", level="MUST", judge=judge_expiry)
def test_a_certificate_is_refused_after_its_end(
    renewing_function: str, intruder: Caller, holder: Holder, world: World, manifests: Manifests, decide: Decide,
) -> None:
    """A certificate of the mesh's own CA is accepted before its end and refused after it, while a later one of the same workload is accepted."""
    del renewing_function  # behind the address, and slow to start
    # Not one of the manifest's Services: a caller beside the mesh depends on kube-proxy, which hears of a new one a moment late.
    url = f"https://renewing-function.{world.namespace}:80/"
    manifests.apply("certificates.yaml")

    ending = holder.credential()
    with ThreadPoolExecutor() as pool:
        # The same certificate on one connection, from before its end to after it.
        kept = pool.submit(intruder.draw, url, count=_calls_until(ending.not_after + 2), rate_per_s=1, tls=ending.tls(), keep_headers=[])
        before = intruder.draw(url, count=CALLS, fresh_connections=True, tls=ending.tls(), keep_headers=[])
        await_end(ending)
        after = intruder.draw(url, count=CALLS, fresh_connections=True, tls=ending.tls(), keep_headers=[])
        later = holder.credential()
        fresh = intruder.draw(url, count=CALLS, fresh_connections=True, tls=later.tls(), keep_headers=[])

    decide(
        spiffe=f"spiffe://cluster.local/ns/{holder.caller.namespace}/sa/holder", ending=ending.to_json(), later=later.to_json(),
        before=before, after=after, fresh=fresh, kept=kept.result(),
    )


def _calls_until(end: float) -> int:
    """Return how many calls, one a second, reach from now to `end` (seconds since 1970)."""
    return max(1, round(end - time.time()) + 1)


@dataclass(frozen=True)
class Certificates:
    """What some proxies serve, by name (namespace and pod): each certificate's serial and time, and when it was seen first and last."""

    istio: IstioClient
    proxies: Mapping[str, tuple[str, str]]
    seen: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)

    def look(self) -> None:
        """Ask every proxy once."""
        for name, proxy in self.proxies.items():
            for one in self.istio.certificates(*proxy):
                now = time.time()
                self.seen.setdefault(name, {}).setdefault(one["serial"], {**one, "first_seen": now})["last_seen"] = now

    def watch(self, traffic: Sequence[Future[Draw]]) -> None:
        """Ask while the traffic lasts, often enough to see each certificate, and once more after it; TimedOut when it does not end."""

        def ended() -> None:
            self.look()
            under_way = sum(not drawn.done() for drawn in traffic)
            assert not under_way, f"{under_way} draws are under way"

        eventually(ended, within=SECONDS + LOGGED_WITHIN_S, every=0.5, subject="the traffic has not ended")
        # What the last call came with may be newer than the last look.
        self.look()

    def by_age(self) -> dict[str, list[dict[str, Any]]]:
        """Return what was seen of each proxy, the certificate that ends first before the others."""
        return {name: sorted(self.seen.get(name, {}).values(), key=lambda one: float(one["not_after"])) for name in self.proxies}


def _logged(istio: IstioClient, namespace: str, pod: str, draws: Sequence[Draw]) -> dict[str, tuple[str, float]]:
    """Return, for each request of the draws, its caller's serial and its time (seconds since 1970) as the callee's proxy logged them, by join key."""
    wanted = {join_key(record.request_id) for draw in draws for record in draw.records}
    found: dict[str, tuple[str, float]] = {}

    def written() -> None:
        for entry in istio.access_log(namespace, pod, min(draw.began for draw in draws)):
            if (key := join_key(str(entry["request_id"]))) in wanted:
                found[key] = (str(entry.get("downstream_peer_serial") or "").strip("-"), datetime.fromisoformat(str(entry["start_time"])).timestamp())
        assert len(found) == len(wanted), f"{len(wanted) - len(found)} of {len(wanted)} requests are not in the log"

    with suppress(TimedOut):
        eventually(written, within=LOGGED_WITHIN_S, every=0.5)
    return found
