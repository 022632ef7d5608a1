"""Memory that was never written is NaN, so that whatever reads it before it was written shows.

``np.empty`` and ``np.empty_like`` of the package give NaN where they give floats; so do ``np.zeros`` of the network,
whose buffers say nothing before a pass has written them.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import numpy as np

import edgelm
from edgelm.network.network import Network

PACKAGE = Path(edgelm.__file__).parent
NETWORK = sorted([*PACKAGE.glob("network/*.py"), *PACKAGE.glob("cells/buffers.py"), *PACKAGE.glob("cells/*/passes.py")])
"""Where buffers of the network are made."""
BLOCKS = ("w1", "w2")
"""Gradients of blocks that sleep are left as they are, by contract: those begin at zero."""


def _unwritten(array: np.ndarray) -> np.ndarray:
    if np.issubdtype(array.dtype, np.floating):
        array.fill(np.nan)
    return array


class UnwrittenNumpy(ModuleType):
    """numpy, but for what makes arrays without numbers; with ``zeros``, that too."""

    def __init__(self, zeros: bool) -> None:
        super().__init__("numpy")
        self._zeros = zeros

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    def empty(self, *args: Any, **kwargs: Any) -> np.ndarray:
        return _unwritten(np.empty(*args, **kwargs))

    def empty_like(self, *args: Any, **kwargs: Any) -> np.ndarray:
        return _unwritten(np.empty_like(*args, **kwargs))

    def zeros(self, *args: Any, **kwargs: Any) -> np.ndarray:
        made = np.zeros(*args, **kwargs)
        return _unwritten(made) if self._zeros else made


def _users() -> dict[ModuleType, bool]:
    """Modules of the package that ask numpy for memory without numbers, and whether zeros are that there, too."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        if path in NETWORK or "np.empty" in path.read_text(encoding="utf-8"):
            name = path.relative_to(PACKAGE.parent).with_suffix("").as_posix().replace("/", ".")
            module = importlib.import_module(name.removesuffix(".__init__"))
            if hasattr(module, "np"):
                found[module] = path in NETWORK
    return found


@contextmanager
def nan_where_nothing_was_written() -> Iterator[None]:
    """Within it the package's fresh buffers are NaN."""
    made = Network.__init__

    def make(self: Network, *args: Any, **kwargs: Any) -> None:
        made(self, *args, **kwargs)
        for name, gradient in self.grads.items():
            if name.endswith(BLOCKS):
                gradient.fill(0)

    with ExitStack() as stack:
        for module, zeros in _users().items():
            stack.enter_context(patch.object(module, "np", UnwrittenNumpy(zeros)))
        stack.enter_context(patch.object(Network, "__init__", make))
        yield
