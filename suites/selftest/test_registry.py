"""The local registry: what it is to Docker, and what nodes are told about it, on a Docker that is made up."""

import tomllib
from types import SimpleNamespace

import docker
import pytest

from clusters.errors import UserError
from clusters.images import registry as registries
from clusters.images.cache import Cache
from clusters.images.registry import Registry, container_name, ensure_network, ensure_registry, push, remove_registry, write_mirror_config
from clusters.versions import Reference

IMAGE = "sha256:aaaa"


class Container:
    """What the registry's code may ask of a container."""

    def __init__(self, engine, name, *, image=IMAGE, labels=None, status="created"):
        self.engine, self.name, self.labels, self.status = engine, name, labels or {}, status
        self.attrs = {"Image": image, "NetworkSettings": {"Ports": {}}}

    def start(self):
        self.status = "running"
        self.attrs["NetworkSettings"]["Ports"] = {"5000/tcp": [{"HostIp": "127.0.0.1", "HostPort": "40001"}]}

    def reload(self):
        pass

    def remove(self, *, force):
        assert force
        del self.engine.kept[self.name]
        self.engine.removed.append(self.name)


class Engine:
    """A Docker with named containers and networks."""

    def __init__(self):
        self.kept, self.removed, self.made = {}, [], []
        self.names = []
        self.containers = SimpleNamespace(get=self._get, create=self._create, list=lambda **_: list(self.kept.values()))
        self.networks = SimpleNamespace(list=lambda **_: [SimpleNamespace(remove=self.names.clear) for _ in self.names],
                                        create=lambda name, **_: self.names.append(name))

    def _get(self, name):
        if name not in self.kept:
            raise docker.errors.NotFound(name)
        return self.kept[name]

    def _create(self, image, *, name, labels, **options):
        self.made.append(options)
        self.kept[name] = Container(self, name, image=image, labels=labels)
        return self.kept[name]


@pytest.fixture
def engine():
    return Engine()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(registries, "_await_answer", lambda *_: None)
    return Cache(tmp_path / "cache")


def test_a_missing_registry_is_started_on_a_port_that_docker_chooses(engine, cache):
    registry = ensure_registry(engine, cache, IMAGE)

    assert registry.push_address == "127.0.0.1:40001"
    assert registry.in_network_address == f"http://{container_name(cache)}:5000"
    (options,) = engine.made
    assert options["ports"] == {"5000/tcp": ("127.0.0.1", None)}
    assert options["volumes"][str(cache.registry)]["bind"] == "/var/lib/registry"
    assert engine.names == ["faasmesh"]


def test_a_running_registry_is_used_as_it_is(engine, cache):
    first = ensure_registry(engine, cache, IMAGE)

    assert ensure_registry(engine, cache, IMAGE) == first
    assert engine.removed == []


@pytest.mark.parametrize("change", ["stopped", "removed", "another image", "storage deleted", "storage made anew"])
def test_a_registry_that_does_not_serve_the_cache_is_made_anew(engine, cache, change):
    ensure_registry(engine, cache, IMAGE)
    container = engine.kept[container_name(cache)]

    match change:
        case "stopped":
            container.status = "exited"
        case "removed":
            container.remove(force=True)
        case "another image":
            container.attrs["Image"] = "sha256:bbbb"
        case "storage deleted":
            cache.registry.rename(cache.root / "elsewhere")
        case "storage made anew":
            cache.registry.rename(cache.root / "elsewhere")
            cache.registry.mkdir()

    assert ensure_registry(engine, cache, IMAGE).push_address == "127.0.0.1:40001"
    assert engine.removed == [container_name(cache)]
    assert len(engine.made) == 2


def test_somebody_else_s_container_is_never_removed(engine, cache):
    engine.kept[container_name(cache)] = Container(engine, container_name(cache), status="running")

    with pytest.raises(UserError, match="a container that was not started by faasmesh; hint: rename or remove it"):
        ensure_registry(engine, cache, IMAGE)
    with pytest.raises(UserError, match="not started by faasmesh"):
        remove_registry(engine, cache)
    assert engine.removed == []


