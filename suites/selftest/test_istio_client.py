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
        self.deaf, self.sync, self.applied = deaf, sync, []

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


def test_a_proxy_that_gets_nothing_is_named_with_the_resource_and_its_sync_state():
    with pytest.raises(TimedOut) as late:
        IstioClient(Mesh("caller-1"), QUICK).await_propagation("routing", ["caller-1", "function-1"], ["DestinationRule"], 0.0)

    assert "configuration of DestinationRule not at proxy routing/caller-1" in str(late.value)
    assert "the proxy holds ['barrier-000000000000'] at version" in str(late.value)
    assert "istiod says: cluster SYNCED, route STALE (sent, not acknowledged)" in str(late.value)


@pytest.mark.parametrize(("sync", "said"), [([], "istiod knows no such proxy: it is not connected"), (None, "istiod's view of it cannot be had (")])
def test_what_istiod_does_not_know_is_said_too(sync, said):
    assert said in IstioClient(Mesh(sync=sync), QUICK).sync_state("routing", "caller-1")
