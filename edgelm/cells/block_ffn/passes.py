"""``block_ffn`` by kernels, which read, compute and change only blocks that are awake: forward and backward over a
segment, and answering."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from edgelm.cells.block_ffn.paper import ROUTER_EPS, BlockFfn
from edgelm.cells.buffers import Taking, are_calls, integer_buffers, integers_of, make_buffers, matrix_of
from edgelm.cells.cell import Array, Parts
from edgelm.kernels import arrays, fused
from edgelm.kernels import blocks as block_kernels
from edgelm.kernels import norm as norm_kernels
from edgelm.kernels.norm import ZERO
from edgelm.matrices.blocks import Float32Blocks, as_blocks
from edgelm.matrices.matrix import Operands

SMALL = ("norm", "router_bias", "log_gamma")
"""Tensors whose gradients are always made."""
_SHARED = ("a0", "part")
"""Buffers that hold nothing between forward and backward, beside the gradients."""


class Pass(Taking):
    """One layer's router, blocks and shared block. Parameters and methods: ``edgelm.cells.passes.BlockPass``.

    W2 is written to by learning where it is given as floating-point numbers; integers are made numbers for each
    segment, of the blocks that are awake.
    """

    def __init__(self, cell: BlockFfn, weights: Operands, grads: Parts, max_steps: int, shared_buffers: Parts) -> None:
        c = self.cell = cell
        self.grads, self.workspace = grads, shared_buffers["workspace"]
        self.w = {name: np.asarray(weights[name]) for name in (*SMALL, "router")}
        dtype = self.w["norm"].dtype
        self.w1, self.given_w2 = as_blocks(weights["w1"]), as_blocks(weights["w2"])
        self.widened = shared_buffers.setdefault("w2", np.empty((c.n_blocks, c.d_model, c.block_size), dtype))
        self.shared = [matrix_of(c, weights, name) for name in ("shared_w1", "shared_w2")]
        self.dtype, self.eps = dtype, dtype.type(c.norm_eps)
        widths = {"h": c.d_model, "dh": c.d_model, "part": c.d_model, "a0": c.n_blocks, "a1": c.n_blocks}
        widths |= {"a": c.n_blocks, "da": c.n_blocks, "s": c.shared_size, "ds": c.shared_size, "shared": c.shared_size}
        widths["y_grad"] = c.d_model
        self.buffers = make_buffers(widths, max_steps, dtype, shared_buffers, _SHARED)
        self.b = self.buffers
        self.inverse, self.a_inverse = np.zeros(max_steps, dtype), np.zeros(max_steps, dtype)
        pairs = max_steps * c.max_awake
        self.starts, self.tokens = np.zeros(c.n_blocks + 1, np.int64), np.zeros(pairs, np.int64)
        self.slope, self.hidden = np.zeros((2, pairs, c.block_size), dtype)
        size = block_kernels.workspace_size(max_steps, c.block_size, c.d_model)
        self.of_blocks = shared_buffers.setdefault("workspace of blocks", np.zeros(size, dtype))
        self.plain = shared_buffers.setdefault("plain", np.zeros((c.block_size, c.d_model), dtype))
        self.turned = shared_buffers.setdefault("router turned", np.zeros((c.n_blocks, c.d_model), dtype))
        # Integers are made numbers for the blocks that are awake, and nothing tells beforehand which.
        self.are_calls = are_calls(*self.shared) and isinstance(self.given_w2, Float32Blocks)

    def forward(self, x: Array, y: Array, state: Parts, shared: Parts) -> None:
        """As of ``edgelm.cells.passes.Pass``."""
        self.take(x)
        w, b = self.w, self.b
        norm_kernels.rms_forward(x, w["norm"], self.eps, self.inverse, b["h"])
        arrays.product(b["h"], w["router"], b["a0"])
        self._route()
        block_kernels.group_pairs(b["a"], self.starts, self.tokens)
        self.w2 = self.given_w2.current(self.awake, self.widened)
        pairs = (self.starts, self.tokens, self.slope, self.hidden)
        self.w1.forward(b["h"], b["a"], self.plain, self.w2, *pairs, self.of_blocks, y)
        self.shared[0].product(b["h"], self.workspace, b["s"])
        norm_kernels.silu_forward(b["s"], b["shared"])
        out = self.shared[1].product(b["shared"], self.workspace, b["part"])
        arrays.add(out.reshape(-1), y.reshape(-1))

    def backward(self, dy: Array, dx: Array) -> None:
        """As of ``edgelm.cells.passes.Pass``. What ``step_blocks`` makes the gradient of w2 of is kept."""
        w, b, grads = self.w, self.b, self.grads
        for name in SMALL:
            arrays.fill(grads[name], ZERO)
        if "shared_w2" in grads:
            np.dot(b["shared"].T, dy, out=grads["shared_w2"])
        self.shared[1].product_back(dy, self.workspace, b["shared"])
        norm_kernels.silu_backward(b["shared"], b["s"], b["ds"])
        if "shared_w1" in grads:
            np.dot(b["h"].T, b["ds"], out=grads["shared_w1"])
        dh = self.shared[0].product_back(b["ds"], self.workspace, b["dh"])
        pairs = (self.starts, self.tokens, self.slope, self.hidden)
        self.w1.backward(dy, b["a"], self.w2, *pairs, self.of_blocks, b["da"], dh)
        arrays.copy(dy.reshape(-1), b["y_grad"].reshape(-1))
        if "w2" in grads:
            block_kernels.blocks_w2_backward(*self._of_w2(), self.of_blocks, grads["w2"])
        if "w1" in grads:
            block_kernels.blocks_w1_backward(b["h"], self.starts, self.tokens, self.slope, grads["w1"])
        self._route_back()
        arrays.add_rows(b["a0"], grads["router_bias"])
        if "router" in grads:
            np.dot(b["h"].T, b["a0"], out=grads["router"])
        arrays.transpose(w["router"], self.turned)
        arrays.product(b["a0"], self.turned, b["part"])
        arrays.add(b["part"].reshape(-1), dh.reshape(-1))
        norm_kernels.rms_backward(dh, self.x, w["norm"], self.inverse, dx, grads["norm"])

    def _route(self) -> None:
        """a of a0."""
        b, w = self.b, self.w
        block_kernels.route_forward(
            b["a0"], w["router_bias"], w["log_gamma"], self.cell.max_awake, self.dtype.type(ROUTER_EPS),
            b["a1"], self.a_inverse, b["a"],
        )  # fmt: skip

    def _route_back(self) -> None:
        """The gradients of a0, in its place, and of log_gamma."""
        b, grads = self.b, self.grads
        block_kernels.route_backward(
            b["da"], b["a1"], self.w["log_gamma"], self.a_inverse, b["a"], b["a0"], grads["log_gamma"]
        )

    def step_blocks(self, name: str, base: Any, rates: Array, pull: np.floating) -> None:
        """As of ``edgelm.cells.passes.BlockPass``; the only tensor of blocks that learns is w2."""
        w2 = self.w2.reshape(len(self.w2), -1)
        as_blocks(base).pull(*self._of_w2(), rates, pull, self.of_blocks, w2)

    def _of_w2(self) -> tuple[Array, Array, Array, Array, Array]:
        return self.b["y_grad"], self.b["a"], self.starts, self.tokens, self.hidden

    @property
    def awake(self) -> Array:
        """As of ``edgelm.cells.passes.BlockPass``."""
        return self.starts[1:] > self.starts[:-1]

    @property
    def n_pairs(self) -> int:
        """As of ``edgelm.cells.passes.BlockPass``."""
        return int(self.starts[-1])


def begin(cell: BlockFfn, shared: Parts, n_steps: int, buffers: Parts) -> None:
    """Layers share nothing."""


class Answer:
    """One layer's router, blocks and shared block. Parameters and methods: ``edgelm.cells.passes.BlockAnswer``."""

    _kernel: Callable[..., None] = staticmethod(fused.block_ffn)

    def __init__(self, cell: BlockFfn, weights: Operands, state: Parts, max_steps: int, buffers: Parts) -> None:
        c, self.max_awake = cell, cell.max_awake
        self.matrices = integers_of(weights, "w1", "w2", "shared_w1", "shared_w2")
        self.gains = tuple(np.asarray(weights[name]) for name in ("norm", "router", "router_bias", "log_gamma"))
        self.numbers = (np.float32(c.norm_eps), self._of_router(c))
        neurons = max(c.block_size, c.shared_size)
        # Of every token h as integers, and behind them the neurons of one.
        widest = c.d_model + neurons
        self.shared = integer_buffers(widest, c.d_model, max_steps, buffers)
        sizes = {"before": (max_steps, c.n_blocks), "awake": (max_steps, c.n_blocks), "s": (2, neurons)}
        self.own = [buffers.setdefault(f"{name}.{n}", np.zeros(n, np.float32)) for name, n in sizes.items()]
        self.of: tuple[Array, ...] = (np.zeros((0, c.n_blocks), np.float32),)

    @staticmethod
    def _of_router(cell: BlockFfn) -> np.float32:
        """The number that the router's equations need."""
        return np.float32(ROUTER_EPS)

    def forward(self, x: Array) -> None:
        """As of ``edgelm.cells.passes.Answer``."""
        if len(self.of[0]) != len(x):
            before, awake, s = self.own
            self.of = (before[: len(x)], awake[: len(x)], s)
        self._kernel(x, self.matrices, self.gains, self.max_awake, self.numbers, self.shared, self.of)

    @property
    def activations(self) -> Array:
        """As of ``edgelm.cells.passes.BlockAnswer``."""
        return self.of[0]
