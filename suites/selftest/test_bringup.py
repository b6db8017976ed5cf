"""Bringing up: what a kept cluster remembers of its components, and what a report is told of them; hermetic."""

import argparse
from pathlib import Path

import pytest

from clusters import bringup
from clusters.apiserver import NotFound
from clusters.bringup import MEMORY, Testbed
from clusters.components.knative.manifests import INGRESSES
from clusters.components.registry import components
from clusters.fixtures import options_of
from clusters.images import ImageStore
from clusters.provider import Cluster
from clusters.timeouts import Timeouts
from clusters.versions import versions


class Remembering:
    """An API server of one ConfigMap, which applies as the API server does: what is no longer named is gone."""

    def __init__(self, **memory):
        self.memory = memory

    def get(self, _kind, name, _namespace):
        if not self.memory:
            raise NotFound(name, expected="it", seen="nothing", hint="", status=404, reason="NotFound")
        return {"data": dict(self.memory)}

    def apply(self, bodies):
        (body,) = bodies
        assert body["metadata"]["name"] == MEMORY
        self.memory = body["data"]


class Recorded:
    """A component that notes what the cluster remembers of it while it is installed."""

    name, namespace, requires = "mesh", "mesh-system", ()

    def __init__(self, kube, *, fails=False):
        self.kube, self.fails, self.during = kube, fails, None

    def input_key(self):
        return "new"

    def install(self, *_asked):
        self.during = dict(self.kube.memory)
        if self.fails:
            raise RuntimeError("killed")

    def await_ready(self, *_asked):
        pass

    def detect(self, _kube):
        return None


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return Cluster("a", "kind", tmp_path / "kubeconfig", "kind-a", owned=True)


def install(component, cluster):
    Testbed(bringup.Options(), Timeouts())._install(component, cluster, component.kube)


def test_what_is_there_already_is_not_installed_again(cluster):
    same = Recorded(Remembering(mesh="new", other="x"))

    install(same, cluster)

    assert same.during is None
    assert same.kube.memory == {"mesh": "new", "other": "x"}


@pytest.mark.parametrize("before", [{}, {"mesh": "old"}], ids=["nothing", "another"])
def test_what_was_installed_is_remembered(before, cluster):
    changed = Recorded(Remembering(**before, other="x"))

    install(changed, cluster)

    assert changed.during == {"other": "x"}
    assert changed.kube.memory == {"mesh": "new", "other": "x"}


def test_half_an_installation_is_not_taken_for_the_one_before_it(cluster):
    broken = Recorded(Remembering(mesh="old", other="x"), fails=True)

    with pytest.raises(RuntimeError, match="killed"):
        install(broken, cluster)

    assert broken.kube.memory == {"other": "x"}


@pytest.mark.parametrize("chosen", INGRESSES)
def test_a_report_names_the_chosen_ingress_and_no_other(chosen):
    told = bringup._versions(ImageStore("source"), chosen)

    assert told["knative-ingress"] == f"{chosen} {versions().software[INGRESSES[chosen].software]}"
    assert not {one.software for one in INGRESSES.values()} & told.keys()
    assert told["knative"] == versions().software["knative"]


@pytest.mark.parametrize("chosen", INGRESSES)
def test_the_chosen_ingress_reaches_the_component_from_either_command_line(chosen, monkeypatch):
    beds = []
    parser = argparse.ArgumentParser()
    parser.add_argument("--cluster-name", default="a")
    bringup.add_options(parser)
    monkeypatch.setattr(Testbed, "bring_up", lambda bed: beds.append(bed) or (_ for _ in ()).throw(KeyboardInterrupt))

    with pytest.raises(KeyboardInterrupt):
        bringup.up(parser.parse_args([f"--knative-ingress={chosen}"]))

    assert beds[0].options.knative_ingress == chosen
    assert components(ImageStore("source"), knative_ingress=chosen)["knative"].ingress.name == chosen


def test_pytest_s_options_are_those_of_the_command_line(pytestconfig):
    assert options_of(pytestconfig).knative_ingress == "gateway-api"
    assert bringup.Options().knative_ingress == "gateway-api"
