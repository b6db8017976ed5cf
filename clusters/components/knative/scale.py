"""How many pods functions had and were to have at every moment: two watches, read on the clock of this machine."""

import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from types import TracebackType
from typing import Any, Protocol, Self

from clusters.components.knative.client import OF_SERVICE, POD_AUTOSCALER
from clusters.watching import Change, Watch

# Before an autoscaler has said anything.
UNSAID = -1


class Cluster(Protocol):
    """What watching needs of `clusters.kube.Kube`."""

    def watch(self, kind: str, namespace: str) -> Watch:
        """Return a watch of a kind in one namespace from this moment on."""

    def list(self, kind: str, namespace: str | None = None, selector: str | None = None) -> list[dict[str, Any]]:
        """Return every object of a kind in a namespace."""


@dataclass(frozen=True)
class Life:
    """One pod's life in milliseconds since the zero of its scale; None is what had not happened when the watch ended.

    What had happened before the watch began is given the moment of its beginning. From `ending_ms` on, its Deployment no longer wants the
    pod; it is `gone_ms` when it holds nothing more of its node.
    """

    pod: str
    created_ms: float
    ready_ms: float | None
    ending_ms: float | None
    gone_ms: float | None


@dataclass(frozen=True)
class Wanted:
    """What the PodAutoscaler said from a moment on: the pods that it wants, and those that it counts as ready."""

    at_ms: float
    desired: int
    actual: int


@dataclass(frozen=True)
class Scale:
    """A function's pods and what its autoscaler wanted, from `began_ms` to `ended_ms`."""

    function: str
    began_ms: float
    ended_ms: float
    pods: tuple[Life, ...]
    wanted: tuple[Wanted, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the scale as evidence keeps it."""
        return {**vars(self), "pods": [asdict(one) for one in self.pods], "wanted": [asdict(one) for one in self.wanted]}


@dataclass
class ScaleWatch:
    """Listens to the pods and PodAutoscalers of a namespace for as long as the block lasts; nothing between two looks is missed."""

    kube: Cluster
    namespace: str
    _began: float = 0.0
    _found: list[Mapping[str, Any]] = field(default_factory=list)
    _wanted: list[Mapping[str, Any]] = field(default_factory=list)
    _watches: list[Watch] = field(default_factory=list)
    _open: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Self:
        self._watches = [self._open.enter_context(self.kube.watch(kind, self.namespace)) for kind in ("Pod", POD_AUTOSCALER)]
        # Listed after the watches began: what changes in between is heard of twice, which does no harm.
        self._began = time.time()
        self._found = list(self.kube.list("Pod", self.namespace, OF_SERVICE))
        self._wanted = list(self.kube.list(POD_AUTOSCALER, self.namespace, OF_SERVICE))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._open.close()

    def alive(self) -> None:
        """Return if both watches still listen; raises Unreachable if one has ended."""
        for watch in self._watches:
            watch.changes()

    def scale(self, function: str, zero: float) -> Scale:
        """Return what was heard of one function until now, in milliseconds since `zero` (seconds since 1970, by this machine's clock).

        Raises:
            Unreachable: a watch ended before its time.

        """
        now = time.time()
        pods, wanted = (watch.changes() for watch in self._watches)
        return Scale(
            function, 1000 * (self._began - zero), 1000 * (now - zero),
            lives([*_as_found(self._found, self._began), *pods], function, zero), wishes([*_as_found(self._wanted, self._began), *wanted], function, zero),
        )


def lives(changes: Iterable[Change], function: str, zero: float) -> tuple[Life, ...]:
    """Return the lives of a function's pods from what was heard of them, in the order of their creation."""
    seen: dict[str, dict[str, float | None]] = {}
    names: dict[str, str] = {}
    for change in changes:
        metadata, at = change.body["metadata"], 1000 * (change.at - zero)
        uid = str(metadata["uid"])
        if (metadata.get("labels") or {}).get(OF_SERVICE) != function or (uid not in seen and change.kind == "DELETED"):
            continue
        names[uid] = change.name
        life = seen.setdefault(uid, {"created_ms": at, "ready_ms": None, "ending_ms": None, "gone_ms": None})
        _first(life, "ready_ms", at, _is_ready(change.body))
        _first(life, "ending_ms", at, "deletionTimestamp" in metadata or change.kind == "DELETED")
        _first(life, "gone_ms", at, change.kind == "DELETED")
    return tuple(Life(names[uid], **life) for uid, life in seen.items())  # type: ignore[arg-type]  # created_ms is never None


def wishes(changes: Iterable[Change], function: str, zero: float) -> tuple[Wanted, ...]:
    """Return what a function's PodAutoscaler said, one entry for every change of mind."""
    said: list[Wanted] = []
    for change in changes:
        if (change.body["metadata"].get("labels") or {}).get(OF_SERVICE) != function or change.kind == "DELETED":
            continue
        status = change.body.get("status") or {}
        now = Wanted(1000 * (change.at - zero), int(status.get("desiredScale", UNSAID)), int(status.get("actualScale", UNSAID)))
        if not said or (said[-1].desired, said[-1].actual) != (now.desired, now.actual):
            said.append(now)
    return tuple(said)


def _as_found(objects: Iterable[Mapping[str, Any]], at: float) -> list[Change]:
    return [Change(at, "ADDED", one) for one in objects]


def _first(life: dict[str, float | None], name: str, at: float, happened: bool) -> None:  # noqa: FBT001  # said of a pod, not chosen
    if happened and life[name] is None:
        life[name] = at


def _is_ready(pod: Mapping[str, Any]) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
