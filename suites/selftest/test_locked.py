"""Artifacts of Maven and gems: what is locked is taken, anything else is refused in one line; nothing is downloaded."""

import hashlib
import shutil

import pytest

from clusters.errors import UserError
from clusters.images import locked
from clusters.images.cache import Cache
from clusters.images.catalogue import HERE, GemSet, Image, MavenSet, catalogue
from clusters.images.keys import Keys
from clusters.images.locked import GEMS, locked_gems, maven_set, read_lock
from clusters.images.toolchain import Toolchain
from clusters.versions import versions

A, B = b"the first", b"the second"


def digest(content):
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def lock(tmp_path):
    file = tmp_path / "things.sha256"
    file.write_text(f"# in this order\n{digest(B)}  b-2.gem\n{digest(A)}  a-1.gem\n")
    return file


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "cache"
    place.mkdir()
    (place / "a-1.gem").write_bytes(A)
    (place / "b-2.gem").write_bytes(B)
    (place / "c-3.gem").write_bytes(b"nobody asked for it")
    return place


def test_a_lock_keeps_its_order_and_leaves_comments_out(lock):
    assert list(read_lock(lock).items()) == [("b-2.gem", f"sha256:{digest(B)}"), ("a-1.gem", f"sha256:{digest(A)}")]


@pytest.mark.parametrize("text", ["", "# only a comment\n", "abc  a.gem\n", f"{'0' * 64} a.gem\n", f"{'0' * 64}  ../a.gem\n", f"{'0' * 64}  a.gem b.gem\n"])
def test_a_lock_of_another_form_is_refused(tmp_path, text):
    (tmp_path / "lock").write_text(text)

    with pytest.raises(UserError, match="64 hex digits"):
        read_lock(tmp_path / "lock")


def test_a_missing_lock_is_one_clear_line(tmp_path):
    with pytest.raises(UserError, match=r"lock none: .*restore it from git"):
        read_lock(tmp_path / "none")


def test_gems_are_those_of_the_list_and_no_others(lock, folder):
    assert locked_gems(lock, str(folder)) == {"b-2.gem": folder / "b-2.gem", "a-1.gem": folder / "a-1.gem"}


def test_without_a_folder_there_are_no_gems_and_the_build_fetches_them(lock, monkeypatch):
    monkeypatch.delenv(GEMS, raising=False)

    assert locked_gems(lock) == {}


def test_the_environment_names_the_folder(lock, folder, monkeypatch):
    monkeypatch.setenv(GEMS, str(folder))

    assert set(locked_gems(lock)) == {"a-1.gem", "b-2.gem"}


def test_a_folder_that_is_not_there_is_one_clear_line(lock, tmp_path):
    with pytest.raises(UserError, match=rf"{GEMS}: expected a folder .*no folder .*/nowhere; hint: .*RubyGems"):
        locked_gems(lock, str(tmp_path / "nowhere"))


def test_a_gem_that_is_missing_or_another_one_is_refused(lock, folder):
    (folder / "a-1.gem").write_bytes(b"something else")
    with pytest.raises(UserError, match=rf"a-1.gem: expected sha256:{digest(A)}.*do not use it"):
        locked_gems(lock, str(folder))
    (folder / "a-1.gem").unlink()
    with pytest.raises(UserError, match=r"expected a-1.gem in .*no such file"):
        locked_gems(lock, str(folder))


def test_gems_decide_an_image_s_key_and_where_they_come_from_does_not(lock, folder, monkeypatch, tmp_path):
    context = tmp_path / "image"
    context.mkdir()
    (context / "Dockerfile").write_text("FROM scratch\n")

    def key():
        image = Image("x", versions().images["fluentd"].upstream, (), context, (GemSet(lock),))
        return Keys(catalogue(versions()), versions(), Toolchain(Cache(tmp_path), versions())).image_inputs(image)

    monkeypatch.delenv(GEMS, raising=False)
    fetched = key()
    monkeypatch.setenv(GEMS, str(folder))
    assert key() == fetched
    lock.write_text(lock.read_text().replace(digest(A), digest(b"another")))
    assert key() != fetched


class Maven:
    """An mvn that brings what it is told to, or fails."""

    def __init__(self, monkeypatch, brings=None, said=""):
        self.calls = 0
        self.brings = brings
        self.said = said
        monkeypatch.setattr(locked.process, "run", self.run)
        monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")

    def run(self, argv, *, env, cwd, log):
        del env, cwd, log
        self.calls += 1
        (out,) = [word.removeprefix("-DoutputDirectory=") for word in argv if word.startswith("-DoutputDirectory=")]
        for name, content in (self.brings or {}).items():
            target = locked.Path(out) / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        return locked.process.Finished(1 if self.brings is None else 0, self.said)


@pytest.fixture
def project(tmp_path):
    folder = tmp_path / "thing"
    folder.mkdir()
    (folder / "pom.xml").write_text("<project/>")
    (folder / "artifacts.sha256").write_text(f"{digest(A)}  a.jar\n")
    return MavenSet(folder / "pom.xml", folder / "artifacts.sha256")


def test_artifacts_are_brought_once(tmp_path, project, monkeypatch):
    maven = Maven(monkeypatch, {"a.jar": A})
    cache = Cache(tmp_path / "cache")

    first, second = (maven_set(cache, project.pom, project.lock) for _ in range(2))

    assert first == second
    assert maven.calls == 1
    assert (first / "a.jar").read_bytes() == A


@pytest.mark.parametrize(("brings", "said"), [
    ({"a.jar": B}, "do not use it"), ({}, "expected a.jar"), ({"a.jar": A, "b.jar": B}, r"no more than artifacts.sha256 lists, seen b.jar"),
])
def test_artifacts_that_are_not_the_locked_ones_are_refused(tmp_path, project, monkeypatch, brings, said):
    Maven(monkeypatch, brings)
    cache = Cache(tmp_path / "cache")

    with pytest.raises(UserError, match=said):
        maven_set(cache, project.pom, project.lock)
    assert not list(cache.artifacts.glob("*"))


def test_a_maven_that_fails_is_one_clear_line(tmp_path, project, monkeypatch):
    Maven(monkeypatch, None, "[ERROR] Could not transfer artifact x: Connection refused\n")

    with pytest.raises(UserError, match=r"artifacts of thing: expected the package registry to answer.*log: "):
        maven_set(Cache(tmp_path / "cache"), project.pom, project.lock)


def test_without_maven_and_without_the_right_to_install_it_the_person_is_told(tmp_path, project, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda _: None)

    with pytest.raises(UserError, match=r"maven: expected mvn to be installed.*apt-get install maven"):
        maven_set(Cache(tmp_path / "cache"), project.pom, project.lock)


def test_the_lists_of_this_checkout_are_well_formed():
    assert len(read_lock(HERE / "fluentd" / "gems.sha256")) > 50
    assert all(name.endswith(".jar") for name in read_lock(HERE / "store" / "artifacts.sha256"))
