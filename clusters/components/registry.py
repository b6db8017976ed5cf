"""Every component that can be named with --components."""

from clusters.components import Component
from clusters.components.istio.component import Istio
from clusters.components.knative.component import Knative
from clusters.images import ImageStore


def components(images: ImageStore) -> dict[str, Component]:
    """Return the known components by name, bound to the pinned versions and installers."""
    return {
        "istio": Istio(version=images.versions.istio.version, istioctl=lambda: images.tool("istioctl")),
        "knative": Knative(
            version=images.versions.images["knative-controller"].upstream.tag.removeprefix("v"),
            image=images.pinned_reference, module=images.module_folder,
        ),
    }


NAMES = ("istio", "knative")
