"""The rules of the house that a machine can read off the source."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import edgelm

ROOT = Path(__file__).resolve().parents[1]
FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef
IMPORTERS = {"importlib.import_module", "import_module", "__import__"}


def _parse(folder: str) -> dict[str, ast.Module]:
    """Every module under ``folder`` by its path from the root."""
    paths = sorted((ROOT / folder).rglob("*.py"))
    return {p.relative_to(ROOT).as_posix(): ast.parse(p.read_bytes(), filename=str(p)) for p in paths}


EDGELM, TOOLS, TESTS = _parse("edgelm"), _parse("tools"), _parse("tests")
EVERYWHERE = EDGELM | TOOLS | TESTS


def _functions(tree: ast.Module) -> Iterator[FunctionNode]:
    return (node for node in ast.walk(tree) if isinstance(node, FunctionNode))


def parameters(function: FunctionNode) -> list[str]:
    a = function.args
    names = [arg.arg for arg in (*a.posonlyargs, *a.args, a.vararg, *a.kwonlyargs, a.kwarg) if arg is not None]
    return [name for name in names if name not in ("self", "cls")]


def _is_public(name: str) -> bool:
    return name == "__init__" or not name.startswith("_")


def _imported(tree: ast.Module) -> set[str]:
    """Top-level packages that a module imports, wherever in it the import stands."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in IMPORTERS and node.args:
            name = node.args[0]
            found |= {name.value.partition(".")[0]} if isinstance(name, ast.Constant) else set()
    return found


def _keyword(call: ast.Call, name: str) -> object:
    """The literal given for a keyword, ``None`` if it is left out, its source if it is no literal."""
    for keyword in call.keywords:
        if keyword.arg == name:
            return keyword.value.value if isinstance(keyword.value, ast.Constant) else ast.unparse(keyword.value)
    return None


def test_files_are_short() -> None:
    assert EDGELM
    lines = {path: len((ROOT / path).read_text(encoding="utf-8").splitlines()) for path in EDGELM}
    assert {path: n for path, n in lines.items() if n > 400} == {}


def test_functions_are_short() -> None:
    lines = {
        f"{path}:{f.lineno} {f.name}": f.end_lineno - f.lineno + 1
        for path, tree in EDGELM.items()
        for f in _functions(tree)
        if f.end_lineno is not None
    }
    assert {name: n for name, n in lines.items() if n > 50} == {}


def test_functions_take_few_parameters() -> None:
    too_many = {}
    for path, tree in EDGELM.items():
        for f in _functions(tree):
            n = len(parameters(f))
            if n > 8 and _is_public(f.name) and not path.startswith("edgelm/kernels/"):
                too_many[f"{path}:{f.lineno} {f.name}"] = n
    assert too_many == {}


WIDE_KERNELS = {"decay.decay_backward": 14, "tile.product": 13, "tile.tile": 14}
"""Kernels that take more than 12 parameters. None may join them; one that is mended leaves this list."""


def test_kernels_take_few_parameters() -> None:
    kernels = {path: tree for path, tree in EDGELM.items() if path.startswith("edgelm/kernels/")}
    counts = {
        f"{Path(path).stem}.{f.name}": len(parameters(f)) for path, tree in kernels.items() for f in _functions(tree)
    }
    assert {name: n for name, n in counts.items() if n > 12} == WIDE_KERNELS


def test_names_say_what_is_inside() -> None:
    vague = {"utils", "util", "common", "helpers", "helper", "misc", "core"}
    assert [path for path in EVERYWHERE if vague & set(Path(path).with_suffix("").parts)] == []


@pytest.mark.parametrize(
    ("package", "room"),
    [
        ("numba", ("edgelm/kernels/jit.py", "edgelm/kernels/compiler/")),
        ("llvmlite", ("edgelm/kernels/jit.py", "edgelm/kernels/compiler/")),
        ("onnx", "edgelm/export/folder.py"),
        ("onnxruntime", "edgelm/engine/ort_session.py"),
        ("click", "edgelm/cli/"),
        ("llm", "edgelm/llm_plugin.py"),
        ("flwr", "edgelm/swarm/"),
    ],
)
def test_has_one_door(package: str, room: str | tuple[str, ...]) -> None:
    users = [path for path, tree in EDGELM.items() if package in _imported(tree)]
    assert users, f"nothing imports {package}"
    assert [path for path in users if not path.startswith(room)] == []


