"""What a docstring says of parameters is what the signature has."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from tests.test_house import EDGELM, FunctionNode, parameters

SECTION = re.compile(r"^Parameters\n-+\n(.*?)(?=^\S[^\n]*\n-{3,}\n|\Z)", re.MULTILINE | re.DOTALL)
NAMES = re.compile(r"^(\S[^:\n]*)", re.MULTILINE)


CLASSES = {n.name: n for tree in EDGELM.values() for n in ast.walk(tree) if isinstance(n, ast.ClassDef)}


def _fields(node: ast.ClassDef) -> list[str]:
    """What a class is made from: the parameters of its ``__init__``, or the fields of a dataclass, inherited first."""
    for item in node.body:
        if isinstance(item, FunctionNode) and item.name == "__init__":
            return parameters(item)
    bases = [CLASSES[name] for name in map(ast.unparse, node.bases) if name in CLASSES]
    own = [
        item for item in node.body if isinstance(item, ast.AnnAssign) and "ClassVar" not in ast.unparse(item.annotation)
    ]
    inherited = [name for base in bases for name in _fields(base)]
    return list(dict.fromkeys([*inherited, *(ast.unparse(item.target) for item in own)]))


def _misfits(tree: ast.Module) -> Iterator[str]:
    """Definitions whose section of parameters names others than they take, or the same in another order."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.ClassDef | FunctionNode):
            continue
        found = SECTION.search(ast.get_docstring(node) or "")
        if found is None:
            continue
        said = [name.strip().lstrip("*") for line in NAMES.findall(found[1]) for name in line.split(",")]
        taken = _fields(node) if isinstance(node, ast.ClassDef) else parameters(node)
        if said != taken:
            yield f"{node.lineno} {node.name}: says {said}, takes {taken}"


def test_parameters_are_those_of_the_signature() -> None:
    assert [f"{path}:{misfit}" for path, tree in EDGELM.items() for misfit in _misfits(tree)] == []


@pytest.mark.parametrize(
    ("source", "fits"),
    [
        ("def f(a, b):\n    '''F.\n\n    Parameters\n    ----------\n    a, b : int\n    '''", True),
        ("def f(a, *, b):\n    '''F.\n\n    Parameters\n    ----------\n    a : int\n        A.\n    b\n    '''", True),
        ("def f(a, b):\n    '''F.\n\n    Parameters\n    ----------\n    a : int\n    '''", False),
        ("def f(a, b):\n    '''F.\n\n    Parameters\n    ----------\n    b : int\n    a : int\n    '''", False),
        ("class C:\n    '''C.\n\n    Parameters\n    ----------\n    a : int\n    '''\n    b: int", False),
        ("class C:\n    '''C.\n\n    Parameters\n    ----------\n    a : int\n\n    Raises\n    ------\n    E\n"
         "    '''\n    a: int", True),
    ],
)  # fmt: skip
def test_a_section_that_does_not_fit_is_found(source: str, fits: bool) -> None:
    assert (not [*_misfits(ast.parse(source))]) == fits
