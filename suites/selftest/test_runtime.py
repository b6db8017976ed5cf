"""The runtime wrapper's sources: the standard library only, built once per content, replaced whole."""

import re
import shutil
from pathlib import Path

import pytest

from clusters import engine
from clusters.errors import UserError
from clusters.images import process
from clusters.images.toolchain import Toolchain
from clusters.versions import versions

IMPORT_BLOCK = re.compile(r'^import (?:\((?P<block>.*?)^\)|(?P<one>"[^"]+"))', re.MULTILINE | re.DOTALL)


@pytest.fixture
def compiler(tmp_path, monkeypatch):
    """A Go that writes its call down instead of compiling; its exit code can be set."""
    calls: list[list[str]] = []
    answer = {"code": 0}

    def compiled(argv, **_kwargs):
        calls.append(argv)
        Path(argv[argv.index("-o") + 1]).write_text("binary" if answer["code"] == 0 else "half")
        return process.Finished(answer["code"], "main.go:1: expected 'package'\n")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(process, "run", compiled)
    monkeypatch.setattr(Toolchain, "go_binary", lambda _self: tmp_path / "go")
    sources = tmp_path / "runtime"
    shutil.copytree(engine.SOURCES, sources)
    monkeypatch.setattr(engine, "SOURCES", sources)
    answer["calls"] = calls
    return answer


def quiet(_text: str) -> None:
    pass


def test_the_wrapper_needs_nothing_but_the_standard_library():
    for source in engine.SOURCES.glob("*.go"):
        imports = [name for match in IMPORT_BLOCK.finditer(source.read_text()) for name in re.findall(r'"([^"]+)"', match[0])]
        assert imports
        assert [name for name in imports if "." in name] == []
    assert "require" not in (engine.SOURCES / "go.mod").read_text()


def test_the_wrapper_is_written_for_the_pinned_go():
    assert f"\ngo {versions().go}\n" in (engine.SOURCES / "go.mod").read_text()


def test_one_content_is_built_once(compiler):
    first = engine.build_runtime(quiet)
    second = engine.build_runtime(quiet)

    assert first == second == engine.runtime_path()
    assert first.read_text() == "binary"
    assert len(compiler["calls"]) == 1


def test_a_changed_source_is_built_again_and_a_changed_test_is_not(compiler):
    engine.build_runtime(quiet)
    with (engine.SOURCES / "bound_test.go").open("a") as tests:
        tests.write("// more\n")
    engine.build_runtime(quiet)
    assert len(compiler["calls"]) == 1

    with (engine.SOURCES / "bound.go").open("a") as source:
        source.write("// more\n")
    engine.build_runtime(quiet)
    assert len(compiler["calls"]) == 2


def test_a_build_that_failed_leaves_the_last_good_one(compiler):
    built = engine.build_runtime(quiet)
    (engine.SOURCES / "bound.go").write_text("broken")
    compiler["code"] = 1

    with pytest.raises(UserError, match="expected 'package'"):
        engine.build_runtime(quiet)

    assert built.read_text() == "binary"


def test_every_source_keys_the_build_and_the_compiler_does_too():
    assert engine._source_key("1.26.6") == engine._source_key("1.26.6")
    assert engine._source_key("1.26.6") != engine._source_key("1.27.3")
