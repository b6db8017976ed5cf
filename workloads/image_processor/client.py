"""What a function behind the classic watchdog leaves behind: a line for each process it started, and what each of them said."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from workloads.records import CallRecord, Draw

# How the watchdog's own lines begin: the date and time of Go's log.
_LINE = re.compile(r"^\d{4}/\d\d/\d\d \d\d:\d\d:\d\d (?P<said>.*)$")
_FORKED = "Forking fprocess."
# What the watchdog tells a process of its request, beginning with this; the rest is the header's name, dashes as underscores.
_TOLD = "Http_"
# The name of its pod, which Kubernetes gives every container.
_POD = "HOSTNAME="
# What every process is told once, before what it is told of its request.
_OWN = "fprocess="
# Metrics of the watchdog, by what was answered and how it was asked.
_REQUESTS = re.compile(r'^http_requests_total\{code="(?P<code>\d+)",method="(?P<method>\w+)"\} (?P<count>\S+)$', re.MULTILINE)


class Cluster(Protocol):
    """What asking needs of `clusters.kube.Kube`."""

    def logs(self, pod: str, namespace: str, container: str | None = None, *, since: float | str | None = None) -> str:
        """Return a container's log."""


def log_of(kube: Cluster, namespace: str, function: str, pods: Sequence[str]) -> str:
    """Return what the pods of a function wrote since they began; the container bears the function's name."""
    return "".join(kube.logs(pod, namespace, function) for pod in pods)


def forks(log: str) -> int:
    """Return how many processes a watchdog has started."""
    return sum((line := _LINE.match(one)) is not None and line["said"] == _FORKED for one in log.splitlines())


def runs(log: str) -> list[dict[str, str]]:
    """Return what each process was told of its request, by the header's name in lower case, in the order in which they ended.

    Of a function whose process is `env` and whose watchdog writes down what that prints (`write_debug`).
    """
    found: list[dict[str, str]] = []
    told: dict[str, str] = {}
    for one in (*log.splitlines(), _OWN):
        # Two processes that end at one moment are written one after the other, with no line of the watchdog's between them.
        if one.startswith(_OWN):
            if told:
                found.append(told)
            told = {}
        elif one.startswith(_TOLD):
            name, _, value = one.removeprefix(_TOLD).partition("=")
            told[name.lower().replace("_", "-")] = value
    return found


def printed(log: str) -> list[str]:
    """Return the lines that the processes printed, where their watchdog writes them down (`write_debug`), without its own."""
    return [line for line in log.splitlines() if line and not _LINE.match(line)]


def as_told(draw: Draw, function: str) -> Draw:
    """Return the draw of a function whose process is `env` in the form of a greeter's: who answered, and which headers of the request it saw.

    What did not come from such a process has neither. The bodies, which say the same and more, are left out.
    """
    def read(record: CallRecord) -> CallRecord:
        text = record.content().decode("utf-8", "replace")
        told = runs(text)
        seen = {name: [value] for name, value in told[0].items()} if len(told) == 1 else {}
        pod = next((line.removeprefix(_POD) for line in text.splitlines() if line.startswith(_POD)), "")
        return replace(record, seen=seen, version=function if seen else "", pod=pod if seen else "", body="")

    return replace(draw, records=tuple(map(read, draw.records)))


def requests_of(metrics: str) -> dict[str, int]:
    """Return a watchdog's count of the requests that it answered, by status and method (`200 post`)."""
    return {f"{one['code']} {one['method']}": int(float(one["count"])) for one in _REQUESTS.finditer(metrics)}


def without(counted: Mapping[str, int], before: Mapping[str, int]) -> dict[str, Any]:
    """Return what was counted since an earlier look; what is as it was is left out."""
    return {name: count - before.get(name, 0) for name, count in counted.items() if count != before.get(name, 0)}
