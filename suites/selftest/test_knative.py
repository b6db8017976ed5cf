"""Knative's manifests as they are applied, and what its objects say of themselves; hermetic."""

import io

import pytest

from clusters.apiserver import ApiRefused, NotFound
from clusters.components.knative import manifests
from clusters.components.knative.client import KnativeClient, local_host
from clusters.components.knative.component import Knative
from clusters.components.knative.manifests import GATEWAY_API, INGRESSES, ISTIO
from clusters.components.registry import image_groups
from clusters.errors import UserError
from clusters.images.catalogue import catalogue
from clusters.timeouts import Timeouts
from clusters.versions import versions


def deployment(name="activator", image="ko://knative.dev/serving/cmd/activator"):
    container = {"name": name, "image": image, "resources": {"requests": {"cpu": "300m", "memory": "60Mi"}, "limits": {"cpu": "1"}}}
    return {
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "labels": {"app.kubernetes.io/version": "devel"}},
        "spec": {"template": {"metadata": {"labels": {"app.kubernetes.io/version": "devel"}}, "spec": {"containers": [container]}}},
    }


def config(name, **data):
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "annotations": {"knative.dev/example-checksum": "1", "kept": "yes"}}, "data": data}


def configs(ingress):
    return [config(name, _example="text") for name in manifests.settings(ingress)]


CONFIGS = configs(GATEWAY_API)


def prepared(*bodies, ingress=GATEWAY_API):
    found = manifests.prepared([*configs(ingress), *bodies], ingress, version="1.2.3", image="pulled/{}".format)
    return {(one["kind"], one["metadata"]["name"]): one for one in found}


def test_an_import_path_becomes_the_image_of_its_program_wherever_it_stands():
    found = prepared(deployment(), {"apiVersion": "x/v1", "kind": "Image", "metadata": {"name": "q"}, "spec": {"image": "ko://knative.dev/serving/cmd/queue"}})

    assert found["Deployment", "activator"]["spec"]["template"]["spec"]["containers"][0]["image"] == "pulled/knative-activator"
    assert found["Image", "q"]["spec"]["image"] == "pulled/knative-queue"


@pytest.mark.parametrize(("ingress", "program", "image"), [(GATEWAY_API, "net-gateway-api", "knative-gateway-controller"), (ISTIO, "net-istio", "knative-istio-controller")])
def test_an_ingress_brings_the_images_of_its_own_programs(ingress, program, image):
    own = deployment(f"{program}-controller", image=f"ko://knative.dev/{program}/cmd/controller")

    found = prepared(own, deployment(), ingress=ingress)["Deployment", f"{program}-controller"]["spec"]["template"]

    assert found["spec"]["containers"][0]["image"] == f"pulled/{image}"
    assert found["metadata"]["labels"]["sidecar.istio.io/inject"] == "false"


def test_the_programs_of_the_other_ingress_are_refused():
    with pytest.raises(KeyError, match="net-istio/cmd/controller"):
        prepared(deployment(image="ko://knative.dev/net-istio/cmd/controller"))


@pytest.mark.parametrize("ingress", INGRESSES.values(), ids=INGRESSES)
def test_knative_is_told_its_ingress_and_the_ingress_its_gateways(ingress):
    found = prepared(ingress=ingress)

    assert found["ConfigMap", "config-network"]["data"]["ingress-class"] == ingress.ingress_class
    assert found["ConfigMap", "config-network"]["data"]["mesh-compatibility-mode"] == "enabled"
    assert (("ConfigMap", "config-istio") in found) == (ingress is ISTIO)
    if ingress is ISTIO:
        assert set(found["ConfigMap", "config-istio"]["data"].values()) == {
            "istio-ingressgateway.istio-system.svc.cluster.local", "knative-local-gateway.istio-system.svc.cluster.local",
        }
    assert "ingress-class" not in manifests.SETTINGS["config-network"]


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
    found = manifests.prepared([*given, config("config-network", _example="text", kept="yes")], GATEWAY_API, version="1", image=str)
    network = next(one for one in found if one["metadata"]["name"] == "config-network")

    assert network["data"] == {"kept": "yes", **manifests.settings(GATEWAY_API)["config-network"]}
    assert network["metadata"]["annotations"] == {"kept": "yes"}


def test_a_setting_whose_config_map_upstream_has_no_longer_is_refused():
    with pytest.raises(KeyError, match="no ConfigMap config-domain"):
        manifests.prepared([one for one in CONFIGS if one["metadata"]["name"] != "config-domain"], GATEWAY_API, version="1", image=str)


def test_rights_that_are_filled_in_by_the_cluster_are_not_applied_as_none():
    role = {"apiVersion": "rbac/v1", "kind": "ClusterRole", "metadata": {"name": "all"}, "aggregationRule": {}, "rules": []}

    assert "rules" not in prepared(role)["ClusterRole", "all"]


