"""What a pod's status says: what it waits for, and whether it can still come up."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from clusters.waiting import CLOCK, Clock

Pod = Mapping[str, Any]

# The kubelet would retry these for ever; none of them has ever healed without somebody's change.
HOPELESS_WAITS = {
    "ErrImagePull": "python -m clusters images verify",
    "ImagePullBackOff": "python -m clusters images verify",
    "ErrImageNeverPull": "python -m clusters images verify",
    "InvalidImageName": "correct the image's name in the manifest",
    "CreateContainerConfigError": "create the ConfigMap or Secret that the container refers to",
    "CreateContainerError": "correct the container's command, mounts or security context",
}
# The first crashes may be the race for a dependency that starts at the same time.
CRASHES_TOLERATED = 3
# Longer than a scheduler needs to notice that a deleted pod has given back what it held.
UNSCHEDULABLE_SECONDS = 30.0


@dataclass
class Prognosis:
    """Decide whether pods can still come up. One per wait: it remembers since when a pod was seen unschedulable.

    The time is counted on this side, so that a cluster whose clock is off is judged the same.
    """

    clock: Clock = CLOCK
    _unschedulable_since: dict[str, float] = field(default_factory=dict)

    def hopeless(self, pods: Iterable[Pod]) -> str | None:
        """Say why the first pod that cannot come up cannot (pod, container, image, the kubelet's message, a hint), or None."""
        return next((why for pod in pods for why in (self._stuck(pod) or self._unschedulable(pod),) if why), None)

    @staticmethod
    def _stuck(pod: Pod) -> str | None:
        for status in _statuses(pod):
            waiting = (status.get("state") or {}).get("waiting") or {}
            reason = waiting.get("reason", "")
            who = f"pod {_name(pod)}, container {status.get('name')}, image {_image(pod, status)}"
            if reason in HOPELESS_WAITS:
                return f"{who}: {reason}: {waiting.get('message') or 'no message'}; hint: {HOPELESS_WAITS[reason]}"
            restarts = int(status.get("restartCount", 0))
            if reason == "CrashLoopBackOff" and restarts >= CRASHES_TOLERATED:
                return f"{who}: CrashLoopBackOff after {restarts} restarts, {_last_end(status)}; hint: read its previous log"
        return None

    def _unschedulable(self, pod: Pod) -> str | None:
        metadata = pod["metadata"]
        key = str(metadata.get("uid") or _name(pod))
        message = next((str(c.get("message", "")) for c in _conditions(pod) if _is_unschedulable(c)), None)
        if message is None:
            self._unschedulable_since.pop(key, None)
            return None
        now = self.clock.monotonic()
        waited = now - self._unschedulable_since.setdefault(key, now)
        if waited <= UNSCHEDULABLE_SECONDS:
            return None
        return f"pod {_name(pod)}: Unschedulable for {waited:.0f} s: {message}; hint: free resources or add a node"


def describe(pods: Iterable[Pod]) -> str:
    """Say in one line what pods that are not ready wait for; empty when all of them are ready."""
    return "; ".join(filter(None, (_waits_for(pod) for pod in pods)))


def is_ready(pod: Pod) -> bool:
    """Tell whether a pod is Ready and not on its way out."""
    ready = any(c.get("type") == "Ready" and c.get("status") == "True" for c in _conditions(pod))
    return ready and "deletionTimestamp" not in pod["metadata"]


def state_of(pod: Pod) -> dict[str, Any]:
    """Return what of a pod must not change while it is observed: its name, how often its containers restarted, since when it is ready.

    `ready_since` is the kubelet's time stamp (RFC 3339, whole seconds), empty while the pod is not ready or on its way out; `leaving` is there for one
    that is on its way out.
    """
    ready = next((c for c in _conditions(pod) if c.get("type") == "Ready"), {})
    return {
        "pod": _name(pod),
        "restarts": sum(int(status.get("restartCount", 0)) for status in _statuses(pod)),
        "ready_since": str(ready.get("lastTransitionTime", "")) if is_ready(pod) else "",
        **({"leaving": True} if pod["metadata"].get("deletionTimestamp") else {}),
    }


def _waits_for(pod: Pod) -> str:
    if is_ready(pod):
        return ""
    if "deletionTimestamp" in pod["metadata"]:
        return f"pod {_name(pod)} is terminating"
    reasons = []
    for status in _statuses(pod):
        state = status.get("state") or {}
        if "waiting" in state:
            message = state["waiting"].get("message")
            reasons.append(f"{status.get('name')} {state['waiting'].get('reason')}" + (f" ({message})" if message else ""))
        elif "running" in state and not status.get("ready"):
            reasons.append(f"{status.get('name')} runs but is not ready")
        elif "terminated" in state and state["terminated"].get("exitCode", 0) != 0:
            reasons.append(f"{status.get('name')} exited {state['terminated'].get('exitCode')}")
    reasons += [f"unschedulable: {c.get('message', '')}" for c in _conditions(pod) if _is_unschedulable(c)]
    return f"pod {_name(pod)}: {', '.join(reasons) or (pod.get('status') or {}).get('phase', 'no status yet')}"


def _statuses(pod: Pod) -> Iterator[Mapping[str, Any]]:
    status = pod.get("status") or {}
    yield from status.get("initContainerStatuses") or ()
    yield from status.get("containerStatuses") or ()


def _conditions(pod: Pod) -> Iterable[Mapping[str, Any]]:
    return (pod.get("status") or {}).get("conditions") or ()


def _is_unschedulable(condition: Mapping[str, Any]) -> bool:
    return condition.get("type") == "PodScheduled" and condition.get("status") == "False" and condition.get("reason") == "Unschedulable"


def _name(pod: Pod) -> str:
    return str(pod["metadata"]["name"])


def _image(pod: Pod, status: Mapping[str, Any]) -> str:
    # The status of a container that never started may carry an empty image; the spec always has it.
    spec = pod.get("spec") or {}
    for container in (*(spec.get("initContainers") or ()), *(spec.get("containers") or ())):
        if container.get("name") == status.get("name"):
            return str(container.get("image"))
    return str(status.get("image") or "unknown")


def _last_end(status: Mapping[str, Any]) -> str:
    ended = (status.get("lastState") or {}).get("terminated") or {}
    if not ended:
        return "how it ended is not recorded"
    said = f": {ended['message']}" if ended.get("message") else ""
    return f"last exit code {ended.get('exitCode')} ({ended.get('reason', 'no reason')}){said}"