def test_two_caches_have_two_registries(tmp_path):
    assert container_name(Cache(tmp_path / "a")) != container_name(Cache(tmp_path / "b"))


def test_the_cache_at_its_usual_place_has_the_plain_name(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))

    assert container_name(Cache(tmp_path / ".cache" / "faasmesh")) == "faasmesh-registry"


def test_the_network_is_made_once(engine):
    ensure_network(engine)
    ensure_network(engine)

    assert engine.names == ["faasmesh"]


def test_removing_the_registry_leaves_the_network_to_a_stopped_node(engine, cache):
    ensure_registry(engine, cache, IMAGE)
    engine.kept["faasmesh-control-plane"] = Container(engine, "faasmesh-control-plane", status="exited")

    assert remove_registry(engine, cache)
    assert engine.names == ["faasmesh"]

    del engine.kept["faasmesh-control-plane"]
    assert not remove_registry(engine, cache)
    assert engine.names == []


class Api:
    """Docker's push, telling what it is told to tell."""

    def __init__(self, told):
        self.told, self.tags, self.untagged = told, [], []

    def tag(self, image, remote, tag):
        self.tags.append((image, remote, tag))

    def push(self, _remote, **_):
        return iter(self.told)

    def remove_image(self, name, **_):
        self.untagged.append(name)


REFERENCE = Reference.parse("registry.k8s.io/coredns/coredns:v1")
STEP = SimpleNamespace(update=lambda _: None)


def pushed(*told):
    api = Api(told)
    return api, lambda: push(SimpleNamespace(api=api), Registry("127.0.0.1:40001"), local="l", reference=REFERENCE, step=STEP)


def test_an_image_is_pushed_under_the_path_that_a_mirror_is_asked_for():
    api, go = pushed({"status": "Pushed"}, {"aux": {"Digest": "sha256:d"}})

    assert go() == "sha256:d"
    assert api.tags == [("l", "127.0.0.1:40001/coredns/coredns", "v1")]
    assert api.untagged == ["127.0.0.1:40001/coredns/coredns:v1"]


@pytest.mark.parametrize(
    ("told", "said"),
    [({"error": "received unexpected HTTP status: 500 Internal Server Error"}, "500 Internal Server Error"),
     ({"error": "write /var/lib/registry/x: no space left on device"}, "expected room on the disk"), ({"status": "Pushed"}, "expected a digest")],
)
def test_a_registry_that_says_no_is_one_clear_line_and_leaves_no_name_behind(told, said):
    api, go = pushed(told)

    with pytest.raises(UserError, match=rf"push of {REFERENCE}: .*{said}|push of {REFERENCE}: {said}"):
        go()
    assert len(api.untagged) == 1


def test_in_the_source_origin_the_mirror_is_all_there_is(tmp_path):
    write_mirror_config(tmp_path, Registry("127.0.0.1:1", "r"), origin="source")

    hosts = {folder.name: tomllib.loads((folder / "hosts.toml").read_text()) for folder in tmp_path.iterdir()}
    assert hosts.keys() == {"docker.io", "registry.k8s.io", "ghcr.io", "gcr.io", "quay.io", "faasmesh.test"}
    assert hosts["docker.io"] == {"server": "http://r:5000", "host": {"http://r:5000": {"capabilities": ["pull", "resolve"]}}}


def test_in_the_published_origin_the_mirror_serves_only_our_own(tmp_path):
    write_mirror_config(tmp_path, Registry("127.0.0.1:1"), origin="source")
    write_mirror_config(tmp_path, Registry("127.0.0.1:1"), origin="published")

    assert [folder.name for folder in tmp_path.iterdir()] == ["faasmesh.test"]


def test_no_docker_is_one_clear_line(monkeypatch):
    def refuse(**_):
        raise docker.errors.DockerException("Error while fetching server API version: ('Connection aborted.', FileNotFoundError(2))")

    monkeypatch.setattr(docker, "from_env", refuse)

    with pytest.raises(UserError, match="docker: expected a running daemon, seen Error while fetching"), registries.docker_client():
        pass
