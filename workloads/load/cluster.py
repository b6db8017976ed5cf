"""Load from inside the cluster: Locust's own master and workers in pods, for what one process on the host cannot make."""

import copy
import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from clusters import progress
from clusters.kube import ProxyResponse
from clusters.manifests import load_manifest
from clusters.waiting import GiveUp, eventually
from workloads.load import ANYBODY, OpenProfile, Persona, results
from workloads.load.generator import LAST_CALLS_S, STARTS_WITHIN_S, LoadBroken, options_of, order_of
from workloads.load.results import Generator
from workloads.records import Draw

MASTER, WORKER = "locust-master", "locust-worker"
CONTROL_PORT, LOCUST_PORT = 9000, 5557
MANIFESTS = Path(__file__).parent / "manifests.yaml"
HTTP_OK = 200
# Raw samples of more than this are no longer something to bring home from a pod: some five hundred thousand calls.
MOST_BYTES = 128 << 20
LOOK_EVERY_S = 0.5
# Locust of a pod runs in the folder that its agent gives it.
THERE = Path()


class Cluster(Protocol):
    """What this needs of `clusters.kube.Kube`."""

    def request(self, pod: str, namespace: str, port: int, method: str, path: str, body: bytes | None = None) -> ProxyResponse:
        """Return the pod's answer, whatever its status."""


def locust(*, workers: int, inject: bool = True) -> dict[str, list[dict[str, Any]]]:
    """Return the objects of a master and its workers by the names of their Deployments, as `World.deploy` takes them.

    With `inject`, workers carry sidecars and call as the mesh's own; without, they call from beside it. Raises ValueError for no worker.
    """
    if workers < 1:
        raise ValueError("a load needs a worker")
    account, service, deployment = (document.body for document in load_manifest(MANIFESTS))

    def named(name: str, replicas: int) -> dict[str, Any]:
        one = copy.deepcopy(deployment)
        one["metadata"]["name"] = name
        one["spec"] |= {"replicas": replicas, "selector": {"matchLabels": {"app": name}}}
        labels = one["spec"]["template"]["metadata"]["labels"]
        labels["app"] = name
        # The master calls nobody.
        if not inject or name == MASTER:
            labels["sidecar.istio.io/inject"] = "false"
        return one

    return {MASTER: [account, service, named(MASTER, 1)], WORKER: [account, named(WORKER, workers)]}


@dataclass(frozen=True)
class Finished:
    """A load that has been made; `folder` keeps each pod's files, in a folder of the pod's name."""

    url: str
    profile: OpenProfile
    calls: Sequence[Mapping[str, Any]]
    generator: Generator
    began: float
    ended: float
    folder: Path

    def draw(self) -> Draw:
        """Return every call that counts, in the order in which they were to begin, their times since the load began."""
        return results.drawn(self.url, self.profile, self.calls, self.generator, zero=self.began, ended=self.ended)