def test_nothing_is_applied_before_what_it_needs_and_webhooks_come_last():
    kinds = ["MutatingWebhookConfiguration", "Deployment", "Certificate", "ConfigMap", "ServiceAccount", "Namespace", "CustomResourceDefinition"]
    bodies = [{"apiVersion": "x/v1", "kind": kind, "metadata": {"name": "a"}, "spec": {"template": {"metadata": {}, "spec": {"containers": []}}}} for kind in kinds]

    found = manifests.prepared([*CONFIGS, *bodies], GATEWAY_API, version="1", image=str)
    order = list(dict.fromkeys(one["kind"] for one in found))

    assert order == ["CustomResourceDefinition", "Namespace", "ServiceAccount", "ConfigMap", "Deployment", "Certificate", "MutatingWebhookConfiguration"]
    rest, webhooks = manifests.split(found)
    assert [one["kind"] for one in webhooks] == ["MutatingWebhookConfiguration"]
    assert len(rest) + 1 == len(found)


def test_a_webhook_that_would_refuse_every_function_is_asked_about_none():
    own = {"key": "serving.knative.dev/configuration", "operator": "Exists"}
    bodies = [
        {"apiVersion": "x/v1", "kind": kind, "metadata": {"name": name}, "webhooks": [{"name": name, "objectSelector": {"matchExpressions": [own]}}, {"name": "bare"}]}
        for kind, name in (("MutatingWebhookConfiguration", min(ISTIO.unasked)), ("ValidatingWebhookConfiguration", "another"))
    ]

    asked, bare = ([hook.get("objectSelector") for hook in found["webhooks"]] for _, found in sorted(prepared(*bodies, ingress=ISTIO).items()) if "webhooks" in found)

    assert asked == [{"matchExpressions": [own, {"key": manifests.ASK, "operator": "Exists"}]}, {"matchExpressions": [{"key": manifests.ASK, "operator": "Exists"}]}]
    assert bare == [{"matchExpressions": [own]}, None]


def test_what_would_scale_knative_itself_is_left_out():
    body = {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "activator"}}

    assert ("HorizontalPodAutoscaler", "activator") not in prepared(body)


class Told:
    """An API server that knows what it is given."""

    def __init__(self, *objects):
        self.objects = objects

    def get(self, kind, name, _namespace=None):
        found = [one for one in self.objects if kind.endswith(one["kind"]) and one["metadata"]["name"] == name]
        if not found:
            raise NotFound(name, expected="it", seen="nothing", hint="", status=404, reason="NotFound")
        return found[0]

    def list(self, kind, _namespace=None, selector=""):
        name, _, value = selector.partition("=")
        found = [one for one in self.objects if kind.endswith(one["kind"])]
        return [one for one in found if one["metadata"].get("labels", {}).get(name) == value] if selector else found


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


def test_the_hosts_outside_are_those_that_the_function_tells():
    told = {"url": "https://hello.here.example.com", "traffic": [{"revisionName": "hello-1", "tag": "blue", "url": "https://blue-hello.here.example.com:8443/"}, {"revisionName": "hello-2"}]}
    found = knative({"kind": "Service", "metadata": {"name": "hello", "generation": 1}, "status": told}).function("here", "hello")
    untold = knative({"kind": "Service", "metadata": {"name": "hello", "generation": 1}}).function("here", "hello")

    assert (found.host, found.tagged("blue"), found.tagged("green"), found.tagged("")) == ("hello.here.example.com", "blue-hello.here.example.com", "", "")
    assert (untold.host, untold.tagged("blue")) == ("", "")


def test_inside_a_tag_comes_before_the_function_s_name():
    assert local_host("hello", "here", tag="blue") == "blue-hello.here.svc.cluster.local"
    assert local_host("hello", "here") == "hello.here.svc.cluster.local"


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ({"ingress-class": GATEWAY_API.ingress_class}, "gateway-api"), ({"ingress-class": ISTIO.ingress_class}, "istio"), ({}, "istio"),
        ({"ingress.class": GATEWAY_API.ingress_class}, "gateway-api"), ({"ingress-class": "kourier.ingress.networking.knative.dev"}, "kourier.ingress.networking.knative.dev"),
    ],
)
def test_the_ingress_is_the_one_that_knative_is_told(data, name):
    assert knative(config("config-network", **data)).ingress() == name


def test_an_ingress_that_may_not_be_asked_for_is_unknown():
    class Refusing:
        def get(self, *_asked):
            raise ApiRefused("ConfigMap", expected="it", seen="403", hint="", status=403, reason="Forbidden")

    assert KnativeClient(Refusing(), Timeouts()).ingress() == "unknown"


