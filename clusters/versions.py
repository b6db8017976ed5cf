"""What versions.toml pins, as values: versions of software, names and digests of images."""

import functools
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clusters.errors import UserError

VERSIONS_FILE = Path(__file__).parent / "versions.toml"
# RFC 6761 reserves the domain: no node can reach it except through the local mirror.
OWN_HOST = "faasmesh.test"

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_REFERENCE = re.compile(r"(?P<host>[a-z0-9.-]+\.[a-z0-9-]+(?::\d+)?)/(?P<repository>[a-z0-9._/-]+):(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})")


@dataclass(frozen=True)
class Reference:
    """An image's full name; `repository` is what is left on a mirror once the host is dropped."""

    host: str
    repository: str
    tag: str

    @classmethod
    def parse(cls, text: str) -> "Reference":
        """Read `host/repository:tag`; every part is required, because nothing here is "latest".

        Raises:
            ValueError: a part is missing or malformed.

        """
        match = _REFERENCE.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is not host/repository:tag")
        return cls(match["host"], match["repository"], match["tag"])

    @property
    def own(self) -> bool:
        """Tell whether the image exists nowhere but here, so that no origin can pull it."""
        return self.host == OWN_HOST

    def __str__(self) -> str:
        return f"{self.host}/{self.repository}:{self.tag}"


@dataclass(frozen=True)
class ImagePin:
    """One image: the name manifests use, and what the published origin pulls instead of building it.

    `digest` is empty where the published origin has not been exercised.
    """

    name: str
    upstream: Reference
    published: Reference
    digest: str = ""

    def published_reference(self, *, allow_unpinned: bool = False) -> str:
        """Return what to pull from upstream: by digest, or by tag when told that this will do.

        Raises:
            UserError: the image is not pinned.

        """
        if self.digest:
            return f"{self.published.host}/{self.published.repository}@{self.digest}"
        if allow_unpinned:
            return str(self.published)
        raise UserError(
            f"image {self.name}", expected="a digest in clusters/versions.toml", seen="none: its published origin has not been exercised",
            hint="use --images=source, fill in the digest, or accept a moving tag with --allow-unpinned",
        )


@dataclass(frozen=True)
class IstioPin:
    """An Istio release and the Go module version of the same commit (Istio tags no module)."""

    version: str
    module: str

    @property
    def revision(self) -> str:
        """The commit, as Istio's own version command shows it."""
        return self.module.rsplit("-", 1)[-1]


@dataclass(frozen=True)
class Versions:
    """All of versions.toml; `software` maps a name to a version, `wheels` a wheel to its allowed digests."""

    go: str
    envoy: str
    node: str
    lambda_node: str
    lambda_rie: str
    debian: str
    istio: IstioPin
    software: Mapping[str, str]
    wheels: Mapping[str, tuple[str, ...]]
    images: Mapping[str, ImagePin]

    @property
    def kubernetes(self) -> str:
        """Kubernetes, with its leading v."""
        return self.software["kubernetes"]


def load(file: Path = VERSIONS_FILE) -> Versions:
    """Read and check a versions file.

    Raises:
        UserError: a key is missing or unknown, a name is not host/repository:tag, a digest is not sha256.

    """
    try:
        return _parse(tomllib.loads(file.read_text()))
    except (KeyError, ValueError, TypeError) as error:
        said = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise UserError(file.name, expected="a complete, well-formed versions file", seen=said, hint="compare it with the version in git") from error


@functools.cache
def versions() -> Versions:
    """Return this checkout's versions."""
    return load()


def _parse(told: Mapping[str, Any]) -> Versions:
    toolchain, istio = told["toolchain"], told["istio"]
    software = dict(told["software"])
    names = {**software, "istio": istio["version"], "debian": toolchain["debian"], "go": toolchain["go"]}
    images = {name: _parse_image(name, entry, names) for name, entry in told["images"].items()}
    taken: dict[tuple[str, str], str] = {}
    for name, pin in images.items():
        # A mirror drops the host: two images with one path would answer for each other.
        other = taken.setdefault((pin.upstream.repository, pin.upstream.tag), name)
        if other != name:
            raise ValueError(f"images {other} and {name} share {pin.upstream.repository}:{pin.upstream.tag} on the mirror")
    wheels = {name: tuple(digests) for name, digests in told["wheels"].items()}
    for digest in (digest for digests in wheels.values() for digest in digests):
        _check_digest(digest)
    return Versions(
        go=toolchain["go"], envoy=toolchain["envoy"], node=toolchain["node"], lambda_node=toolchain["lambda-node"],
        lambda_rie=toolchain["lambda-rie"], debian=toolchain["debian"], istio=IstioPin(istio["version"], istio["module"]),
        software=software, wheels=wheels, images=images,
    )


def _parse_image(name: str, entry: Mapping[str, str], names: Mapping[str, str]) -> ImagePin:
    if unknown := entry.keys() - {"upstream", "published", "digest"}:
        raise ValueError(f"images.{name} has unknown key {min(unknown)}")
    upstream = Reference.parse(entry["upstream"].format_map(names))
    published = Reference.parse(entry.get("published", entry["upstream"]).format_map(names))
    digest = entry.get("digest", "")
    if digest:
        _check_digest(digest)
    if upstream.own and entry.keys() - {"upstream"}:
        raise ValueError(f"images.{name} is our own: it has neither a published name nor a digest")
    if not upstream.own and "digest" not in entry:
        raise KeyError(f"images.{name}.digest")
    return ImagePin(name, upstream, published, digest)


def _check_digest(digest: str) -> None:
    if not _DIGEST.fullmatch(digest):
        raise ValueError(f"{digest!r} is not sha256:<64 hex digits>")
