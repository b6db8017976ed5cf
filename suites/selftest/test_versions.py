"""versions.toml is complete, and go.mod files say the same."""

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clusters.errors import UserError
from clusters.images.catalogue import catalogue, gomod
from clusters.images.toolchain import module_version
from clusters.versions import VERSIONS_FILE, ImagePin, Reference, load, versions

# Which module of which set carries each version of [software].
LOCKED = {
    "kubernetes": ("kubernetes", "k8s.io/kubernetes"),
    "kind": ("kind", "sigs.k8s.io/kind"),
    "etcd": ("etcd", "go.etcd.io/etcd/server/v3"),
    "coredns": ("coredns", "github.com/coredns/coredns"),
    "containerd": ("containerd", "github.com/containerd/containerd/v2"),
    "runc": ("runc", "github.com/opencontainers/runc"),
    "cni": ("cni", "github.com/containernetworking/plugins"),
    "kube-router": ("kube-router", "github.com/cloudnativelabs/kube-router/v2"),
    "local-path-provisioner": ("local-path", "github.com/rancher/local-path-provisioner"),
    "fortio": ("fortio", "fortio.org/fortio"),
    "nats-streaming": ("nats-streaming", "github.com/nats-io/nats-streaming-server"),
    "openfaas-gateway": ("openfaas-gateway", "github.com/openfaas/faas/gateway"),
    "openfaas-operator": ("openfaas-operator", "github.com/openfaas/faas-netes"),
    "openfaas-queue-worker": ("openfaas-queue-worker", "github.com/openfaas/nats-queue-worker"),
    "openfaas-watchdog": ("openfaas-watchdog", "github.com/openfaas/faas"),
    "knative": ("knative", "knative.dev/serving"),
    "knative-gateway": ("knative-gateway", "knative.dev/net-gateway-api"),
    "knative-istio": ("knative-istio", "knative.dev/net-istio"),
    "jaeger": ("jaeger", "github.com/jaegertracing/jaeger"),
    "jaeger-operator": ("jaeger-operator", "github.com/jaegertracing/jaeger-operator"),
    "prometheus": ("prometheus", "github.com/prometheus/prometheus"),
    "alertmanager": ("alertmanager", "github.com/prometheus/alertmanager"),
    "prometheus-operator": ("prometheus-operator", "github.com/prometheus-operator/prometheus-operator"),
}
# What is no Go module: the file that carries its version, and how.
ELSEWHERE = {
    "opensearch": ("store/pom.xml", "<artifactId>opensearch</artifactId><version>{}</version>"),
    "fluentd": ("fluentd/gems.sha256", "  fluentd-{}.gem"),
}
NO_MODULE = {"pause", *ELSEWHERE}


@pytest.mark.parametrize("name", sorted(versions().software.keys() - NO_MODULE))
def test_go_mod_locks_the_version_that_the_versions_file_names(name):
    set_name, module = LOCKED[name]

    _, locked = module_version(gomod(set_name), module)

    assert locked == versions().software[name]


@pytest.mark.parametrize("name", sorted(ELSEWHERE))
def test_what_is_no_go_module_is_locked_to_the_version_that_the_versions_file_names(name):
    file, form = ELSEWHERE[name]

    assert form.format(versions().software[name]) in (gomod("kind").parent.parent / file).read_text()


def test_go_mod_locks_the_commit_of_the_named_istio_release():
    assert module_version(gomod("istio"), "istio.io/istio")[1] == versions().istio.module


def test_every_go_set_asks_for_the_pinned_go():
    for folder in sorted(gomod("kind").parent.iterdir()):
        assert re.search(r"^go (\S+)$", (folder / "go.mod").read_text(), re.MULTILINE)[1] == versions().go, folder.name


def test_every_image_is_pinned_and_every_pin_is_an_image():
    assert catalogue(versions()).images.keys() == versions().images.keys()


def test_an_image_without_a_digest_is_refused_unless_told_otherwise():
    name = Reference.parse("registry.example.org/x/y:v1")
    pin = ImagePin("y", name, name)

    with pytest.raises(UserError, match=r"image y: expected a digest .* --allow-unpinned"):
        pin.published_reference()
    assert pin.published_reference(allow_unpinned=True) == "registry.example.org/x/y:v1"


def test_a_digest_replaces_the_tag():
    name = Reference.parse("registry.example.org/x/y:v1")

    assert ImagePin("y", name, name, "sha256:" + "0" * 64).published_reference() == "registry.example.org/x/y@sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('go = "1.26.6"', "", "no 'go'"),
        ('"docker.io/istio/pilot:{istio}"', '"docker.io/istio/pilot"', "not host/repository:tag"),
        ('"docker.io/istio/pilot:{istio}"', '"istio/pilot:{istio}"', "not host/repository:tag"),
        ('"docker.io/istio/pilot:{istio}"', '"docker.io/istio/proxyv2:{istio}"', "images pilot and proxyv2 share"),
        ('"docker.io/istio/pilot:{istio}"', '"docker.io/istio/pilot:{isto}"', "no 'isto'"),
        ('greeter:1"', 'greeter:1"\ndigest = ""', "our own"),
        ('digest = "sha256:a1ed', 'digest = "sha256:A1ed', "not sha256:"),
        ('digest = "sha256:a1ed', 'tagg = "sha256:a1ed', "unknown key tagg"),
        ("[images.node]", "[images.node", "versions.toml"),
    ],
)
def test_a_broken_versions_file_is_one_clear_line(tmp_path, old, new, said):
    file = tmp_path / "versions.toml"
    text = VERSIONS_FILE.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))

    with pytest.raises(UserError, match=re.escape(said)) as raised:
        load(file)
    assert "\n" not in str(raised.value)


@settings(deadline=None, max_examples=30)
@given(
    st.from_regex(r"[a-z0-9]{1,8}\.[a-z]{2,5}(:[0-9]{2,4})?", fullmatch=True), st.from_regex(r"[a-z0-9]{1,8}(/[a-z0-9._-]{1,8}){0,2}", fullmatch=True),
    st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True),
)
def test_a_reference_reads_back_as_it_was_written(host, repository, tag):
    reference = Reference(host, repository, tag)

    assert Reference.parse(str(reference)) == reference


def test_no_name_is_latest():
    assert [pin.name for pin in versions().images.values() if pin.upstream.tag == "latest"] == []


def test_the_file_is_the_only_one_that_names_the_go_version():
    repeated = [
        str(file) for file in Path(VERSIONS_FILE.parent).rglob("*.py") if versions().go in file.read_text()
    ]

    assert repeated == []
