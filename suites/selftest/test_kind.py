"""The kind provider: what it refuses before it touches anything."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from clusters.bringup import Options, Testbed
from clusters.errors import UserError
from clusters.images import ImageStore
from clusters.kind import KindProvider, KindSettings
from clusters.timeouts import Timeouts
from clusters.waiting import TimedOut


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def provider(name: str = "one", port: int = 0) -> KindProvider:
    return KindProvider(KindSettings(name, gateway_port=port), ImageStore("source"), Timeouts())


@pytest.mark.parametrize("name", ["", "Upper", "../faasmesh", "a/b", ".", ".."])
def test_a_name_that_would_lead_out_of_the_clusters_folder_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="--cluster-name"):
        provider(name)


def test_a_second_run_is_told_who_has_the_cluster_and_disturbs_nothing(cache: Path) -> None:
    first, second = provider(), provider()
    first.acquire()
    try:
        with pytest.raises(UserError, match=r"in use by process \d+"):
            second.acquire()
    finally:
        first.release()

    second.acquire()
    second.release()
    assert (cache / "faasmesh" / "clusters" / "one").is_dir()


@pytest.mark.parametrize("options", [Options(components=("foo",)), Options(cluster="existing", kubeconfig=Path("k"))], ids=["component", "workload images"])
def test_what_a_run_cannot_do_without_is_asked_for_before_anything_is_done(options: Options, cache: Path) -> None:
    with pytest.raises(UserError, match=r"--components: .* istio.*, seen foo|--workload-images=PREFIX"):
        Testbed(options, Timeouts()).bring_up()

    assert not list(cache.iterdir())


@pytest.mark.parametrize("asked", [0, 4000])
def test_a_kept_cluster_is_used_on_the_port_it_has(asked: int) -> None:
    provider(port=asked)._require_port(4000)

    with pytest.raises(UserError, match="expected the gateway on port 4001, seen 4000"):
        provider(port=4001)._require_port(4000)


def test_a_kept_cluster_that_does_not_come_back_is_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = provider()
    deleted = []

    def silent() -> None:
        raise TimedOut("the API server after 60.0 s, 12 attempts; last: refused", seconds=60, attempts=12, last="refused")

    monkeypatch.setattr(kept, "_start_stopped_nodes", lambda: None)
    monkeypatch.setattr(kept, "_fence", lambda: None)
    monkeypatch.setattr(kept, "_containers", list)
    monkeypatch.setattr(kept, "tear_down", lambda: deleted.append(kept.settings.name))
    monkeypatch.setattr(kept, "_await_nodes", silent)
    assert not kept._comes_back()
    assert deleted == ["one"]

    monkeypatch.setattr(kept, "_await_nodes", lambda: None)
    assert kept._comes_back()
    assert deleted == ["one"]


class Node:
    """A node whose routing knows the rules that were added, and fails where it is told to."""

    def __init__(self, name: str, *, broken: bool = False) -> None:
        self.name, self.broken = name, broken
        self.rules: list[list[str]] = []

    def exec_run(self, argv: list[str]) -> SimpleNamespace:
        """Answer as ip does."""
        _, _, what, *rule = argv
        if self.broken:
            return SimpleNamespace(exit_code=127, output=b"not found\n")
        if what == "show":
            return SimpleNamespace(exit_code=0, output="\n".join(" ".join(one) for one in self.rules if one[:2] == rule).encode())
        self.rules.append(rule)
        return SimpleNamespace(exit_code=0, output=b"")


def test_every_node_refuses_what_is_for_a_service_that_is_not_there_once(monkeypatch: pytest.MonkeyPatch) -> None:
    kept, nodes = provider(), [Node("one-control-plane"), Node("one-worker")]
    monkeypatch.setattr(kept, "_containers", lambda: nodes)

    kept._fence()
    kept._fence()

    assert [node.rules for node in nodes] == [[["priority", "100", "from", "10.244.0.0/16", "to", "10.96.0.0/16", "unreachable"]]] * 2


def test_a_node_that_cannot_be_fenced_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = provider()
    monkeypatch.setattr(kept, "_containers", lambda: [Node("one-control-plane", broken=True)])

    with pytest.raises(UserError, match="ip rule in node one-control-plane: expected exit code 0, seen 127: not found"):
        kept._fence()