def test_a_kept_cluster_is_installed_again_when_an_image_or_a_version_changed(tmp_path):
    def key(version="1", image="{}@sha256:1", ingress=GATEWAY_API):
        return Knative(version=version, image=image.format, module=lambda _gomod, _module: tmp_path, ingress=ingress).input_key()

    assert key() == key()
    assert len({key(), key(version="2"), key(image="{}@sha256:2"), key(ingress=ISTIO)}) == 4


@pytest.mark.parametrize("ingress", INGRESSES.values(), ids=INGRESSES)
def test_manifests_are_read_in_the_modules_that_the_sets_lock(tmp_path, ingress):
    asked = []

    def module(gomod, name):
        asked.append((gomod, name))
        folder = tmp_path / name
        (folder / "config").mkdir(parents=True)
        (folder / "config" / "one.yaml").write_text(f"apiVersion: v1\nkind: Secret\nmetadata: {{name: of-{name.rpartition('/')[2]}}}\n")
        return folder

    found = list(Knative(version="1", image=str, module=module, ingress=ingress)._upstream(manifests.sources(ingress)))

    assert asked == [(source.gomod, source.module) for source in manifests.sources(ingress)]
    assert f"of-net-{ingress.name}" in {one["metadata"]["name"] for one in found}


def thing(kind, name="a", namespace="istio-system", version="v1"):
    return {"apiVersion": f"{'gateway.networking.k8s.io/' if kind == 'Gateway' else ''}{version}", "kind": kind, "metadata": {"name": name, "namespace": namespace}}


def test_what_both_ingresses_have_stays_and_the_rest_goes_webhooks_first_and_deployments_last():
    theirs = [thing(kind) for kind in ("Deployment", "CustomResourceDefinition", "Service", "ValidatingWebhookConfiguration", "Gateway", "Namespace", "ConfigMap")]

    found = manifests.displaced(theirs, [thing("Service"), thing("ConfigMap", "another"), thing("Gateway", namespace="knative-serving")])

    assert [one["kind"] for one in reversed(found)] == ["ValidatingWebhookConfiguration", "ConfigMap", "Gateway", "Deployment"]


def test_an_object_is_the_same_in_another_version_and_not_in_another_group():
    istio = {**thing("Gateway"), "apiVersion": "networking.istio.io/v1"}

    assert manifests.displaced([thing("Gateway", version="v1beta1")], [thing("Gateway")]) == []
    assert manifests.displaced([thing("Gateway")], [istio]) == [thing("Gateway")]


class Kept(Told):
    """A kept cluster, which tells what was deleted."""

    deleted = ()

    def delete(self, bodies, *, within):
        assert within > 0
        self.deleted = [one["metadata"]["name"] for one in bodies]


@pytest.fixture
def displaced(tmp_path):
    """Put net-istio in the place of what a kept cluster has; the other ingress's manifests are one Secret."""
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "one.yaml").write_text("apiVersion: v1\nkind: Secret\nmetadata: {name: theirs, namespace: knative-serving}\n")

    def displace(*objects):
        cluster, said = Kept(*objects), io.StringIO()
        made = Knative(version="1", image=str, module=lambda _gomod, _module: tmp_path, ingress=ISTIO)
        made._displace(cluster, [], Timeouts(namespace_gone=0.01), said)
        return list(cluster.deleted), said.getvalue()

    return displace


OTHERS = thing("Deployment", "net-gateway-api-controller", "knative-serving")


def test_another_ingress_s_objects_are_taken_away(displaced):
    assert displaced(OTHERS) == (["theirs"], "delete Secret knative-serving/theirs\n")


@pytest.mark.parametrize("there", [(), (thing("Deployment", "net-istio-controller", "knative-serving"),)], ids=["none", "the same"])
def test_nothing_is_taken_away_where_no_other_ingress_is(displaced, there):
    assert displaced(*there) == ([], "")


def test_functions_of_the_ingress_that_is_to_go_are_waited_for_and_named(displaced):
    with pytest.raises(UserError, match=r"--knative-ingress: expected .* seen function here/hello.*hint: delete the cluster"):
        displaced(OTHERS, thing("Ingress", "hello", "here"))


def test_only_the_images_of_the_chosen_ingress_are_made():
    chosen = {name: catalogue(versions()).select(image_groups(("istio", "knative"), knative_ingress=name)) for name in INGRESSES}
    names = {name: {image.name for image in images if image.name.startswith("knative")} for name, images in chosen.items()}

    assert names == {name: set(manifests.images(one).values()) for name, one in INGRESSES.items()}
    assert image_groups(("istio",), knative_ingress="istio") == ("istio",)


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
