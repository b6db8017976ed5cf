"""Cold starts: one request to a function of zero pods, the moments on its way from whoever saw them, and what they must show.

A cold start is JSON: what was there before it (`zero`), how it was answered, and its moments in milliseconds since 1970 by the clock of
whoever saw them. Kubernetes' own time stamps are whole seconds, so none of them is used:

    asked, answered             the caller's record
    created, scheduled, ready   when a watch of pods told of it
    sandbox, image              when a watch of events told that the kubelet has an image: of the pod's first container, of the function's
    proxy                       the sidecar's log, as the node's runtime stamped it: "Envoy proxy is ready", said when the kubelet first asks
    started, listening          the function's own word, the first of them from the kernel (to 10 ms)
    reached                     the function's log of this very request, as the node's runtime stamped it
"""

import json
import re
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from types import TracebackType
from typing import Any, Self

from clusters.apiserver import ApiRefused
from clusters.components.knative.client import OF_SERVICE, KnativeClient, local_host
from clusters.kube import Kube
from clusters.waiting import CLOCK, Clock, TimedOut, eventually
from clusters.watching import Change, Watch
from suites.support import quantiles
from suites.support.judges import damaged
from suites.support.verdicts import Claim
from workloads.caller.client import Caller
from workloads.records import Draw

FUNCTION = "user-container"
PROXY = "istio-proxy"
HTTP_OK = 200
# In the order in which they happen; a pod without a sidecar has no "proxy".
MOMENTS = ("asked", "created", "scheduled", "sandbox", "proxy", "image", "started", "listening", "reached", "answered")
# What a moment ends.
PHASES: Mapping[str, str] = {
    "created": "decision", "scheduled": "scheduling", "sandbox": "sandbox", "proxy": "proxy", "image": "image", "started": "container",
    "listening": "function", "reached": "route", "answered": "answer",
}
# What a watch tells of, which is later than it was: the other moments were stamped by whoever made them.
HEARD = frozenset({"created", "scheduled", "sandbox", "image"})
# The clocks of machine, node and process against each other, and the kernel's ten milliseconds.
TOLERANCE_MS = 250.0
# The scale to zero of a pod that is idle: the stable window, the metrics' two seconds, and an autoscaler that looks every two.
ZERO_WITHIN_S = 60.0
# A function that starts as slowly as this is not served by its request, which its caller gives up.
ANSWERED_WITHIN_S = 60.0
# Logs and events are on their way for a moment; they are waited for after the answer, so that nothing is asked while it is timed.
TOLD_WITHIN_S = 10.0

Start = Mapping[str, Any]


