"""Evidence: everything that can be had, within bounds, without secrets, and never another failure."""

import base64
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from clusters import evidence
from clusters.evidence import collect, without_secrets
from clusters.kube import ExecFailed
from suites.selftest.clock import FakeClock

KEY = "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\nline\n-----END RSA PRIVATE KEY-----"
SECRET = base64.b64encode(KEY.encode()).decode()


def pod(name: str, *containers: str, restarts: int = 0, ready: bool = True, native: bool = False) -> dict[str, Any]:
    statuses = [{"name": container, "restartCount": restarts} for container in containers]
    native_statuses = [{"name": "istio-proxy", "restartCount": 0}] if native else []
    return {
        "metadata": {"name": name, "managedFields": [{"manager": "kubelet"}]},
        "status": {
            "conditions": [{"type": "Ready", "status": str(ready)}],
            "containerStatuses": statuses,
            "initContainerStatuses": native_statuses,
        },
    }


@dataclass
class World:
    """What the cluster would answer; an exception in place of an answer is raised."""

    found: Any = ()
    happened: Any = ()
    said: Any = "a line\n"
    dump: Any = '{"configs": []}'
    clock: FakeClock = field(default_factory=FakeClock)
    takes: float = 0.0
    asked: list[str] = field(default_factory=list)

    def _answer(self, what: str, answer: Any) -> Any:
        self.asked.append(what)
        self.clock.now += self.takes
        if isinstance(answer, Exception):
            raise answer
        return answer

    def pods(self, namespace: str) -> list[dict[str, Any]]:
        return [*self._answer(f"pods {namespace}", self.found)]

    def events(self, namespace: str) -> list[dict[str, Any]]:
        return [*self._answer(f"events {namespace}", self.happened)]

    def logs(self, pod: str, namespace: str, container: str, *, previous: bool, max_bytes: int, tail: int) -> str:
        assert max_bytes >= evidence.MAX_LOG_BYTES
        assert tail > 0
        return str(self._answer(f"log {namespace}/{pod} {container}{' previous' if previous else ''}", self.said))

    def exec(self, pod: str, namespace: str, container: str, argv: list[str], *, timeout: float) -> str:
        assert timeout < evidence.MAX_SECONDS
        return str(self._answer(f"{namespace}/{pod} {container} {' '.join(argv)}", self.dump))


def names(paths: list[Path], root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in paths}


def test_events_pods_logs_and_proxies_are_saved(tmp_path: Path) -> None:
    event = {
        "metadata": {},
        "lastTimestamp": "T",
        "type": "Warning",
        "reason": "Failed",
        "message": "no\nimage",
        "count": 3,
        "involvedObject": {"kind": "Pod", "name": "p"},
    }
    world = World(found=[pod("p", "app", "istio-proxy", restarts=1)], happened=[event])

    written = collect(world, ["x"], tmp_path)

    assert names(written, tmp_path) == {
        "INDEX.txt", "x/events.txt", "x/pods.yaml", "x/p/app.log", "x/p/app.previous.log",
        "x/p/istio-proxy.log", "x/p/istio-proxy.previous.log", "x/p/proxy_config.json", "x/p/proxy_stats.txt",
    }  # fmt: skip
    assert all(path.is_file() for path in written)
    assert (tmp_path / "x/events.txt").read_text() == "T Warning Pod/p Failed: no image (x3)\n"
    assert "managedFields" not in next(yaml.safe_load_all((tmp_path / "x/pods.yaml").read_text()))["metadata"]
    assert "Not saved" not in (tmp_path / "INDEX.txt").read_text()


def test_a_proxy_that_runs_as_a_native_sidecar_is_asked_too(tmp_path: Path) -> None:
    world = World(found=[pod("p", "app", native=True)])

    assert "x/p/proxy_config.json" in names(collect(world, ["x"], tmp_path), tmp_path)


def test_proxies_are_left_alone_on_request(tmp_path: Path) -> None:
    world = World(found=[pod("p", "istio-proxy")])

    collect(world, ["x"], tmp_path, proxies=False)

    assert not [asked for asked in world.asked if "pilot-agent" in asked]


