"""The shape of the code: which way imports run, and what must not occur in it."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LAYERS = ("clusters", "workloads", "suites")
# Written apart, so that this file does not break its own rule.
REGISTRIES = [
    "pypi" + ".org", "pythonhosted" + ".org", "registry.npmjs" + ".org", "rubygems" + ".org",
    "proxy.golang" + ".org", "sum.golang" + ".org", "repo.maven.apache" + ".org", "repo1.maven" + ".org", "deb.debian" + ".org",
]  # fmt: skip


def sources() -> list[Path]:
    return sorted(path for layer in LAYERS for path in (ROOT / layer).rglob("*.py") if "__pycache__" not in path.parts)


def texts() -> list[Path]:
    """Every file a person wrote; sums and binaries are not."""
    kept = {".py", ".go", ".toml", ".yaml", ".yml", ".md", ".sh", ".j2", ".json", ".mod", ""}
    return sorted(
        path
        for layer in LAYERS
        for path in (ROOT / layer).rglob("*")
        if path.is_file() and path.suffix in kept and "__pycache__" not in path.parts
    )


def imports(tree: ast.AST, package: str = "") -> Iterator[str]:
    """Yield the dotted name of everything imported, `from x import y` as both `x` and `x.y`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(filter(None, [".".join(package.split(".")[: -node.level or None]) if node.level else "", node.module or ""]))
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def against_the_arrow(layer: str, names: Iterator[str]) -> list[str]:
    above = LAYERS[LAYERS.index(layer) + 1 :]
    return [name for name in names if name.split(".")[0] in above]


def of_tests(names: Iterator[str]) -> list[str]:
    return [name for name in names if any(part.startswith("test_") or part == "conftest" for part in name.split("."))]


def sleeps(tree: ast.AST) -> list[int]:
    return [
        node.lineno
        for node in ast.walk(tree)
        if (isinstance(node, ast.Attribute) and node.attr == "sleep" and isinstance(node.value, ast.Name) and node.value.id == "time")
        or (isinstance(node, ast.ImportFrom) and node.module == "time" and any(alias.name == "sleep" for alias in node.names))
    ]


def shells(tree: ast.AST) -> list[int]:
    """Find calls with a `shell` other than False, and the functions that are shells by themselves."""
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        shell = next((word.value for word in node.keywords if word.arg == "shell"), None)
        if shell is not None and not (isinstance(shell, ast.Constant) and shell.value is False):
            found.append(node.lineno)
        if isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name):
            called = f"{node.func.value.id}.{node.func.attr}"
            if called in {"os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"}:
                found.append(node.lineno)
    return found


def each_source() -> pytest.MarkDecorator:
    return pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))


def package_of(path: Path) -> str:
    """Return the dotted package that relative imports in `path` start from."""
    return ".".join([*path.relative_to(ROOT).parent.parts, "_"])


@each_source()
def test_imports_run_one_way(path: Path) -> None:
    layer = path.relative_to(ROOT).parts[0]

    assert against_the_arrow(layer, imports(ast.parse(path.read_text()), package_of(path))) == []


@each_source()
def test_nothing_imports_a_test(path: Path) -> None:
    assert of_tests(imports(ast.parse(path.read_text()), package_of(path))) == []


@each_source()
def test_only_waiting_sleeps(path: Path) -> None:
    # The one that waits, and a function that is slow where it is asked to be.
    if path in {ROOT / "clusters" / "waiting.py", ROOT / "workloads" / "observed_python" / "app" / "observed.py"}:
        assert len(sleeps(ast.parse(path.read_text()))) == 1
    else:
        assert sleeps(ast.parse(path.read_text())) == []


@each_source()
def test_no_command_goes_through_a_shell(path: Path) -> None:
    assert shells(ast.parse(path.read_text())) == []


@each_source()
def test_locust_is_never_imported(path: Path) -> None:
    # A locustfile is run by Locust's own process.
    allowed = ["locust"] if path.name == "locustfile.py" else []
    found = {name.split(".")[0] for name in imports(ast.parse(path.read_text()))}

    assert [name for name in found if name == "locust"] == allowed


def test_no_file_names_a_package_registry() -> None:
    pattern = re.compile("|".join(re.escape(host) for host in REGISTRIES))

    assert [str(path.relative_to(ROOT)) for path in texts() if pattern.search(path.read_text(errors="replace"))] == []


def test_the_walk_sees_the_code() -> None:
    seen = {str(path.relative_to(ROOT)) for path in sources()}

    assert {"clusters/waiting.py", "workloads/__init__.py", "suites/selftest/test_imports.py"} <= seen


@pytest.mark.parametrize(
    ("rule", "code"),
    [
        (lambda tree: against_the_arrow("clusters", imports(tree)), "import workloads.greeter"),
        (lambda tree: against_the_arrow("clusters", imports(tree)), "from suites.support import judges"),
        (lambda tree: against_the_arrow("workloads", imports(tree)), "def f():\n    from suites import support"),
        (lambda tree: of_tests(imports(tree)), "from suites.routing.test_split import judge"),
        (lambda tree: of_tests(imports(tree, "suites.routing._")), "from . import test_split"),
        (lambda tree: of_tests(imports(tree)), "import conftest"),
        (sleeps, "import time\ntime.sleep(1)"),
        (sleeps, "from time import sleep"),
        (sleeps, "import time\nnap = time.sleep"),
        (shells, "subprocess.run('ls', shell=True)"),
        (shells, "subprocess.run('ls', shell=flag)"),
        (shells, "os.system('ls')"),
    ],
    ids=[
        "upwards",
        "two up",
        "inside a function",
        "a test",
        "a test beside",
        "conftest",
        "sleep",
        "from time",
        "alias",
        "shell",
        "maybe",
        "system",
    ],
)
def test_each_rule_catches_what_it_is_for(rule, code) -> None:
    assert rule(ast.parse(code))