@dataclass
class ColdStarts:
    """Draws cold starts of the functions of one namespace, one at a time; it listens to pods and events as a `with` block."""

    kube: Kube
    knative: KnativeClient
    caller: Caller
    namespace: str
    clock: Clock = CLOCK
    _pods: Watch | None = None
    _events: Watch | None = None
    _open: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Self:
        self._pods = self._open.enter_context(self.kube.watch("Pod", self.namespace))
        self._events = self._open.enter_context(self.kube.watch("v1/Event", self.namespace))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._open.close()

    def look(self, service: str) -> dict[str, Any]:
        """Return what there is of a function: `pods` that are not on their way out, `leaving` ones, pods `wanted` and `there` by its autoscaler, ready `endpoints`."""
        revision = self.knative.function(self.namespace, service).latest_created
        pods = self.kube.pods(self.namespace, f"{OF_SERVICE}={service}")
        scale = self.knative.revision(self.namespace, revision)
        slices = self.kube.list("discovery.k8s.io/v1/EndpointSlice", self.namespace, f"kubernetes.io/service-name={revision}-private")
        return {
            "pods": sorted(pod["metadata"]["name"] for pod in pods if not pod["metadata"].get("deletionTimestamp")),
            "leaving": sum(bool(pod["metadata"].get("deletionTimestamp")) for pod in pods),
            "wanted": scale.wanted, "there": scale.there,
            "endpoints": sum(bool((one.get("conditions") or {}).get("ready")) for part in slices for one in part.get("endpoints") or ()),
        }

    def await_zero(self, service: str, *, within: float = ZERO_WITHIN_S) -> dict[str, Any]:
        """Return the first look that shows nothing of a function, or the last one after a bounded wait: whether it is zero is for the judge."""
        seen: dict[str, Any] = {}

        def zero() -> None:
            nonlocal seen
            seen = self.look(service)
            assert is_zero(seen), str(seen)

        with suppress(TimedOut):
            eventually(zero, within=within, subject=f"function {service} not at zero", clock=self.clock)
        return seen

    def draw(self, service: str, *, label: str = "") -> dict[str, Any]:
        """Wait for zero, ask the function once, and return the cold start under `label` (the function's name unless given)."""
        zero = self.await_zero(service)
        heard = len(self.pod_changes())
        sent = time.time()
        # Finding: the gateway on the way gives every request a new x-request-id, so that a request is known in the function's log by its path.
        path = f"/cold-start/{uuid.uuid4()}"
        drawn = self.caller.draw(f"http://{local_host(service, self.namespace)}", path=path, timeout_s=ANSWERED_WITHIN_S)
        back = time.time()
        record = drawn.records[0]
        # The caller's clock against this one: exact on one machine, and known on several to what the order's way there and back took.
        began = datetime.fromisoformat(drawn.began).timestamp()
        found: dict[str, Any] = {
            "function": label or service, "zero": zero, "status": record.status, "error": record.error, "latency_ms": record.latency_ms,
            "clock_ahead_ms": [(began - back) * 1000, (began - sent) * 1000],
        }
        with suppress(TimedOut):
            eventually(lambda: self._gather(found, service, drawn, path, heard), within=TOLD_WITHIN_S, every=0.3, ignoring=(ApiRefused,), clock=self.clock)
        return found

    def pod_changes(self) -> list[Change]:
        """Return every change of a pod since the block began."""
        assert self._pods is not None, "a `with` block listens"
        return self._pods.changes()

    def _gather(self, found: dict[str, Any], service: str, drawn: Draw, path: str, heard: int) -> None:
        """Add to `found` what is told of a cold start by now; AssertionError while something is missing."""
        assert self._events is not None, "a `with` block listens"
        record = drawn.records[0]
        changes = [one for one in self.pod_changes()[heard:] if (one.body["metadata"].get("labels") or {}).get(OF_SERVICE) == service]
        pod = record.pod or next((one.name for one in reversed(changes) if one.kind == "ADDED"), "")
        changes = [one for one in changes if one.name == pod]
        events = [one for one in self._events.changes() if (one.body.get("involvedObject") or {}).get("name") == pod]
        spec = changes[-1].body["spec"] if changes else {}
        containers = [one["name"] for one in (*spec.get("initContainers", ()), *spec.get("containers", ()))]
        asked = datetime.fromisoformat(drawn.began).timestamp() * 1000 + record.started_ms
        found |= {
            "pod": pod, "containers": containers, "pulls": pulls(events), "events": told_events(events),
            "moments": {"asked": asked, **({"answered": asked + record.latency_ms} if record.status else {}), **pod_moments(changes), **event_moments(events)},
        }
        assert pod, f"no pod of {service} has been heard of"
        found["moments"] |= function_moments(self.kube.logs(pod, self.namespace, FUNCTION, stamped=True), path)
        if PROXY in containers:
            found["moments"] |= proxy_moments(self.kube.logs(pod, self.namespace, PROXY, stamped=True))
        missing = [name for name in expected_moments(found) if name not in found["moments"]]
        assert not missing, f"pod {pod}: nobody has told of {', '.join(missing)}"


# What the moments are read from


def pod_moments(changes: Iterable[Change]) -> dict[str, float]:
    """Return when the changes of one pod told that it exists, where it runs, that its network is there, and that it is ready."""
    moments: dict[str, float] = {}
    for change in changes:
        at = change.at * 1000
        conditions = {one["type"]: one["status"] for one in (change.body.get("status") or {}).get("conditions") or ()}
        told = {
            "created": change.kind == "ADDED", "scheduled": bool((change.body.get("spec") or {}).get("nodeName")),
            "network": conditions.get("PodReadyToStartContainers") == "True", "ready": conditions.get("Ready") == "True",
        }
        moments = {**{name: at for name, true in told.items() if true}, **moments}
    return moments


def event_moments(events: Iterable[Change]) -> dict[str, float]:
    """Return when a pod's events told that the image of its first container, and of the function's, is on the node."""
    moments: dict[str, float] = {}
    for change in events:
        if change.body.get("reason") == "Pulled":
            named = {"sandbox": True, "image": container_of(change) == FUNCTION}
            moments = {**{name: change.at * 1000 for name, true in named.items() if true}, **moments}
    return moments


