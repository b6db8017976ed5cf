"""What is saved when a check fails: events, pods, logs and proxy configurations of the namespaces involved."""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import yaml

from clusters.pods import describe, is_ready
from clusters.waiting import CLOCK, Clock

T = TypeVar("T")

# A report folder is read by people and uploaded by CI: beyond these bounds the rest is left out, and INDEX.txt says so.
MAX_PODS = 40
MAX_LOG_BYTES = 256 * 1024
MAX_DUMP_BYTES = 4 * 1024 * 1024
MAX_BYTES = 32 * 1024 * 1024
MAX_SECONDS = 90.0

PROXY = "istio-proxy"
# Envoy redacts its own private keys; a build that forgets to must not leak them through us.
_SECRET_KEYS = {"private_key", "password", "generic_secret", "session_ticket_keys", "token"}
_REMOVED = "[removed]"
# A key as PEM, whole or cut off, and the same in base64 (whatever begins like PEM there, but for certificates).
_PEM_KEY = re.compile(
    r"-----BEGIN ([A-Z ]*)PRIVATE KEY-----.*?(?:-----END \1PRIVATE KEY-----|\Z)|LS0tLS1CRUdJTi(?!BDRVJU)[A-Za-z0-9+/=]+", re.DOTALL
)


class Source(Protocol):
    """What of `Kube` collecting needs."""

    def pods(self, namespace: str) -> list[dict[str, Any]]:
        """Return the namespace's pods."""

    def events(self, namespace: str) -> list[dict[str, Any]]:
        """Return the namespace's events, oldest first."""

    def logs(self, pod: str, namespace: str, container: str, *, previous: bool, max_bytes: int, tail: int) -> str:
        """Return a container's log."""

    def exec(self, pod: str, namespace: str, container: str, argv: list[str], *, timeout: float) -> str:
        """Run a command in a container."""


def collect(kube: Source, namespaces: Iterable[str], into: Path, *, proxies: bool = True, clock: Clock = CLOCK) -> list[Path]:
    """Save what the cluster says about `namespaces` below `into`, one folder each, and return the files written.

    Never raises: what could not be had is a line of `INDEX.txt`. Pods that are not ready come first, so that the
    bounds (pods, bytes, seconds) cut what matters least. Secrets are not read, and private keys are removed.
    """
    folder = _Folder(into, clock, clock.monotonic() + MAX_SECONDS)
    pods_left = MAX_PODS
    for namespace in dict.fromkeys(namespaces):
        here = Path(namespace)
        folder.save(here / "events.txt", lambda: _events(kube.events(namespace)))  # noqa: B023  # called at once
        pods = folder.attempt(here / "pods.yaml", lambda: kube.pods(namespace)) or []  # noqa: B023  # called at once
        pods.sort(key=is_ready)
        folder.save(here / "pods.yaml", lambda: _pods(pods))  # noqa: B023  # called at once
        if len(pods) > pods_left:
            folder.note(f"{namespace}: {len(pods) - pods_left} of {len(pods)} pods left out, the bound is {MAX_PODS}")
        for pod in pods[:pods_left]:
            _pod(kube, namespace, pod, folder, proxies=proxies)
        pods_left -= min(pods_left, len(pods))
    return folder.close()


@dataclass
class _Folder:
    """Where evidence is written: it counts, bounds, and notes what was missed instead of failing."""

    root: Path
    clock: Clock
    deadline: float
    written: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    bytes_left: int = field(default_factory=lambda: MAX_BYTES)

    def note(self, text: str) -> None:
        self.notes.append(" ".join(text.split()))

    def attempt(self, name: Path, ask: Callable[[], T]) -> T | None:
        if self.clock.monotonic() >= self.deadline:
            self.note(f"{name}: left out, {MAX_SECONDS:g} s were used up")
            return None
        try:
            return ask()
        except Exception as error:  # noqa: BLE001  # evidence of one failure must not become another
            self.note(f"{name}: {type(error).__name__}: {error}")
            return None

    def save(self, name: Path, ask: Callable[[], str]) -> None:
        text = self.attempt(name, ask)
        if not text:
            return
        content = _PEM_KEY.sub(_REMOVED, text).encode()
        if len(content) > self.bytes_left:
            self.note(f"{name}: {len(content)} bytes left out, the bound is {MAX_BYTES} in all")
            return
        path = self.root / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        except OSError as error:
            self.note(f"{name}: {error}")
            return
        self.bytes_left -= len(content)
        self.written.append(path)

    def close(self) -> list[Path]:
        lines = [str(path.relative_to(self.root)) for path in self.written]
        lines += ["", "Not saved:", *self.notes] if self.notes else []
        index = self.root / "INDEX.txt"
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            index.write_text("\n".join(lines) + "\n", encoding="utf-8")
        except OSError:
            # The disk is full or read-only; what was written before is all there is.
            return self.written
        return [*self.written, index]


