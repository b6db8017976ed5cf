"""Building images: contexts assembled from their inputs, built by Docker, pushed to the local registry, recorded."""

import contextlib
import datetime as dt
import io
import re
import tarfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import docker.errors
import requests
from docker import DockerClient

from clusters import progress
from clusters.errors import UserError
from clusters.images import graph, process
from clusters.images.cache import Cache, ImageRecord, alive, process_mark, sealed
from clusters.images.catalogue import Binary, Catalogue, GemSet, Image, MavenSet, ModuleFiles, WheelSet, catalogue, gomod
from clusters.images.debian import build_base, proxy_environment
from clusters.images.failures import docker_missing, explain, explain_os_error, require_space
from clusters.images.keys import Keys, context_files
from clusters.images.locked import locked_gems, maven_set
from clusters.images.registry import Registry, docker_client, ensure_registry, pull, push
from clusters.images.storage import RegistryStorage
from clusters.images.toolchain import BUILDER_LABEL, GoSet, Toolchain
from clusters.versions import Versions

_BOOTSTRAP = ("base", "registry")
# Beside the Go sets' own needs: one image's context, its copy in Docker, and its compressed layers.
_SPARE_GIB = 2.0
_INSTRUCTION = re.compile(r"Step (\d+/\d+) : (\w+)")


@dataclass(frozen=True)
class Builder:
    """Makes what the catalogue describes, once per input."""

    cache: Cache
    versions: Versions
    catalogue: Catalogue
    toolchain: Toolchain
    keys: Keys
    storage: RegistryStorage

    @classmethod
    def of(cls, cache: Cache, versions: Versions) -> "Builder":
        """Put a builder together for one cache and one set of versions."""
        described = catalogue(versions)
        toolchain = Toolchain(cache, versions)
        return cls(cache, versions, described, toolchain, Keys(described, versions, toolchain), RegistryStorage(cache.registry))

    def built(self, name: str) -> ImageRecord | None:
        """Return the record of an image whose every blob is there, its tag pointed at it; None when it must be built."""
        record = self.cache.read_record(name, self.keys.image(name))
        if record is None or not self.storage.holds(record):
            return None
        if name == "registry" and not self.bootstrap_file(name).exists():
            return None
        if not self.storage.tagged(record):
            self.storage.retag(record)
        return record

    def local_name(self, name: str) -> str:
        """Return the name under which Docker has an image; the key in it keeps other checkouts' images apart."""
        reference = self.catalogue.image(name).reference
        return f"faasmesh.local/{reference.repository}:{reference.tag}-{self.keys.image(name)}"

    def build(self, names: Iterable[str], *, programs: Iterable[str] = (), jobs: int = 1) -> list[ImageRecord]:
        """Build what is missing of the named images and programs; return the images' records, in the catalogue's order.

        When nothing is missing, neither Docker nor the network is touched. `jobs` Go builds run at once.

        Raises:
            UserError: one clear line about the first thing that failed; what was finished before is kept.

        """
        wanted = [self.catalogue.image(name) for name in names]
        missing = [image for image in wanted if self.built(image.name) is None]
        loose = [name for name in programs if not self._program_ready(name)]
        if missing or loose:
            self.cache.sweep()
            try:
                with self._client(missing, loose) as client:
                    sweep_containers(client)
                    graph.run(
                        list(_Plan(self, client).tasks(missing, loose)), {"download": 1, "compile": jobs, "docker": 2, "registry": 1},
                    )
            except OSError as error:
                raise explain_os_error("image build", error) from error
        records = [self.built(image.name) for image in wanted]
        return [record for record in records if record is not None]

    def program_folder(self, name: str) -> Path:
        """Return where a program's binaries are or will be."""
        program = self.catalogue.programs[name]
        return self.toolchain.program_folder(program, builder_key=self.keys.image("builder") if program.cgo else "")

    def start_registry(self, client: DockerClient) -> Registry:
        """Return the running local registry, its own image taken from the bootstrap file when Docker has lost it.

        Raises:
            UserError: the image was never built, or Docker refuses.

        """
        return ensure_registry(client, self.cache, self.image_id(client, "registry", registry=None))

    def image_id(self, client: DockerClient, name: str, registry: Registry | None) -> str:
        """Return the id of an image in Docker, brought there from the bootstrap file or the registry when absent.

        Raises:
            UserError: the image is nowhere.

        """
        local = self.local_name(name)
        if found := _local_id(client, local):
            return found
        saved = self.bootstrap_file(name)
        if saved.exists():
            with progress.step(f"docker load {name}"), saved.open("rb") as stream:
                client.images.load(stream)
        elif registry and (record := self.built(name)):
            with progress.step(f"docker pull {name}"):
                pull(client, registry, record, local)
        found = _local_id(client, local)
        if found is None:
            raise UserError(f"image {name}", expected="to have been built", seen="no record of it", hint="python -m clusters images build")
        return found

    def bootstrap_file(self, name: str) -> Path:
        """Return where an image is saved that is needed before there is a registry."""
        return self.cache.bootstrap / f"{name}-{self.keys.image(name)}.tar"

    def _program_ready(self, name: str) -> bool:
        return sealed(self.program_folder(name))

    @contextlib.contextmanager
    def _client(self, missing: list[Image], loose: list[str]) -> Iterator[DockerClient]:
        needed = {name for image in missing for name in self.keys.programs_of(image)} | set(loose)
        scratch = sum(self.catalogue.programs[name].scratch_gib for name in needed if not self._program_ready(name))
        require_space(self.cache.root, scratch + _SPARE_GIB, what="image build")
        with docker_client() as client:
            # Docker keeps its copies elsewhere; a daemon on another machine looks after its own disk.
            if missing and (home := Path(client.info()["DockerRootDir"])).exists():
                require_space(home, _SPARE_GIB, what="image build")
            yield client


