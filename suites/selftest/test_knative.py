"""Knative's manifests as they are applied, and what its objects say of themselves; hermetic."""

import pytest

from clusters.components.knative import manifests
from clusters.components.knative.client import KnativeClient, host, local_host
from clusters.components.knative.component import Knative
from clusters.timeouts import Timeouts


def deployment(name="activator", image="ko://knative.dev/serving/cmd/activator"):
    container = {"name": name, "image": image, "resources": {"requests": {"cpu": "300m", "memory": "60Mi"}, "limits": {"cpu": "1"}}}
    return {
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "labels": {"app.kubernetes.io/version": "devel"}},
        "spec": {"template": {"metadata": {"labels": {"app.kubernetes.io/version": "devel"}}, "spec": {"containers": [container]}}},
    }


def config(name, **data):
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "annotations": {"knative.dev/example-checksum": "1", "kept": "yes"}}, "data": data}


CONFIGS = [config(name, _example="text") for name in manifests.SETTINGS]


def prepared(*bodies):
    return {(one["kind"], one["metadata"]["name"]): one for one in manifests.prepared([*CONFIGS, *bodies], version="1.2.3", image="pulled/{}".format)}


def test_an_import_path_becomes_the_image_of_its_program_wherever_it_stands():
    found = prepared(deployment(), {"apiVersion": "x/v1", "kind": "Image", "metadata": {"name": "q"}, "spec": {"image": "ko://knative.dev/serving/cmd/queue"}})

    assert found["Deployment", "activator"]["spec"]["template"]["spec"]["containers"][0]["image"] == "pulled/knative-activator"
    assert found["Image", "q"]["spec"]["image"] == "pulled/knative-queue"


def test_a_program_without_an_image_is_refused():
    with pytest.raises(KeyError, match="cmd/other"):
        prepared(deployment(image="ko://knative.dev/serving/cmd/other"))


def test_upstream_s_objects_are_left_as_they_were():
    given = deployment()

    prepared(given)

    assert given == deployment()


def test_who_speaks_with_functions_is_in_the_mesh_and_nobody_else():
    found = prepared(deployment(), deployment("webhook"), {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "knative-serving"}})

    assert found["Namespace", "knative-serving"]["metadata"]["labels"]["istio-injection"] == "enabled"
    activator, webhook = (found["Deployment", name]["spec"]["template"]["metadata"] for name in ("activator", "webhook"))
    assert "sidecar.istio.io/inject" not in activator["labels"]
    assert webhook["labels"]["sidecar.istio.io/inject"] == "false"


def test_a_deployment_asks_for_little_and_keeps_its_limits():
    resources = prepared(deployment())["Deployment", "activator"]["spec"]["template"]["spec"]["containers"][0]["resources"]

    assert resources == {"requests": {"cpu": "20m", "memory": "60Mi"}, "limits": {"cpu": "1"}}


def test_the_version_is_named_on_objects_and_pods():
    found = prepared(deployment())["Deployment", "activator"]

    assert found["metadata"]["labels"]["app.kubernetes.io/version"] == "1.2.3"
    assert found["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/version"] == "1.2.3"


def test_settings_are_added_to_what_a_config_map_says_and_its_example_goes():
    given = [one for one in CONFIGS if one["metadata"]["name"] != "config-network"]
    found = manifests.prepared([*given, config("config-network", _example="text", kept="yes")], version="1", image=str)
    network = next(one for one in found if one["metadata"]["name"] == "config-network")

    assert network["data"] == {"kept": "yes", **manifests.SETTINGS["config-network"]}
    assert network["metadata"]["annotations"] == {"kept": "yes"}


def test_a_setting_whose_config_map_upstream_has_no_longer_is_refused():
    with pytest.raises(KeyError, match="no ConfigMap config-domain"):
        manifests.prepared([one for one in CONFIGS if one["metadata"]["name"] != "config-domain"], version="1", image=str)


def test_rights_that_are_filled_in_by_the_cluster_are_not_applied_as_none():
    role = {"apiVersion": "rbac/v1", "kind": "ClusterRole", "metadata": {"name": "all"}, "aggregationRule": {}, "rules": []}

    assert "rules" not in prepared(role)["ClusterRole", "all"]


def test_nothing_is_applied_before_what_it_needs_and_webhooks_come_last():
    kinds = ["MutatingWebhookConfiguration", "Deployment", "Certificate", "ConfigMap", "ServiceAccount", "Namespace", "CustomResourceDefinition"]
    bodies = [{"apiVersion": "x/v1", "kind": kind, "metadata": {"name": "a"}, "spec": {"template": {"metadata": {}, "spec": {"containers": []}}}} for kind in kinds]

    found = manifests.prepared([*CONFIGS, *bodies], version="1", image=str)
    order = list(dict.fromkeys(one["kind"] for one in found))

    assert order == ["CustomResourceDefinition", "Namespace", "ServiceAccount", "ConfigMap", "Deployment", "Certificate", "MutatingWebhookConfiguration"]
    rest, webhooks = manifests.split(found)
    assert [one["kind"] for one in webhooks] == ["MutatingWebhookConfiguration"]
    assert len(rest) + 1 == len(found)


