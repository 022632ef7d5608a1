"""Memory that was never written is NaN, so that whatever reads it before it was written shows.

``np.empty`` and ``np.empty_like`` of the package give NaN where they give floats; so do ``np.zeros`` of the network,
whose buffers say nothing before a pass has written them.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import numpy as np

import edgelm
from edgelm.learn.mixers import GatedMixerPass
from edgelm.learn.network import Network

PACKAGE = Path(edgelm.__file__).parent
NETWORK = (Network, GatedMixerPass)
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


def _users() -> list[ModuleType]:
    """Modules of the package that ask numpy for memory without numbers; kernels allocate nothing."""
    paths = (p for p in sorted(PACKAGE.rglob("*.py")) if "np.empty" in p.read_text(encoding="utf-8"))
    names = (path.relative_to(PACKAGE.parent).with_suffix("").as_posix().replace("/", ".") for path in paths)
    return [importlib.import_module(name) for name in names]


@contextmanager
def nan_where_nothing_was_written() -> Iterator[None]:
    """Within it the package's fresh buffers are NaN."""
    made = Network.__init__

    def make(self: Network, *args: Any, **kwargs: Any) -> None:
        made(self, *args, **kwargs)
        for name, gradient in self.grads.items():
            if name.endswith(BLOCKS):
                gradient.fill(0)

    network = {inspect.getmodule(part) for part in NETWORK}
    with ExitStack() as stack:
        for module in {*_users(), *network}:
            if module is not None:
                stack.enter_context(patch.object(module, "np", UnwrittenNumpy(zeros=module in network)))
        stack.enter_context(patch.object(Network, "__init__", make))
        yield