def _pod(kube: Source, namespace: str, pod: Mapping[str, Any], folder: _Folder, *, proxies: bool) -> None:
    name = pod["metadata"]["name"]
    here = Path(namespace) / name
    for container, restarts in _containers(pod):
        for previous in (False, True) if restarts else (False,):
            file = here / (f"{container}.previous.log" if previous else f"{container}.log")
            folder.save(file, lambda: _log(kube, name, namespace, container, previous=previous))  # noqa: B023  # called at once
    if proxies and any(container == PROXY for container, _ in _containers(pod)):
        folder.save(here / "proxy_config.json", lambda: _config(_ask_proxy(kube, name, namespace, "config_dump")))
        folder.save(here / "proxy_stats.txt", lambda: _ask_proxy(kube, name, namespace, "stats"))


def _containers(pod: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """Yield every container that may have a log, with its restarts."""
    status = pod.get("status") or {}
    for key in ("initContainerStatuses", "containerStatuses"):
        for found in status.get(key) or ():
            yield found["name"], int(found.get("restartCount", 0))


def _log(kube: Source, pod: str, namespace: str, container: str, *, previous: bool) -> str:
    # limitBytes cuts the end off, and the end is what matters: bound the lines first, then keep the last bytes.
    text = kube.logs(pod, namespace, container, previous=previous, max_bytes=16 * MAX_LOG_BYTES, tail=1_000)
    return text[-MAX_LOG_BYTES:]


def _ask_proxy(kube: Source, pod: str, namespace: str, question: str) -> str:
    return kube.exec(pod, namespace, PROXY, ["pilot-agent", "request", "GET", question], timeout=20.0)


def _config(dump: str) -> str:
    """Return an Envoy config dump without secrets, and within bounds: its largest sections go first."""
    parsed = without_secrets(json.loads(dump))
    sections = parsed.get("configs") if isinstance(parsed, dict) else None
    text = json.dumps(parsed, indent=1)
    while sections and len(text) > MAX_DUMP_BYTES:
        largest = max(range(len(sections)), key=lambda place: len(json.dumps(sections[place])))
        size = len(json.dumps(sections[largest]))
        if size <= len(json.dumps(_left_out(sections[largest], size))):
            break
        sections[largest] = _left_out(sections[largest], size)
        text = json.dumps(parsed, indent=1)
    return text


def _left_out(section: Mapping[str, Any], size: int) -> dict[str, Any]:
    return {"@type": section.get("@type"), "left_out_bytes": size}


def without_secrets(value: Any) -> Any:  # noqa: ANN401  # JSON
    """Return JSON with the value of every key that names a secret removed, however deep."""
    if isinstance(value, dict):
        return {key: _REMOVED if key in _SECRET_KEYS else without_secrets(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [without_secrets(inner) for inner in value]
    return value


def _pods(pods: list[dict[str, Any]]) -> str:
    for pod in pods:
        pod["metadata"].pop("managedFields", None)
    summary = describe(pods) or "every pod is ready"
    return f"# {summary}\n" + yaml.safe_dump_all(pods, sort_keys=False)


def _events(events: Iterable[Mapping[str, Any]]) -> str:
    lines = []
    for event in events:
        about = event.get("involvedObject") or {}
        when = event.get("lastTimestamp") or event.get("eventTime") or event["metadata"].get("creationTimestamp")
        count = f" (x{event['count']})" if (event.get("count") or 1) > 1 else ""
        message = " ".join(str(event.get("message", "")).split())
        lines.append(f"{when} {event.get('type')} {about.get('kind')}/{about.get('name')} {event.get('reason')}: {message}{count}")
    return "\n".join(lines) + "\n" if lines else "no events\n"