def sweep_containers(client: DockerClient) -> int:
    """Remove the compilers' containers that a killed build left behind; return how many."""
    swept = 0
    for container in client.containers.list(all=True, filters={"label": "faasmesh=build"}):
        if not alive(container.labels.get(BUILDER_LABEL, "")):
            with contextlib.suppress(docker.errors.NotFound):
                container.remove(force=True)
            swept += 1
    return swept


class _Plan:
    """One run's tasks; the registry is known to them once its task is done."""

    def __init__(self, builder: Builder, client: DockerClient) -> None:
        self.builder = builder
        self.client = client
        self.registry: Registry | None = None
        self._spent: dict[str, float] = {}

    def tasks(self, missing: list[Image], loose: list[str]) -> Iterator[graph.Task]:
        """Yield what is to be done, in the order in which it should be begun where there is a choice."""
        builder = self.builder
        programs = dict.fromkeys([*loose, *(name for image in missing for name in builder.keys.programs_of(image))])
        open_programs = [name for name in programs if not builder._program_ready(name)]  # noqa: SLF001  # one module
        extra = [builder.catalogue.image("registry")]
        if any(builder.catalogue.programs[name].cgo for name in open_programs):
            extra.append(builder.catalogue.image("builder"))
        images = builder.catalogue.with_parents([*extra, *missing])
        if missing or len(extra) > 1:
            yield from self._bootstrap_tasks()
        open_images = [image for image in images if image.name in _BOOTSTRAP or builder.built(image.name) is None] if missing or len(extra) > 1 else []
        for image in open_images:
            if image.name not in _BOOTSTRAP:
                yield graph.Task(
                    f"image {image.name}", "docker", lambda image=image: self._image(image),  # type: ignore[misc]
                    ("registry", *(f"image {parent}" for parent in image.parents), *(f"program {name}" for name in builder.keys.programs_of(image))),
                )
        for name in open_programs:
            program = builder.catalogue.programs[name]
            if isinstance(program, GoSet):
                yield graph.Task(f"fetch {name}", "download", lambda program=program: self._fetch(program))  # type: ignore[misc]
            yield graph.Task(
                f"program {name}", "compile", lambda name=name: self._program(name),  # type: ignore[misc]
                (f"fetch {name}", *(("registry", "image builder") if program.cgo else ())),
            )

    def _bootstrap_tasks(self) -> Iterator[graph.Task]:
        yield graph.Task("boot base", "docker", lambda: self._boot("base"))
        yield graph.Task("boot registry", "docker", lambda: self._boot("registry"), ("boot base",))
        yield graph.Task("registry", "registry", self._start, ("boot registry",))
        for name in _BOOTSTRAP:
            yield graph.Task(f"image {name}", "docker", lambda name=name: self._publish(name), ("registry",))  # type: ignore[misc]

    def _boot(self, name: str) -> None:
        """Have `base` or `registry` in Docker or on its way there, before there is a registry to push to."""
        builder = self.builder
        if _local_id(self.client, builder.local_name(name)) and (name == "base" or builder.bootstrap_file(name).exists()):
            return
        if builder.bootstrap_file(name).exists() or (name == "base" and builder.built(name) and builder.bootstrap_file("registry").exists()):
            return
        image = builder.catalogue.image(name)
        with progress.step(f"image {name}") as step, builder.cache.lock(f"{name}-{builder.keys.image(name)}", waiting=step.update):
            if _local_id(self.client, builder.local_name(name)) is None:
                self._make(image, step)
            if name == "registry":
                step.update("saving")
                self._save(name)

    def _save(self, name: str) -> None:
        file = self.builder.bootstrap_file(name)
        with self.builder.cache.scratch("save") as scratch:
            partial = scratch / file.name
            with partial.open("wb") as stream:
                for chunk in self.client.api.get_image(self.builder.local_name(name)):
                    stream.write(chunk)
            file.parent.mkdir(parents=True, exist_ok=True)
            partial.replace(file)

    def _start(self) -> None:
        self.registry = self.builder.start_registry(self.client)

    def _publish(self, name: str) -> None:
        if self.builder.built(name) is None:
            self._image(self.builder.catalogue.image(name))

    def _fetch(self, program: GoSet) -> None:
        with progress.step(f"modules of {program.name}") as step:
            self.builder.toolchain.fetch(program, step)

    def _program(self, name: str) -> None:
        builder = self.builder
        program = builder.catalogue.programs[name]
        key, image = (builder.keys.image("builder"), builder.image_id(self.client, "builder", self.registry)) if program.cgo else ("", "")
        with progress.step(f"program {name}") as step:
            builder.toolchain.build(program, step, builder_key=key, builder_image=image, fetched=True)

    def _image(self, image: Image) -> None:
        builder = self.builder
        if self.registry is None:
            raise RuntimeError("the registry's task comes first")
        key = builder.keys.image(image.name)
        with progress.step(f"image {image.name}") as step, builder.cache.lock(f"{image.name}-{key}", waiting=step.update):
            if builder.built(image.name) is not None:
                return
            try:
                local = builder.local_name(image.name)
                # A build that was killed between Docker and registry left a finished image under this very key.
                config = _local_id(self.client, local) or self._make(image, step)
                pushing = time.monotonic()
                packages = tuple(_debian_packages(self.client, config)) if _is_debian(image) else ()
                digest = push(self.client, self.registry, local=local, reference=image.reference, step=step)
                builder.cache.write_record(ImageRecord(
                    name=image.name, key=key, reference=str(image.reference), repository=image.reference.repository, tag=image.reference.tag,
                    digest=digest, config=config, blobs=builder.storage.manifest_blobs(digest), seconds=round(self._spent.get(image.name, 0.0) + time.monotonic() - pushing, 1),
                    built=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
                    inputs={name: str(value) for name, value in builder.keys.image_inputs(image).items()}, packages=packages,
                ))
                if not image.kept:
                    with contextlib.suppress(docker.errors.APIError):
                        self.client.api.remove_image(local)
            except docker.errors.APIError as error:
                raise explain(f"image {image.name}", str(error), code="docker") from error
            except requests.RequestException as error:
                raise docker_missing(error) from error
            except OSError as error:
                raise explain_os_error(f"image {image.name}", error) from error

    def _make(self, image: Image, step: progress.Step) -> str:
        """Build an image in Docker under its local name; return its id."""
        builder = self.builder
        began = time.monotonic()
        log = builder.cache.log_file(image.name, builder.keys.image(image.name))
        log.unlink(missing_ok=True)
        local = builder.local_name(image.name)
        with builder.cache.scratch(image.name) as scratch:
            if image.context is None:
                self._import_base(local, scratch, log, step)
            else:
                parents = {parent: builder.image_id(self.client, parent, self.registry) for parent in image.parents}
                step.update("assembling")
                context = scratch / "context.tar"
                self._write_context(image, image.dockerfile_from(parents), context)
                with context.open("rb") as stream:
                    self._docker_build(image, local, stream, log, step)
        found = _local_id(self.client, local)
        if found is None:
            raise UserError(f"image {image.name}", expected="an image from Docker", seen="none", hint=f"log: {log}")
        self._spent[image.name] = time.monotonic() - began
        return found

    def _import_base(self, local: str, scratch: Path, log: Path, step: progress.Step) -> None:
        root = scratch / "root.tar"
        build_base(self.builder.versions.debian, root, scratch, log, step)
        step.update("importing")
        repository, _, tag = local.rpartition(":")
        with root.open("rb") as stream:
            said = self.client.api.import_image_from_data(stream, repository=repository, tag=tag, changes=['CMD ["/bin/bash"]'])
        if "error" in said:
            raise explain("image base", said, code="docker", log=log)

    def _docker_build(self, image: Image, local: str, context: io.BufferedReader, log: Path, step: progress.Step) -> None:
        proxies = proxy_environment()
        printed: list[str] = []
        with log.open("a") as saved:
            for told in self.client.api.build(
                fileobj=context, custom_context=True, tag=local, rm=True, forcerm=True, pull=False, decode=True,
                # Docker knows these proxy arguments by itself: they reach the steps and not the image.
                buildargs={**image.build_args, **proxies}, labels={"faasmesh": "image"},
            ):
                process.go_on()
                text = str(told.get("stream") or told.get("error") or "")
                saved.write(text)
                printed.append(text)
                if instruction := _INSTRUCTION.match(text):
                    step.update(f"step {instruction[1]} {instruction[2]}")
                if "error" in told:
                    raise explain(f"image {image.name}", "".join(printed[-200:]), code="docker build", log=log)

    def _write_context(self, image: Image, dockerfile: str, target: Path) -> None:
        builder = self.builder
        files: dict[str, Path] = context_files(image)
        for wanted in image.inputs:
            if isinstance(wanted, Binary):
                files[f"{wanted.into}{wanted.file}"] = builder.program_folder(wanted.program) / wanted.file
            elif isinstance(wanted, ModuleFiles):
                files |= _module_files(builder.toolchain.module_folder(gomod(wanted.gomod), wanted.module) / wanted.base, wanted)
            elif isinstance(wanted, WheelSet):
                site = builder.toolchain.wheel_set(wanted.requirements)
                files |= {f"{wanted.into}{file.relative_to(site).as_posix()}": file for file in sorted(site.rglob("*")) if file.is_file()}
            elif isinstance(wanted, MavenSet):
                files |= {f"{wanted.into}{file.name}": file for file in maven_set(builder.cache, wanted.pom, wanted.lock).glob("*.jar")}
            elif isinstance(wanted, GemSet):
                files |= {f"{wanted.into}{wanted.lock.name}": wanted.lock, **{f"{wanted.into}{name}": file for name, file in locked_gems(wanted.lock).items()}}
            else:
                member = builder.toolchain.wheel_file(wanted.package, builder.keys.wheel_version(wanted.package), wanted.member)
                files[f"{wanted.into}{member.name}"] = member
        with tarfile.open(target, "w") as archive:
            for name, file in sorted(files.items()):
                if name == "Dockerfile":
                    continue
                with file.open("rb") as stream:
                    archive.addfile(_entry(name, file.stat().st_size, executable=bool(file.stat().st_mode & 0o100)), stream)
            content = dockerfile.encode()
            archive.addfile(_entry("Dockerfile", len(content), executable=False), io.BytesIO(content))


