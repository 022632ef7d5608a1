"""``rwkv7_channel_mix`` by kernels, with all memory taken beforehand: forward and backward over a segment, and
answering."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgelm.cells.buffers import integer_buffers, integers_of, make_buffers, matrix_of
from edgelm.cells.cell import Array, Parts
from edgelm.cells.rwkv7_channel_mix.paper import Rwkv7ChannelMix
from edgelm.kernels import neurons as kernels
from edgelm.kernels import rwkv7
from edgelm.kernels import shift as shift_kernels
from edgelm.matrices.matrix import Operands

SMALL = ("norm", "norm_bias", "x_k")
"""Tensors whose gradients are always made."""
_SHARED = ("y", "a")
"""Buffers that hold nothing between forward and backward, beside the gradients; a is made again of u."""


class Pass:
    """One layer's neurons. Parameters and methods: ``edgelm.cells.passes.BlockPass``."""

    def __init__(
        self, cell: Rwkv7ChannelMix, weights: Operands, grads: Parts, max_steps: int, shared_buffers: Parts
    ) -> None:
        self.cell, self.grads, self.workspace = cell, grads, shared_buffers["workspace"]
        self.w = {name: np.asarray(weights[name]) for name in SMALL}
        self.key, self.value = (matrix_of(cell, weights, name) for name in ("key", "value"))
        self.rows = weights["value"]
        dtype = self.w["norm"].dtype
        self.eps, d, f = dtype.type(cell.norm_eps), cell.d_model, cell.hidden_size
        widths = {"h": d, "plain": d, "x_k": d, "u": f, "a": f, "y": d, "dh": d, "dx_": d, "du": f, "y_grad": d}
        shared = _SHARED if "key" in grads else (*_SHARED, "x_k")
        self.buffers = make_buffers(widths, max_steps, dtype, shared_buffers, shared)
        self.b = self.buffers
        self.inverse, self.before = np.zeros(max_steps, dtype), np.zeros(d, dtype)
        self._awake = np.zeros(f, bool)
        self.of_rows = shared_buffers.setdefault("rows of neurons", np.zeros(kernels.room(max_steps, d), dtype))

    def forward(self, x: Array, y: Array, state: Parts, shared: Parts) -> None:
        """As of ``edgelm.cells.passes.Pass``."""
        w = self.w
        if len(x) != len(self.b["h"]):
            self.b = {name: buffer[: len(x)] for name, buffer in self.buffers.items()}
        b = self.b
        self.before[:] = state["channel_shift"][0]
        shift_kernels.layer_forward(x, w["norm"], w["norm_bias"], self.eps, self.inverse, b["plain"], b["h"])
        state["channel_shift"][0] = b["h"][-1]
        shift_kernels.mix_forward(b["h"], self.before, w["x_k"], b["x_k"])
        self.key.product(b["x_k"], self.workspace, b["u"])
        kernels.squared_relu(b["u"], b["a"], self._awake)
        y += self.value.product_back(b["a"], self.workspace, b["y"])

    def backward(self, dy: Array, dx: Array) -> None:
        """As of ``edgelm.cells.passes.Pass``. What ``step_blocks`` makes the gradient of ``value`` of is kept."""
        w, b, grads = self.w, self.b, self.grads
        for name in SMALL:
            grads[name][:] = 0
        b["dh"][:] = 0
        b["y_grad"][:] = dy
        if "value" in grads:
            kernels.rows_gradient(dy, self._a(), self._awake, self.of_rows, grads["value"])
        self.value.product(dy, self.workspace, b["du"])
        # u is 0 where a neuron sleeps, and its gradient with it; da is used up in place.
        b["du"] *= b["u"]
        b["du"] *= 2
        if "key" in grads:
            np.dot(b["du"].T, b["x_k"], out=grads["key"])
        self.key.product_back(b["du"], self.workspace, b["dx_"])
        shift_kernels.mix_backward(b["dx_"], b["h"], self.before, w["x_k"], b["dh"], grads["x_k"])
        shift_kernels.layer_backward(
            b["dh"], b["plain"], w["norm"], self.inverse, dx, grads["norm"], grads["norm_bias"]
        )

    def step_blocks(self, name: str, base: Any, rates: Array, pull: np.floating) -> None:
        """As of ``edgelm.cells.passes.BlockPass``; the only tensor of blocks that learns is ``value``."""
        y_grad, a = self.b["y_grad"], self._a()
        if hasattr(self.rows, "change"):
            kernels.rows_step_halves(y_grad, a, self._awake, rates, pull, self.of_rows, self.rows.halves)
        elif hasattr(base, "scale"):
            given = (base.q, base.scale)
            kernels.rows_step_int8(y_grad, a, self._awake, *given, rates, pull, self.of_rows, self.rows)
        else:
            kernels.rows_step(y_grad, a, self._awake, base, rates, pull, self.of_rows, self.rows)

    def _a(self) -> Array:
        """a of the last segment [T,F]: other layers have used its memory since."""
        return np.square(self.b["u"], out=self.b["a"])

    def block_squares(self, name: str) -> Array:
        """The mean square of the gradient of each row of ``value``, [F] float64, after ``backward``; 0 of neurons that
        slept."""
        found = np.zeros(len(self._awake))
        kernels.rows_squares(self.b["y_grad"], self._a(), self._awake, self.of_rows, found)
        return found / self.cell.d_model

    @property
    def awake(self) -> Array:
        """As of ``edgelm.cells.passes.BlockPass``."""
        return self._awake

    @property
    def activations(self) -> Array:
        """As of ``edgelm.cells.passes.BlockAnswer``; nothing puts neurons to sleep."""
        return self.b["a"]

    @property
    def n_pairs(self) -> int:
        """As of ``edgelm.cells.passes.BlockPass``."""
        return int(np.count_nonzero(self.b["u"]))


def begin(cell: Rwkv7ChannelMix, shared: Parts, n_steps: int, buffers: Parts) -> None:
    """Layers share nothing."""


class Answer:
    """One layer's neurons. Parameters and methods: ``edgelm.cells.passes.BlockAnswer``; what they write is given as
    ``Int8``."""

    def __init__(self, cell: Rwkv7ChannelMix, weights: Operands, state: Parts, max_steps: int, buffers: Parts) -> None:
        d, f = cell.d_model, cell.hidden_size
        self.matrices = integers_of(weights, "key", "value")
        self.gains = tuple(np.asarray(weights[name]) for name in SMALL)
        self.before, self.eps = state["channel_shift"][0], np.float32(cell.norm_eps)
        self.shared = integer_buffers(d, d, max_steps, buffers)
        sizes = {"h of tokens": d, "a": f}
        self.own = [
            buffers.setdefault(f"{name}.{n}", np.zeros((max_steps, n), np.float32)) for name, n in sizes.items()
        ]
        self.awake = buffers.setdefault(f"awake.{f}", np.zeros(f, np.int64))
        self.of: tuple[Array, ...] = (np.zeros((0, d), np.float32), np.zeros((0, f), np.float32))

    def forward(self, x: Array) -> None:
        """As of ``edgelm.cells.passes.Answer``."""
        if len(self.of[0]) != len(x):
            h, a = self.own
            self.of = (h[: len(x)], a[: len(x)], self.awake)
        rwkv7.channel_mix(x, self.matrices, self.gains, self.before, self.eps, self.shared, self.of)

    @property
    def activations(self) -> Array:
        """As of ``edgelm.cells.passes.BlockAnswer``; nothing puts neurons to sleep."""
        return self.of[1]
