"""The one door to images for everything else: what they are called, where nodes find them, and the tools that come with them."""

import functools
from collections.abc import Iterable
from pathlib import Path

from clusters import progress
from clusters.errors import UserError
from clusters.images.builder import Builder
from clusters.images.cache import Cache, ImageRecord
from clusters.images.catalogue import Image, gomod
from clusters.images.origins import Origin, resolve_origin
from clusters.images.registry import NETWORK, Registry, docker_client, push_as, write_mirror_config
from clusters.versions import Versions
from clusters.versions import versions as pinned

_NODE = "node"


class ImageStore:
    """Images of one origin. Everything is made when first asked for, and found again when asked for again."""

    def __init__(
        self, origin: str = "auto", *, cache: Cache | None = None, versions: Versions | None = None, jobs: int = 1, allow_unpinned: bool = False,
    ) -> None:
        self.cache = cache or Cache.default()
        self.versions = versions or pinned()
        self.builder = Builder.of(self.cache, self.versions)
        self.jobs = jobs
        self.allow_unpinned = allow_unpinned
        self._option = origin

    @functools.cached_property
    def origin(self) -> Origin:
        """Where upstream's images come from; asked once."""
        return resolve_origin(self._option, self.versions)

    @property
    def network(self) -> str:
        """Name of the Docker network that nodes and registry share."""
        return NETWORK

    def ensure(self, *wanted: str, programs: Iterable[str] = ()) -> list[ImageRecord]:
        """Have every image of the given names and groups ready to be pulled by a node, and the programs ready to run.

        In the published origin only our own images are built; upstream's must be pinned.

        Raises:
            UserError: a name is unknown, an image is not pinned, or a build failed.

        """
        images = self.builder.catalogue.select(wanted)
        for image in images:
            if not self._built_here(image) and not image.baked:
                self.versions.images[image.name].published_reference(allow_unpinned=self.allow_unpinned)
        return self.builder.build([image.name for image in images if self._built_here(image)], programs=programs, jobs=self.jobs)

    def push(self, prefix: str) -> list[str]:
        """Push the workload images below `prefix`, where an existing cluster can pull them; return their names there.

        Raises:
            UserError: an image cannot be built, or the registry behind `prefix` refused it.

        """
        self.ensure("workloads")
        registry = self.registry()
        pushed = []
        with docker_client() as client:
            for image in self.builder.catalogue.select(["workloads"]):
                remote = f"{prefix.rstrip('/')}/{image.name}"
                with progress.step(f"push {remote}:{image.reference.tag}") as step:
                    local = self.builder.image_id(client, image.name, registry)
                    digest = push_as(client, local, remote, image.reference.tag, what=f"push of {remote}", step=step)
                pushed.append(f"{remote}:{image.reference.tag}@{digest}")
        return pushed

    def reference(self, name: str) -> str:
        """Return the name by which a manifest or `kind` asks for an image: the same in both origins, save for the published pin."""
        pin = self.versions.images[self.builder.catalogue.image(name).name]
        if self._built_here(self.builder.catalogue.image(name)):
            return str(pin.upstream)
        return pin.published_reference(allow_unpinned=self.allow_unpinned)

    def pinned_reference(self, name: str) -> str:
        """Return an image's name with the digest of its content, so that a kept node never runs yesterday's.

        Raises:
            UserError: the image cannot be built, or upstream's is not pinned.

        """
        if not self._built_here(self.builder.catalogue.image(name)):
            return self.reference(name)
        # Not by `ensure`: a group may bear the name of one of its images.
        (record,) = self.builder.build([name], jobs=self.jobs)
        return f"{record.reference}@{record.digest}"

    def local_reference(self, name: str) -> str:
        """Return the name under which this machine's Docker has an image of ours, the image being there.

        Raises:
            UserError: it cannot be built, or Docker does not run.

        """
        self.ensure(name)
        registry = self.registry()
        with docker_client() as client:
            self.builder.image_id(client, name, registry)
        return self.builder.local_name(name)

    def node_reference(self) -> str:
        """Return the node image's name in Docker, the image being there.

        Raises:
            UserError: it cannot be built or pulled.

        """
        return self._node

    @functools.cached_property
    def _node(self) -> str:
        if self.origin is Origin.PUBLISHED:
            reference = self.versions.images[_NODE].published_reference(allow_unpinned=self.allow_unpinned)
            with docker_client() as client:
                if not client.images.list(name=reference):
                    with progress.step(f"docker pull {reference}"):
                        client.images.pull(reference)
            return reference
        return self.local_reference(_NODE)

    def registry(self) -> Registry:
        """Return the running local registry, started or made anew when it is not there.

        Raises:
            UserError: Docker does not run or refuses.

        """
        self.ensure("registry")
        with docker_client() as client:
            return self.builder.start_registry(client)

    def mirror_folder(self) -> Path:
        """Return the folder to mount at /etc/containerd/certs.d in every node, the registry it names running."""
        return write_mirror_config(self.cache.root / "mirrors" / self.origin, self.registry(), origin=self.origin)

    def tool(self, name: str) -> Path:
        """Return a program of the set of the same name, built when it is missing: `kind`, `istioctl`.

        Raises:
            UserError: there is no such program, or it cannot be built.

        """
        return self.program(name, name)

    def program(self, set_name: str, file: str) -> Path:
        """Return one file of a program set, built when it is missing.

        Raises:
            UserError: there is no such program, or it cannot be built.

        """
        if set_name not in self.builder.catalogue.programs:
            raise UserError(f"program {set_name}", expected="to be in the catalogue", seen="nothing of that name",
                            hint=f"one of {', '.join(self.builder.catalogue.programs)}")
        self.builder.build([], programs=[set_name], jobs=self.jobs)
        return self.builder.program_folder(set_name) / file

    def module_folder(self, set_name: str, module: str) -> Path:
        """Return the files of a Go module at the version that a set locks: manifests and charts that upstream ships.

        Raises:
            UserError: it cannot be downloaded, or is not the one that was locked.

        """
        return self.builder.toolchain.module_folder(gomod(set_name), module)

    def _built_here(self, image: Image) -> bool:
        return image.reference.own or self.origin is Origin.SOURCE