def _module_files(base: Path, wanted: ModuleFiles) -> dict[str, Path]:
    found = {f"{wanted.into}{file.relative_to(base).as_posix()}": file for file in sorted(base.glob(wanted.pattern)) if file.is_file()}
    if not found:
        raise UserError(f"module {wanted.module}", expected=f"files {wanted.base}/{wanted.pattern}", seen="none", hint="another version moved them")
    return found


def _entry(name: str, size: int, *, executable: bool) -> tarfile.TarInfo:
    # Owner and times of this machine would make two equal contexts differ.
    entry = tarfile.TarInfo(name)
    entry.size, entry.mtime = size, 0
    entry.mode = 0o755 if executable else 0o644
    return entry


def _local_id(client: DockerClient, local: str) -> str | None:
    try:
        return str(client.images.get(local).id)
    except docker.errors.ImageNotFound:
        return None


def _is_debian(image: Image) -> bool:
    return image.context is None or bool(image.parents)


def _debian_packages(client: DockerClient, image: str) -> Iterator[str]:
    """Yield name=version of every Debian package in an image, read without running it."""
    container = client.api.create_container(image, ["true"], labels={"faasmesh": "build", BUILDER_LABEL: process_mark()})
    try:
        chunks, _ = client.api.get_archive(container, "/var/lib/dpkg/status")
        with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as archive:
            file = archive.extractfile("status")
            status = file.read().decode() if file else ""
    finally:
        client.api.remove_container(container, force=True)
    for stanza in status.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in stanza.splitlines() if re.match(r"(Package|Version|Status): ", line))
        if fields.get("Status", "").endswith(" installed"):
            yield f"{fields['Package']}={fields['Version']}"
