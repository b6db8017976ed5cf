"""Every component that can be named with --components."""

from collections.abc import Iterable

from clusters.components import Component
from clusters.components.fluentd.component import Fluentd
from clusters.components.istio.component import Istio
from clusters.components.jaeger.component import Jaeger
from clusters.components.jaeger_operator.component import JaegerOperator
from clusters.components.knative.component import Knative
from clusters.components.knative.manifests import GATEWAY_API, INGRESSES
from clusters.components.openfaas.component import OpenFaas
from clusters.components.prometheus.component import Prometheus
from clusters.components.store.component import Store
from clusters.images import ImageStore


def components(images: ImageStore, *, knative_ingress: str = GATEWAY_API.name) -> dict[str, Component]:
    """Return the known components by name, bound to the pinned versions and installers; `knative_ingress` is a name of INGRESSES."""
    return {
        "istio": Istio(version=images.versions.istio.version, istioctl=lambda: images.tool("istioctl")),
        "knative": Knative(
            version=images.versions.images["knative-controller"].upstream.tag.removeprefix("v"),
            image=images.pinned_reference, module=images.module_folder, ingress=INGRESSES[knative_ingress],
        ),
        "openfaas": OpenFaas(
            version=images.versions.images["openfaas-gateway"].upstream.tag, image=images.pinned_reference, module=images.module_folder,
        ),
        "jaeger": Jaeger(version=images.versions.images["jaeger"].upstream.tag, image=images.pinned_reference),
        "jaeger-operator": JaegerOperator(
            version=images.versions.images["jaeger-operator"].upstream.tag, image=images.pinned_reference, module=images.module_folder,
        ),
        "prometheus": Prometheus(
            version=images.versions.software["prometheus-operator"].removeprefix("v"), image=images.pinned_reference, module=images.module_folder,
        ),
        "store": Store(version=images.versions.software["opensearch"], image=images.pinned_reference),
        "fluentd": Fluentd(version=images.versions.software["fluentd"], image=images.pinned_reference),
    }


def image_groups(names: Iterable[str], *, knative_ingress: str) -> tuple[str, ...]:
    """Return the groups of images that components need: of Knative's two ingresses, the one that was chosen."""
    return tuple(group for name in names for group in ((name, f"knative-{knative_ingress}") if name == "knative" else (name,)))


NAMES = ("istio", "knative", "openfaas", "jaeger", "jaeger-operator", "prometheus", "store", "fluentd")