@pytest.mark.parametrize(
    "broken",
    [
        {"found": RuntimeError("no pods")},
        {"happened": RuntimeError("no events")},
        {"said": RuntimeError("no log")},
        {"dump": ExecFailed("pod x/p", ["pilot-agent"], exit_code=1, stderr="refused")},
        {"dump": "this is not JSON"},
        {"found": [{"metadata": {"name": "p"}, "status": None}]},
    ],
    ids=["pods", "events", "logs", "proxy", "dump", "odd pod"],
)
def test_what_cannot_be_had_is_noted_and_the_rest_is_saved(tmp_path: Path, broken: dict[str, Any]) -> None:
    world = World(**{"found": [pod("p", "app", "istio-proxy")], **broken})

    written = collect(world, ["x", "y"], tmp_path)

    assert len(written) >= 3
    failed = [value for value in broken.values() if isinstance(value, Exception)]
    assert all(str(error) in (tmp_path / "INDEX.txt").read_text() for error in failed)


def test_a_folder_that_cannot_be_written_is_no_failure(tmp_path: Path) -> None:
    blocked = tmp_path / "a file"
    blocked.write_text("in the way")

    assert collect(World(found=[pod("p", "app")]), ["x"], blocked / "evidence") == []


def test_pods_that_are_not_ready_come_first_and_the_bound_is_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence, "MAX_PODS", 2)
    world = World(found=[pod("well-1", "app"), pod("well-2", "app"), pod("ill", "app", ready=False)])

    collect(world, ["x"], tmp_path)

    assert [asked for asked in world.asked if asked.startswith("log")] == ["log x/ill app", "log x/well-1 app"]
    assert "x: 1 of 3 pods left out, the bound is 2" in (tmp_path / "INDEX.txt").read_text()


def test_time_is_bounded(tmp_path: Path) -> None:
    world = World(found=[pod(f"p{number}", "app") for number in range(30)], takes=20.0)

    collect(world, ["x"], tmp_path, clock=world.clock)

    assert world.clock.now <= evidence.MAX_SECONDS + world.takes
    assert "x/p29/app.log: left out, 90 s were used up" in (tmp_path / "INDEX.txt").read_text()


def test_bytes_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence, "MAX_BYTES", 5_000)
    monkeypatch.setattr(evidence, "MAX_LOG_BYTES", 1_000)
    world = World(found=[pod(f"p{number}", "app") for number in range(9)], said="0123456789" * 500 + "the end")

    written = collect(world, ["x"], tmp_path)

    assert sum(path.stat().st_size for path in written if path.name != "INDEX.txt") <= 5_000
    assert (tmp_path / "x/p0/app.log").read_text().endswith("the end")
    assert "left out, the bound is 5000 in all" in (tmp_path / "INDEX.txt").read_text()


def test_a_dump_beyond_its_bound_loses_its_largest_section(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence, "MAX_DUMP_BYTES", 2_000)
    configs = [{"@type": "Endpoints", "many": list(range(2_000))}, {"@type": "Routes", "route": "greeter"}]

    collect(World(found=[pod("p", "istio-proxy")], dump=json.dumps({"configs": configs})), ["x"], tmp_path)

    left, kept = json.loads((tmp_path / "x/p/proxy_config.json").read_text())["configs"]
    assert left == {"@type": "Endpoints", "left_out_bytes": len(json.dumps(configs[0]))}
    assert kept == configs[1]


def test_no_private_key_is_ever_written(tmp_path: Path) -> None:
    dump = {
        "configs": [
            {"tls": {"private_key": {"inline_bytes": SECRET}, "certificate_chain": {"inline_bytes": "cert"}}},
            {"nested": [{"deep": {"private_key": {"inline_string": KEY}}}]},
            {"note": KEY},
        ]
    }
    world = World(found=[pod("p", "app", "istio-proxy")], said=f"before\n{KEY}\nafter\n", dump=json.dumps(dump))

    written = collect(world, ["x"], tmp_path)

    text = "".join(path.read_text() for path in written)
    assert "MIIEow" not in text
    assert SECRET not in text
    assert "before\n[removed]\nafter" in text
    assert '"cert"' in text


def test_a_key_that_a_log_cuts_off_is_removed_to_the_end(tmp_path: Path) -> None:
    collect(World(found=[pod("p", "app")], said=f"before\n{KEY[:40]}"), ["x"], tmp_path)

    assert (tmp_path / "x/p/app.log").read_text() == "before\n[removed]"


def test_removing_secrets_leaves_everything_else() -> None:
    assert without_secrets({"a": [1, None, {"password": "x", "b": True}]}) == {"a": [1, None, {"password": "[removed]", "b": True}]}