def pulls(events: Iterable[Change]) -> dict[str, str]:
    """Return, for each container, what the kubelet said when it had its image."""
    return {container_of(change): str(change.body.get("message", "")) for change in events if change.body.get("reason") == "Pulled"}


def told_events(events: Iterable[Change]) -> list[list[Any]]:
    """Return each event as its moment, its container and its reason: where a phase went, for a reader."""
    return [[round(change.at * 1000, 1), container_of(change), str(change.body.get("reason", ""))] for change in events]


def container_of(event: Change) -> str:
    """Return the container that an event is about, empty where it is about the pod."""
    path = str((event.body.get("involvedObject") or {}).get("fieldPath", ""))
    named = re.fullmatch(r"spec\.\w+\{(.+)\}", path)
    return named[1] if named else ""


def function_moments(log: str, path: str) -> dict[str, float]:
    """Return what a function's log says of its start and of the request for one path; `log` bears the runtime's time stamps."""
    moments: dict[str, float] = {}
    for stamp, line in _stamped(log):
        if not line.startswith("{"):
            continue
        with suppress(ValueError):
            told = json.loads(line)
            if "listening_ms" in told:
                moments |= {"started": float(told["process_began_ms"]), "listening": float(told["listening_ms"])}
            elif told.get("path") == path:
                moments.setdefault("reached", stamp)
    return moments


def proxy_moments(log: str) -> dict[str, float]:
    """Return when a sidecar's agent said that Envoy is ready; `log` bears the runtime's time stamps."""
    return next(({"proxy": stamp} for stamp, line in _stamped(log) if "Envoy proxy is ready" in line), {})


def _stamped(log: str) -> Iterable[tuple[float, str]]:
    for line in log.splitlines():
        stamp, _, text = line.partition(" ")
        with suppress(ValueError):
            yield _milliseconds(stamp), text


def _milliseconds(stamp: str) -> float:
    """Return an RFC 3339 time of nanoseconds in milliseconds since 1970."""
    # datetime knows six digits.
    return datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", stamp)).timestamp() * 1000


# What a cold start is made of


def is_zero(seen: Mapping[str, Any]) -> bool:
    """Tell whether a look shows nothing of a function; pods that are on their way out have no endpoint any more.

    The autoscaler of a function that has never run wants -1 pods: it has not been asked yet.
    """
    return not seen["pods"] and seen["wanted"] <= 0 and seen["there"] == seen["endpoints"] == 0


def expected_moments(start: Start) -> list[str]:
    """Return the moments that a cold start must have to be taken apart: the proxy's only where there is one."""
    return [name for name in MOMENTS if name != "proxy" or PROXY in start.get("containers", ())]


def phases(start: Start) -> dict[str, float] | None:
    """Return the milliseconds of each phase in order, negative where the moments are out of order; None where one is missing.

    Finding: the kubelet hands its events to a queue, from which the watch has them a third of a second later on a busy machine, and by then
    the function's process may have begun. So what a watch tells of was no later than it was heard, nor than what came after it.
    """
    names, moments = expected_moments(start), dict(start.get("moments", {}))
    if any(name not in moments for name in names):
        return None
    for name, following in reversed(list(pairwise(names))):
        if name in HEARD:
            moments[name] = min(moments[name], moments[following])
    return {PHASES[name]: moments[name] - moments[before] for before, name in pairwise(names)}


# What cold starts must show


def zero_before(name: str, starts: Sequence[Start]) -> Claim:
    """Claim that nothing of the function was there before it was asked, and that a pod made afterwards answered."""
    there = [start for start in starts if not is_zero(start["zero"])]
    if there:
        seen = ", ".join(f"{start['function']}: {start['zero']}" for start in there[:3])
        return Claim(name, held=False, said=f"{len(there)} of {len(starts)} functions were not at zero", expected="no pods, no endpoints, scale 0", got=seen)
    # A pod that is heard of before its function is asked was not made for that.
    told = [start.get("moments", {}) for start in starts]
    early = [moments for moments in told if "created" in moments and moments["created"] < moments["asked"] - TOLERANCE_MS]
    if early:
        return Claim(name, held=False, said=f"{len(early)} of {len(starts)} pods were there before they were asked for", expected="none", got=str(len(early)))
    unseen = [moments for moments in told if "created" not in moments]
    if unseen or not starts:
        return Claim(name, held=None, said=f"{len(unseen)} of {len(starts)} pods were not seen to come")
    return Claim(name, held=True, said=f"{len(starts)} of {len(starts)} functions were at zero, and pods made afterwards answered")