def test_what_would_scale_knative_itself_is_left_out():
    body = {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "activator"}}

    assert ("HorizontalPodAutoscaler", "activator") not in prepared(body)


class Told:
    """An API server that knows what it is given."""

    def __init__(self, *objects):
        self.objects = objects

    def get(self, kind, name, _namespace=None):
        return next(one for one in self.objects if kind.endswith(one["kind"]) and one["metadata"]["name"] == name)

    def list(self, kind, _namespace=None, selector=""):
        name, _, value = selector.partition("=")
        return [one for one in self.objects if kind.endswith(one["kind"]) and one["metadata"].get("labels", {}).get(name) == value]


def knative(*objects):
    return KnativeClient(Told(*objects), Timeouts())


def test_a_function_is_read_from_its_status():
    found = knative({
        "kind": "Service", "metadata": {"name": "hello", "generation": 2}, "spec": {},
        "status": {
            "observedGeneration": 1, "url": "http://hello.example", "latestCreatedRevisionName": "hello-2", "latestReadyRevisionName": "hello-1",
            "conditions": [{"type": "Ready", "status": "False", "reason": "RevisionFailed", "message": "it crashes"}],
            "traffic": [{"revisionName": "hello-1", "percent": 100, "latestRevision": True}, {"revisionName": "hello-1", "tag": "old", "url": "http://old"}],
        },
    }).function("here", "hello")

    assert (found.current, found.latest_created, found.latest_ready) == (False, "hello-2", "hello-1")
    assert (found.ready.status, found.ready.reason, found.ready.message) == ("False", "RevisionFailed", "it crashes")
    assert [(one["percent"], one["tag"], one["latest"]) for one in found.traffic] == [(100, "", True), (0, "old", False)]
    assert found.to_json()["conditions"]["Ready"]["reason"] == "RevisionFailed"


def test_a_function_that_has_not_been_looked_at_is_not_ready():
    found = knative({"kind": "Service", "metadata": {"name": "hello", "generation": 1}}).function("here", "hello")

    assert (found.current, found.ready.status, found.traffic) == (False, "Unknown", ())


def test_a_revision_s_pods_are_read_from_its_autoscaler():
    labels = {"serving.knative.dev/revision": "hello-1"}
    found = knative(
        {"kind": "Revision", "metadata": {"name": "hello-1"}, "status": {}},
        {"kind": "PodAutoscaler", "metadata": {"name": "hello-1", "labels": labels}, "status": {"desiredScale": 0, "actualScale": 1}},
        {"kind": "ServerlessService", "metadata": {"name": "hello-1", "labels": labels}, "spec": {"mode": "Proxy"}},
    ).revision("here", "hello-1")

    assert (found.wanted, found.there, found.activator_in_path) == (0, 1, True)


def test_a_revision_without_an_autoscaler_has_an_unknown_scale():
    found = knative({"kind": "Revision", "metadata": {"name": "hello-1"}}).revision("here", "hello-1")

    assert (found.wanted, found.there, found.activator_in_path) == (-1, -1, False)


def test_revisions_are_ordered_by_generation_not_by_name():
    revisions = [
        {"kind": "Revision", "metadata": {"name": name, "labels": {"serving.knative.dev/service": "hello", "serving.knative.dev/configurationGeneration": str(at)}}}
        for name, at in (("hello-00010", 10), ("a", 9))
    ]

    assert knative(*revisions).revisions("here", "hello") == ["a", "hello-00010"]


def test_a_tag_comes_before_the_function_s_name():
    assert host("hello", "here", tag="blue") == "blue-hello.here.functions.faasmesh.test"
    assert local_host("hello", "here") == "hello.here.svc.cluster.local"


def test_a_kept_cluster_is_installed_again_when_an_image_or_a_version_changed(tmp_path):
    def key(version="1", image="{}@sha256:1"):
        return Knative(version=version, image=image.format, module=lambda _gomod, _module: tmp_path).input_key()

    assert key() == key()
    assert len({key(), key(version="2"), key(image="{}@sha256:2")}) == 3


def test_manifests_are_read_in_the_modules_that_the_sets_lock(tmp_path):
    asked = []

    def module(gomod, name):
        asked.append((gomod, name))
        folder = tmp_path / name
        (folder / "config").mkdir(parents=True)
        (folder / "config" / "one.yaml").write_text(f"apiVersion: v1\nkind: Secret\nmetadata: {{name: of-{name.rpartition('/')[2]}}}\n")
        return folder

    found = list(Knative(version="1", image=str, module=module)._upstream())

    assert asked == [(source.gomod, source.module) for source in manifests.SOURCES]
    assert "of-net-gateway-api" in {one["metadata"]["name"] for one in found}


def test_knative_needs_istio_and_is_known_by_its_controller():
    controller = {"kind": "Deployment", "metadata": {"name": "controller", "labels": {"app.kubernetes.io/version": "1.2.3"}}}

    class Cluster:
        def __init__(self, *found):
            self.found = found

        def list(self, *_asked):
            return self.found

    component = Knative(version="1", image=str, module=lambda _gomod, _module: None)
    assert component.requires == ("istio",)
    assert component.detect(Cluster(controller)) == "1.2.3"
    assert component.detect(Cluster()) is None
