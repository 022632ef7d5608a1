"""``top_k_ffn`` by kernels: those of ``block_ffn``, with another router."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edgelm.cells.block_ffn import passes as block_ffn
from edgelm.cells.block_ffn.paper import BlockFfn
from edgelm.cells.block_ffn.passes import SMALL, begin
from edgelm.kernels import fused, strongest

__all__ = ["SMALL", "Answer", "Pass", "begin"]


class Pass(block_ffn.Pass):
    """One layer's router, blocks and shared block. Parameters and methods: ``edgelm.cells.passes.BlockPass``."""

    def _route(self) -> None:
        b, w, cell = self.b, self.w, self.cell
        size = self.dtype.type(cell.size)
        strongest.wake_forward(b["a0"], w["router_bias"], w["log_gamma"], cell.max_awake, size, b["a1"], b["a"])

    def _route_back(self) -> None:
        b = self.b
        strongest.wake_backward(b["da"], b["a1"], b["a"], b["a0"], self.grads["log_gamma"])


class Answer(block_ffn.Answer):
    """One layer's router, blocks and shared block. Parameters and methods: ``edgelm.cells.passes.BlockAnswer``."""

    _kernel: Callable[..., None] = staticmethod(fused.top_k_ffn)

    @staticmethod
    def _of_router(cell: BlockFfn) -> np.float32:
        return np.float32(cell.size)