def all_answered(name: str, starts: Sequence[Start], *, least: int = 1) -> Claim:
    """Claim that the one request of every cold start was answered 200; one that failed is counted, never left out."""
    failed = [start for start in starts if start["status"] != HTTP_OK]
    if failed:
        seen = ", ".join(f"{start['function']} {start['status'] or start['error']}" for start in failed[:4])
        return Claim(name, held=False, said=f"{len(failed)} of {len(starts)} cold starts failed: {seen}", expected="status 200", got=seen)
    if len(starts) < least:
        return Claim(name, held=None, said=f"{len(starts)} cold starts are too few, {least} are wanted")
    return Claim(name, held=True, said=f"{len(starts)} of {len(starts)} cold starts were answered")


def phases_add_up(name: str, starts: Sequence[Start]) -> Claim:
    """Claim that the phases follow one another and make up the time that the caller waited, within the tolerance of the clocks."""
    split = [(start, phases(start)) for start in starts]
    known = [(start, parts) for start, parts in split if parts is not None]
    worst = max((sum(max(part, 0.0) for part in parts.values()) - start["latency_ms"] for start, parts in known), default=0.0)
    wrong = [(start, parts) for start, parts in known if sum(max(part, 0.0) for part in parts.values()) - start["latency_ms"] > TOLERANCE_MS]
    if wrong:
        start, parts = wrong[0]
        seen = ", ".join(f"{phase} {value:.0f}" for phase, value in parts.items())
        return Claim(name, held=False, said=f"the phases of {len(wrong)} of {len(starts)} cold starts are out of order", expected=f"{start['latency_ms']:.0f} ms in order", got=f"{start['function']}: {seen}")
    if not known or len(known) < len(starts):
        lacking = {moment for start, parts in split if parts is None for moment in expected_moments(start) if moment not in start.get("moments", {})}
        return Claim(name, held=None, said=f"{len(starts) - len(known)} of {len(starts)} cold starts lack {', '.join(sorted(lacking)) or 'everything'}")
    return Claim(name, held=True, said=f"{len(known)} of {len(known)} are in order and add up to what the caller waited, {worst:.0f} ms off at most")


def images_present(name: str, starts: Sequence[Start]) -> Claim:
    """Claim that no cold start pulled an image: what is measured is a start, not a registry."""
    told = [(start, container, text) for start in starts for container, text in start.get("pulls", {}).items()]
    pulled = [(start, container, text) for start, container, text in told if "already present" not in text]
    if pulled:
        start, container, text = pulled[0]
        return Claim(name, held=False, said=f"{len(pulled)} of {len(told)} images were pulled", expected="already present", got=f"{start['function']}, {container}: {text}")
    if not starts or any(FUNCTION not in start.get("pulls", {}) for start in starts):
        return Claim(name, held=None, said="the kubelet has not told of every image")
    return Claim(name, held=True, said=f"{len(told)} of {len(told)} images were on the node")


def has_proxy_phase(name: str, starts: Sequence[Start], *, wanted: bool) -> Claim:
    """Claim that every pod had a sidecar that became ready before the function was started, or that none had one."""
    other = [start for start in starts if "containers" in start and (PROXY in start["containers"]) != wanted]
    if other:
        return Claim(name, held=False, said=f"{len(other)} of {len(starts)} pods had {'no' if wanted else 'a'} sidecar", expected=f"{'a' if wanted else 'no'} sidecar", got=", ".join(other[0]["containers"]))
    known = [parts for parts in map(phases, starts) if parts is not None]
    if not starts or len(known) < len(starts):
        return Claim(name, held=None, said=f"{len(starts) - len(known)} of {len(starts)} cold starts could not be taken apart")
    if not wanted:
        return Claim(name, held=True, said=f"none of {len(starts)} pods had a sidecar")
    ready = [parts["proxy"] for parts in known]
    if min(ready) <= 0:
        return Claim(name, held=False, said=f"a sidecar was ready {-min(ready):.0f} ms before the pod had a container", expected="more than 0 ms", got=f"{min(ready):.0f} ms")
    return Claim(name, held=True, said=f"a sidecar took a median of {quantiles.estimate(ready).text()} of each of {len(starts)}")


def of_functions(starts: Sequence[Start], chosen: Callable[[str], bool]) -> list[Start]:
    """Return the cold starts of some functions."""
    try:
        return [start for start in starts if chosen(start["function"])]
    except (KeyError, TypeError) as error:
        raise damaged("cold starts", "a list of cold starts", repr(error)) from error