def test_there_is_one_composition_root() -> None:
    """Model, profile and adaptation are put together in one place, by whoever measures too."""
    makers = [
        path
        for path, tree in EDGELM.items()
        if any(isinstance(node, ast.Call) and ast.unparse(node.func) == "Adaptation" for node in ast.walk(tree))
    ]
    assert makers == ["edgelm/runtime.py"]


def test_edgelm_knows_neither_tools_nor_tests() -> None:
    assert [path for path, tree in EDGELM.items() if {"tools", "tests"} & _imported(tree)] == []


def test_peers_are_known_to_their_scripts_alone() -> None:
    others = {path: tree for path, tree in EDGELM.items() if not path.startswith("edgelm/bench/peers/")}
    assert [path for path, tree in others.items() if {"torch", "llama_cpp"} & _imported(tree)] == []
    for path, tree in others.items():
        named = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)}
        assert [line for line in named if "bench.peers" in line] == [], path


def test_environment_is_read_in_one_place() -> None:
    doors = {"environ", "environb", "getenv", "getenvb", "putenv", "unsetenv"}
    users = set()
    for path, tree in EDGELM.items():
        for node in ast.walk(tree):
            reached = isinstance(node, ast.Attribute) and node.attr in doors and ast.unparse(node.value) == "os"
            taken = isinstance(node, ast.ImportFrom) and node.module == "os" and doors & {a.name for a in node.names}
            if reached or taken:
                users.add(path)
    assert users <= {"edgelm/config.py"}


def test_nothing_is_unpickled() -> None:
    picklers = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
    offences = [path for path, tree in EVERYWHERE.items() if picklers & _imported(tree)]
    for path, tree in EVERYWHERE.items():
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            if _keyword(call, "allow_pickle") not in (None, False):
                offences.append(f"{path}:{call.lineno} allow_pickle")
            if ast.unparse(call.func) == "torch.load" and _keyword(call, "weights_only") is not True:
                offences.append(f"{path}:{call.lineno} torch.load without weights_only=True")
    assert offences == []


def _undocumented(nodes: list[ast.stmt], documented: dict[str, set[str]]) -> Iterator[ast.FunctionDef | ast.ClassDef]:
    """Public definitions without a docstring; a method may inherit that of a base class it names."""
    for node in nodes:
        if not isinstance(node, ast.ClassDef | FunctionNode) or node.name.startswith("_"):
            continue
        if ast.get_docstring(node) is None:
            yield node
        if isinstance(node, ast.ClassDef):
            inherited = set().union(*(documented.get(ast.unparse(base), set()) for base in node.bases))
            yield from (d for d in _undocumented(node.body, documented) if d.name not in inherited)


def test_public_things_are_documented() -> None:
    trees = {path: tree for path, tree in EDGELM.items() if not path.startswith(("edgelm/cli/", "edgelm/kernels/"))}
    classes = [node for tree in trees.values() for node in tree.body if isinstance(node, ast.ClassDef)]
    documented = {
        c.name: {f.name for f in c.body if isinstance(f, FunctionNode) and ast.get_docstring(f)} for c in classes
    }
    bare = [f"{path}:{d.lineno} {d.name}" for path, tree in trees.items() for d in _undocumented(tree.body, documented)]
    assert bare == []


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120


def test_changelog_names_this_version() -> None:
    found = re.search(r"^## \[(\d[^\]]*)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert found is not None
    assert found[1] == edgelm.__version__


def test_help_starts_light() -> None:
    script = """
import sys
sys.argv = ["edgelm", "--help"]
try:
    from edgelm.cli.main import main
    main()
finally:
    print(*sys.modules, file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "chat" in done.stdout
    assert {"numpy", "numba", "onnx", "onnxruntime", "tokenizers"} & set(done.stderr.split()) == set()


def test_what_is_said_of_passes_is_said_of_tests_that_exist() -> None:
    from tests.conftest import JIT_ONLY, ONCE

    assert [place for place in sorted(ONCE | JIT_ONLY) if not (ROOT / "tests" / place).exists()] == []
