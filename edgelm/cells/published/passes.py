"""Forward and backward of ``published`` over one segment. It serves comparisons, so it allocates as it goes."""

from __future__ import annotations

import numpy as np

from edgelm.cells.buffers import matrix_of
from edgelm.cells.cell import Array, Parts
from edgelm.cells.published.paper import Published
from edgelm.kernels import norm as norm_kernels
from edgelm.kernels import slope as slope_kernels
from edgelm.matrices.matrix import Operands

SMALL = ("norm",)
"""Tensors whose gradients are always made."""


class Pass:
    """One layer's vector states. Parameters and methods: ``edgelm.cells.passes.Pass``."""

    def __init__(self, cell: Published, weights: Operands, grads: Parts, max_steps: int, shared_buffers: Parts) -> None:
        self.cell, self.grads, self.workspace = cell, grads, shared_buffers["workspace"]
        self.norm, self.w_in = (np.asarray(weights[name]) for name in ("norm", "w_in"))
        self.w_out = matrix_of(cell, weights, "w_out")
        dtype = self.norm.dtype
        self.eps, self.decays = dtype.type(cell.norm_eps), cell.decays().astype(dtype)
        self.inverse = np.zeros(max_steps, dtype)

    def forward(self, x: Array, y: Array, state: Parts, shared: Parts) -> None:
        """As of ``edgelm.cells.passes.Pass``."""
        c, n_steps = self.cell, len(x)
        self.x, self.h = x, np.empty_like(x)
        norm_kernels.rms_forward(x, self.norm, self.eps, self.inverse, self.h)
        self.parts = self.h.reshape(n_steps, c.n_channels, -1).transpose(1, 0, 2)
        projected = np.matmul(self.parts, self.w_in).transpose(1, 0, 2)
        v, u = np.split(projected, 2, axis=-1)
        self.v, self.u = (np.ascontiguousarray(part).reshape(n_steps, -1) for part in (v, u))
        self.m, self.norms, self.mix = (np.empty_like(self.v) for _ in range(3))
        sums = np.concatenate([state[name].reshape(-1) for name in c.state()])
        counts = np.concatenate([np.repeat(shared[name].reshape(-1), shape[3]) for name, shape in c.state().items()])
        slope_kernels.slope_forward(self.v, self.decays, counts, sums, self.norms, self.m)
        for name, part in zip(c.state(), np.split(sums, [c.slope_dim]), strict=True):
            state[name].reshape(-1)[:] = part
        norm_kernels.gate_forward(self.m, self.u, self.mix)
        y += self.w_out.product(self.mix, self.workspace, np.empty_like(y))

    def backward(self, dy: Array, dx: Array) -> None:
        """As of ``edgelm.cells.passes.Pass``."""
        c, dmix = self.cell, self.w_out.product_back(dy, self.workspace, np.empty_like(self.mix))
        dm, du, dv = (np.empty_like(dmix) for _ in range(3))
        norm_kernels.gate_backward(dmix, self.m, self.u, dm, du)
        slope_kernels.slope_backward(dm, self.decays, self.norms, np.zeros_like(self.decays), dv)
        shape = (len(dy), c.n_channels, -1)
        dprojected = np.concatenate([dv.reshape(shape), du.reshape(shape)], -1).transpose(1, 0, 2)
        for name, a, b in (("w_in", self.parts.transpose(0, 2, 1), dprojected), ("w_out", self.mix.T, dy)):
            if name in self.grads:
                np.matmul(a, b, out=self.grads[name])
        dh = np.matmul(dprojected, self.w_in.transpose(0, 2, 1)).transpose(1, 0, 2).reshape(dy.shape)
        self.grads["norm"][:] = 0
        norm_kernels.rms_backward(np.ascontiguousarray(dh), self.x, self.norm, self.inverse, dx, self.grads["norm"])