@dataclass(frozen=True)
class ClusterLoad:
    """A master and its workers that are ready to be told; `locust_port` is where the workers find their master."""

    kube: Cluster
    namespace: str
    master: str
    workers: Sequence[str]
    master_host: str = MASTER
    locust_port: int = LOCUST_PORT

    def put(
        self, url: str, path: str, profile: OpenProfile, *, folder: Path, host: str = "", personas: Sequence[Persona] = (ANYBODY,), keep_seen: Sequence[str] = (),
    ) -> Finished:
        """Put the load on `path` of `url`, naming `host` (by default the url's own), and return when it is over and at home.

        The workers share the arrivals and the users evenly. Raises LoadBroken when a Locust ended with an error, or recorded otherwise than
        the master counted, and TimedOut when it does not end.
        """
        order = order_of(url, host or url.partition("://")[2], path, folder=THERE, personas=personas, profile=profile, keep_seen=keep_seen, workers=len(self.workers))
        shared = ["--master-host", self.master_host, "--master-port", str(self.locust_port)]
        with ExitStack() as ending:
            for pod in (self.master, *self.workers):
                ending.callback(self._ask, pod, "POST", "/end")
            self._run(self.master, [
                "--master", "--master-bind-port", str(self.locust_port), "--expect-workers", str(len(self.workers)),
                "--expect-workers-max-wait", str(round(STARTS_WITHIN_S)), *options_of(profile, THERE),
            ], order)
            for pod in self.workers:
                self._run(pod, ["--worker", *shared], order)
            self._await_over(f"load on {url}{path} by {len(self.workers)} workers", profile.longest_s + LAST_CALLS_S + STARTS_WITHIN_S)
        return self._home(f"{url}{path}", profile, folder)

    def _run(self, pod: str, arguments: Sequence[str], order: Mapping[str, Any]) -> None:
        answer = self._ask(pod, "POST", "/run", json.dumps({"arguments": [*arguments], "order": order}).encode())
        if answer.status != HTTP_OK:
            raise LoadBroken(f"pod {self.namespace}/{pod} answered {answer.status} when it was to start: another load is under way there")

    def _await_over(self, title: str, within: float) -> None:
        with progress.step(title) as step:

            def over() -> None:
                states = {pod: json.loads(self._ask(pod, "GET", "/state").body) for pod in (self.master, *self.workers)}
                calls, failed = (sum(states[pod][what] for pod in self.workers) for what in ("calls", "failed"))
                # Where every look is a line of its own, only the first and the last are worth one.
                if progress.live():
                    step.update(f"{calls} calls, {failed} failed")
                if broken := {pod: state["code"] for pod, state in states.items() if state["code"]}:
                    raise GiveUp(f"Locust of {', '.join(f'{pod} ended with exit code {code}' for pod, code in broken.items())}: {self._said(next(iter(broken)))}")
                assert not any(state["running"] for state in states.values()), f"{calls} calls ended"

            eventually(over, within=within, every=LOOK_EVERY_S, subject=f"{title} not over")

    def _home(self, url: str, profile: OpenProfile, folder: Path) -> Finished:
        """Bring everything home, and hold it against the master's own count."""
        calls: list[dict[str, Any]] = []
        looks: dict[str, list[dict[str, Any]]] = {}
        for pod in self.workers:
            calls += self._lines(pod, "calls.jsonl", folder)
            looks[pod] = self._lines(pod, "generator.jsonl", folder)
        for name in ("locust.log", "locust.html", "summary.json", "begun"):
            self._fetch(self.master, name, folder)
        counted = sum(int(one["num_requests"]) for one in json.loads(self._fetch(self.master, "summary.json", folder)))
        if counted != len(calls):
            raise LoadBroken(f"load on {url}: the master counted {counted} calls, its workers recorded {len(calls)}; what they wrote is in {folder}")
        began = float(self._fetch(self.master, "begun", folder))
        ended = max((float(look["at"]) for seen in looks.values() for look in seen), default=began)
        # A load is as good as its busiest worker.
        busiest = max(looks.values(), key=lambda seen: sum(float(look["cpu"]) for look in seen) / max(len(seen), 1))
        fared = results.generator(profile, calls, busiest, began=began, ended=max(ended, began + profile.longest_s))
        (folder / "result.json").write_text(json.dumps({"url": url, "profile": profile.to_json(), "calls": len(calls), "generator": fared.to_json()}, indent=1))
        return Finished(url, profile, calls, fared, began, ended, folder)

    def _lines(self, pod: str, name: str, folder: Path) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._fetch(pod, name, folder).splitlines()]

    def _fetch(self, pod: str, name: str, folder: Path) -> bytes:
        """Return a file of a pod, and keep it; in pieces, so that no answer is larger than the API server passes on."""
        content = b""
        while True:
            answer = self._ask(pod, "GET", f"/file/{name}?offset={len(content)}")
            if answer.status != HTTP_OK:
                raise LoadBroken(f"pod {self.namespace}/{pod} has no {name}: {self._said(pod)}")
            if not answer.body:
                break
            content += answer.body
            if len(content) > MOST_BYTES:
                raise LoadBroken(f"{name} of pod {self.namespace}/{pod} is longer than {MOST_BYTES} bytes; ask for fewer calls")
        (folder / pod).mkdir(parents=True, exist_ok=True)
        (folder / pod / name).write_bytes(content)
        return content

    def _said(self, pod: str) -> str:
        answer = self._ask(pod, "GET", "/file/locust.log")
        return answer.body.decode("utf-8", "replace")[-600:] if answer.status == HTTP_OK else "it wrote nothing"

    def _ask(self, pod: str, method: str, path: str, body: bytes | None = None) -> ProxyResponse:
        return self.kube.request(pod, self.namespace, CONTROL_PORT, method, path, *([] if body is None else [body]))
