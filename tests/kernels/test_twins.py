"""Every entry point has a slow plain twin: which test names it, and the entry point itself run as plain Python."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

from edgelm.kernels import jit
from tests.kernels.test_aot import Array, compare, given_to

HERE = Path(__file__).parent
TWIN_IN_ITS_TEST = {
    "arrays_add": "x + y",
    "arrays_add_rows": "before + x.sum(0)",
    "arrays_copy": "1 * x",
    "arrays_fill": "np.full_like(x, 3)",
    "arrays_product": "x @ w",
    "arrays_repeat": "np.repeat(x, 3)",
    "arrays_transpose": "x.T",
    "conv_conv_last": "np.concatenate([last, u[:, :5]])[-3:]",
    "decay_rates_backward": "np.exp(base + np.cumsum(np.logaddexp(0, step)))",
    "decay_rates_forward": "np.exp(base + np.cumsum(np.logaddexp(0, step / 10)))",
    "dense_product_along_changed": "x @ w.T",
    "dense_product_along_rows": "x @ w.T",
    "dense_product_over_changed": "y @ w",
    "dense_product_over_rows": "y @ w",
    "fused_embed": "w[ids]",
    "fused_embed_rows": "w[ids]",
    "integers_quantize_blocks": "np.abs(weight[used]).max(-1) / np.float32(127)",
    "integers_widen_blocks": "np.where(used[:, None, None], w, 0)",
}
"""Entry points of which the twin is an expression of numpy within a test that calls them."""


def _names(node: ast.AST) -> set[str]:
    """All names and attributes that a function reads; ``naive.conv`` is there as a whole."""
    found = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
    for attribute in (n for n in ast.walk(node) if isinstance(n, ast.Attribute)):
        found |= {attribute.attr, ast.unparse(attribute)}
    return found


def _tests() -> dict[str, tuple[set[str], str]]:
    """What each test of kernels reads, itself or through functions beside it, and its source."""
    found = {}
    for path in sorted(HERE.glob("test_*.py")):
        functions = {f.name: f for f in ast.parse(path.read_bytes()).body if isinstance(f, ast.FunctionDef)}
        for name, function in functions.items():
            names, todo, seen = set[str](), [name], set[str]()
            while todo:
                seen.add(here := todo.pop())
                names |= _names(functions[here])
                todo += sorted((names & set(functions)) - seen - set(todo))
            if name.startswith("test_"):
                found[f"{path.stem}.{name}"] = names, ast.unparse(function)
    return found


def test_a_test_names_the_twin_of_every_entry_point() -> None:
    tests, lonely = _tests(), []
    assert tests
    for entry in jit.entries():
        name, expression = entry.function.__name__, TWIN_IN_ITS_TEST.get(entry.symbol)
        calls = [(names, source) for names, source in tests.values() if name in names]
        if expression is None:
            has_twin = any(twin.startswith("naive.") for names, _ in calls for twin in names)
        else:
            has_twin = any(expression in source for _, source in calls)
        if not has_twin:
            lonely.append(entry.symbol)
    assert lonely == []
    assert set(TWIN_IN_ITS_TEST) <= {entry.symbol for entry in jit.entries()}


@pytest.mark.skipif(jit._compile is None, reason="kernels are not compiled by numba here")
@pytest.mark.jit_only
def test_every_entry_point_compiled_does_what_plain_python_does(plain: dict[str, Array]) -> None:
    for entry in jit.entries():
        module = importlib.import_module(entry.function.__module__)
        compare(entry, getattr(module, entry.function.__name__), given_to(entry, plain), plain)
