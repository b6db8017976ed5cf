"""Self-tests of the questions put to Istio: what is said when a proxy gets nothing, and how long each proxy took."""

import json
import re
from dataclasses import replace

import pytest

from clusters.components.istio.client import IstioClient
from clusters.kube import ExecFailed
from clusters.timeouts import Timeouts
from clusters.waiting import TimedOut

QUICK = replace(Timeouts(), propagation=0.2)
SYNC = [
    {"proxy": "caller-1.routing", "cluster_sent": "n1", "cluster_acked": "n1", "route_sent": "n9", "route_acked": "n8", "endpoint_sent": ""},
    {"proxy": "caller-1.other", "cluster_sent": "n1", "cluster_acked": "n0"},
]


class Mesh:
    """A cluster in which every proxy but the `deaf` ones holds what was applied last."""

    def __init__(self, *deaf, sync=SYNC):
        self.deaf, self.sync, self.applied, self.drained = deaf, sync, [], []

    def apply(self, documents, _namespace):
        self.applied += documents

    def pods(self, namespace, selector):
        assert (namespace, selector) == ("istio-system", "app=istiod")
        return [{"metadata": {"name": "istiod-1"}}]

    def exec(self, pod, _namespace, _container, argv):
        if pod == "istiod-1":
            assert argv[-1] == "/debug/syncz"
            if self.sync is None:
                raise ExecFailed("pod istiod-1", argv, exit_code=1, why="no such program")
            return json.dumps(self.sync)
        if "stats" in argv[-1]:
            self.drained.append(pod)
            return json.dumps({"stats": [{"name": "listener_manager.total_listeners_draining", "value": 0}]})
        name = "barrier-000000000000" if pod in self.deaf else re.findall(r"barrier-[0-9a-f]{12}", str(self.applied[-1].body))[-1]
        return json.dumps({"version_info": "7", "name": name})


def test_every_proxy_has_a_time_of_its_own():
    reached = IstioClient(Mesh(), QUICK).await_propagation("routing", ["caller-1", "function-1"], ["VirtualService", "VirtualService"], 0.0)

    assert reached.kinds == ("VirtualService",)
    assert set(reached.by_proxy) == {"caller-1", "function-1"}
    assert reached.seconds == max(reached.by_proxy.values())


@pytest.mark.parametrize(("kinds", "barriers"), [(["VirtualService"], 1), (["DestinationRule"], 2), (["VirtualService", "Gateway"], 2)])
def test_another_kind_than_the_barriers_own_needs_a_second_one(kinds, barriers):
    mesh = Mesh()

    IstioClient(mesh, QUICK).await_propagation("routing", ["caller-1"], kinds, 0.0)

    assert sum("VirtualService" in str(document.body["kind"]) for document in mesh.applied) == barriers


def test_a_removed_policy_is_waited_for_as_long_as_an_applied_one():
    mesh = Mesh()

    reached = IstioClient(mesh, QUICK).await_propagation("routing", ["caller-1"], ["VirtualService"], 0.0, removed=["AuthorizationPolicy"])

    assert sum("VirtualService" in str(document.body["kind"]) for document in mesh.applied) == 2
    assert mesh.drained == ["caller-1"]
    assert reached.kinds == ("VirtualService",)


def test_a_proxy_that_gets_nothing_is_named_with_the_resource_and_its_sync_state():
    with pytest.raises(TimedOut) as late:
        IstioClient(Mesh("caller-1"), QUICK).await_propagation("routing", ["caller-1", "function-1"], ["DestinationRule"], 0.0)

    assert "configuration of DestinationRule not at proxy routing/caller-1" in str(late.value)
    assert "the proxy holds ['barrier-000000000000'] at version" in str(late.value)
    assert "istiod says: cluster SYNCED, route STALE (sent, not acknowledged)" in str(late.value)


@pytest.mark.parametrize(("sync", "said"), [([], "istiod knows no such proxy: it is not connected"), (None, "istiod's view of it cannot be had (")])
def test_what_istiod_does_not_know_is_said_too(sync, said):
    assert said in IstioClient(Mesh(sync=sync), QUICK).sync_state("routing", "caller-1")


class Istiods:
    """Two istiods, of which each has a metric; a pod that is deleted comes back under another name once it has been asked for."""

    def __init__(self, *failures):
        self.failures, self.deleted, self.awaited = dict(enumerate(failures)), [], []

    def pods(self, namespace, selector):
        assert (namespace, selector) == ("istio-system", "app=istiod")
        return [{"metadata": {"name": f"istiod-{number}"}, "status": {"podIP": f"10.0.0.{number}"}} for number in self.failures]

    def exec(self, pod, _namespace, _container, argv):
        assert argv[-1] == "/metrics"
        count = self.failures[int(pod.removeprefix("istiod-"))]
        said = f"pilot_jwks_resolver_network_fetch_fail_total {count}\n" if count is not None else ""
        return f"# TYPE pilot_jwks_resolver_network_fetch_fail_total counter\n{said}pilot_jwks_resolver_network_fetch_success_total 7\n"

    def delete_one(self, kind, name, namespace):
        assert (kind, namespace) == ("Pod", "istio-system")
        self.deleted.append(name)
        self.failures[len(self.failures) + 10] = self.failures.pop(int(name.removeprefix("istiod-")))

    def wait_deployment(self, namespace, name, _within):
        self.awaited.append((namespace, name))

    def apply(self, documents, namespace, *, dry_run):
        assert dry_run
        self.awaited += [(namespace, document.kind) for document in documents]


@pytest.mark.parametrize(("failures", "sum_of_them"), [((3, 4), 7), ((None,), 0), ((None, 2), 2), (("1e+06",), 1_000_000)])
def test_failures_to_fetch_keys_are_those_of_every_istiod(failures, sum_of_them):
    assert IstioClient(Istiods(*failures), QUICK).jwks_failures() == sum_of_them


def test_istiod_is_restarted_once_none_of_its_old_pods_is_left():
    cluster = Istiods(1, 2)

    IstioClient(cluster, QUICK).restart_istiod()

    assert cluster.deleted == ["istiod-0", "istiod-1"]
    assert cluster.awaited[0] == ("istio-system", "istiod")
    assert cluster.awaited.count(("istio-system", "VirtualService")) == 3


def test_an_istiod_that_stays_is_named():
    cluster = Istiods(1)
    cluster.delete_one = lambda *_: None

    with pytest.raises(TimedOut, match=r"istiod's old pod not gone after .* istiod-0 is still there"):
        IstioClient(cluster, replace(QUICK, istio_ready=0.1)).restart_istiod()
