"""Forward and backward of ``retention`` over one segment, with all memory taken beforehand.

A segment is one chunk: its tokens see each other in the parallel form, as products of matrices, and what was before
through the memory::

    o_t = sum_{i<=t} gamma^(t-i) (q_t . k_i) v_i / sqrt(K) + gamma^(t+1) S_' q_t / sqrt(K)
    S_ <- gamma^T S_ + sum_i gamma^(T-1-i) k_i v_i'
"""

from __future__ import annotations

import numpy as np

from edgelm.cells.buffers import make_buffers, matrix_of
from edgelm.cells.cell import Array, Parts
from edgelm.cells.retention.paper import HEAD_EPS, Retention
from edgelm.kernels import norm as norm_kernels
from edgelm.matrices.matrix import Operands

SMALL = ("norm",)
"""Tensors whose gradients are always made."""
_SHARED = ("scores", "read", "kept")
"""Buffers that hold nothing between forward and backward, beside the gradients."""


class Decays:
    """Powers of gamma, for segments of at most ``max_steps`` tokens; none is above 1, so none overflows."""

    def __init__(self, cell: Retention, max_steps: int, dtype: np.dtype) -> None:
        gamma, scale = cell.decays()[:, None], cell.key_dim**-0.5
        steps = np.arange(max_steps)
        powers = np.tril(gamma[:, :, None] ** np.maximum(steps[:, None] - steps, 0))
        self.between = (scale * powers).astype(dtype)
        """[H,T,T]: what is left at a token of what an earlier one wrote, over sqrt(K)."""
        self.read = (scale * gamma ** (steps + 1))[..., None].astype(dtype)
        """[H,T,1]: what is left at a token of the memory before the segment, over sqrt(K)."""
        self.left = (gamma ** steps[::-1])[..., None].astype(dtype)
        """[H,T,1]: what is left of a write after the last token."""
        self.whole = (gamma ** np.arange(max_steps + 1))[..., None, None].astype(dtype)
        """[H,T+1,1,1]: what is left of a memory after so many tokens."""


class Pass:
    """One layer's memories. Parameters and methods: ``edgelm.cells.passes.Pass``."""

    def __init__(self, cell: Retention, weights: Operands, grads: Parts, max_steps: int, shared_buffers: Parts) -> None:
        c = self.cell = cell
        self.grads, self.workspace = grads, shared_buffers["workspace"]
        self.norm = np.asarray(weights["norm"])
        self.w_in, self.w_out = (matrix_of(c, weights, name) for name in ("w_in", "w_out"))
        dtype = self.norm.dtype
        self.eps, self.head_eps = dtype.type(c.norm_eps), dtype.type(HEAD_EPS)
        self.decays = Decays(c, max_steps, dtype)
        projected = 2 * c.keys + 2 * c.values
        widths = {
            "h": c.d_model, "dh": c.d_model, "p": projected, "dp": projected, "u": c.values, "du": c.values,
            "o": c.values, "do": c.values, "o_inverse": c.n_heads, "mean": c.n_heads, "mix": c.values, "dmix": c.values,
            "scores": c.n_heads * max_steps, "dscores": c.n_heads * max_steps, "read": c.values, "kept": c.keys,
        }  # fmt: skip
        self.buffers = make_buffers(widths, max_steps, dtype, shared_buffers, _SHARED)
        self.inverse = np.zeros(max_steps, dtype)
        # The norm of heads has no gain; the kernel takes one, and adds its gradient to what nobody reads.
        self.unit_gain, self.unread = np.ones(c.value_dim, dtype), np.zeros(c.value_dim, dtype)
        self.before, self.written = np.zeros((2, c.n_heads, c.key_dim, c.value_dim), dtype)
        self._shape(max_steps)

    def _shape(self, n_steps: int) -> None:
        """Views of the buffers for segments of this length."""
        c = self.cell
        self.b = {name: buffer[:n_steps] for name, buffer in self.buffers.items()}
        self.b["scores"], self.b["dscores"] = (
            self.buffers[name].reshape(-1)[: c.n_heads * n_steps**2].reshape(c.n_heads, n_steps, n_steps)
            for name in ("scores", "dscores")
        )

    def forward(self, x: Array, y: Array, state: Parts, shared: Parts) -> None:
        """As of ``edgelm.cells.passes.Pass``."""
        c, n_steps = self.cell, len(x)
        if n_steps != len(self.b["h"]):
            self._shape(n_steps)
        self.x, b, memory, decays = x, self.b, state["memory"][0], self.decays
        norm_kernels.rms_forward(x, self.norm, self.eps, self.inverse, b["h"])
        self.w_in.product(b["h"], self.workspace, b["p"])
        b["u"][:] = b["p"][:, -c.values :]
        q, k, v = self._parts(b["p"])
        o, read, kept = (self._heads(b[name]) for name in ("o", "read", "kept"))
        self.before[:] = memory

        np.matmul(self._scores(q, k), v, out=o)
        np.matmul(q, memory, out=read)
        read *= decays.read[:, :n_steps]
        o += read
        np.multiply(k, decays.left[:, -n_steps:], out=kept)
        memory *= decays.whole[:, n_steps]
        memory += np.matmul(kept.transpose(0, 2, 1), v, out=self.written)

        self._centre(b["o"])
        norm_kernels.gated_norm_forward(b["o"], self.unit_gain, b["u"], self.head_eps, b["o_inverse"], b["mix"])
        y += self.w_out.product(b["mix"], self.workspace, b["dh"])

    def backward(self, dy: Array, dx: Array) -> None:
        """As of ``edgelm.cells.passes.Pass``."""
        c, b, n_steps = self.cell, self.b, len(dy)
        if "w_out" in self.grads:
            np.dot(b["mix"].T, dy, out=self.grads["w_out"])
        self.w_out.product_back(dy, self.workspace, b["dmix"])
        norm_kernels.gated_norm_backward(
            b["dmix"], b["o"], self.unit_gain, b["u"], b["o_inverse"], b["do"], b["du"], self.unread
        )
        self._centre(b["do"])

        q, k, v = self._parts(b["p"])
        dq, dk, dv = self._parts(b["dp"])
        do, read = self._heads(b["do"]), self._heads(b["read"])
        dscores = np.matmul(do, v.transpose(0, 2, 1), out=b["dscores"])
        dscores *= self.decays.between[:, :n_steps, :n_steps]
        np.matmul(self._scores(q, k).transpose(0, 2, 1), do, out=dv)
        np.matmul(dscores.transpose(0, 2, 1), q, out=dk)
        np.matmul(dscores, k, out=dq)
        np.multiply(do, self.decays.read[:, :n_steps], out=read)
        kept = self._heads(b["kept"])
        dq += np.matmul(read, self.before.transpose(0, 2, 1), out=kept)
        b["dp"][:, -c.values :] = b["du"]

        if "w_in" in self.grads:
            np.dot(b["h"].T, b["dp"], out=self.grads["w_in"])
        self.w_in.product_back(b["dp"], self.workspace, b["dh"])
        self.grads["norm"][:] = 0
        norm_kernels.rms_backward(b["dh"], self.x, self.norm, self.inverse, dx, self.grads["norm"])

    def _scores(self, q: Array, k: Array) -> Array:
        """What each token takes of what those up to it wrote, [H,T,T]."""
        scores = np.matmul(q, k.transpose(0, 2, 1), out=self.b["scores"])
        scores *= self.decays.between[:, : q.shape[1], : q.shape[1]]
        return scores

    def _centre(self, values: Array) -> None:
        """Takes from the values [T,H V] the mean of their head; its derivative is the same."""
        heads = values.reshape(len(values), self.cell.n_heads, -1)
        heads -= np.mean(heads, -1, keepdims=True, out=self.b["mean"][..., None])

    def _parts(self, projected: Array) -> tuple[Array, Array, Array]:
        """Views of q, k [H,T,K] and v [H,T,V] in [T,2 H K + 2 H V]."""
        keys, values = self.cell.keys, self.cell.values
        ends = (slice(keys), slice(keys, 2 * keys), slice(2 * keys, 2 * keys + values))
        q, k, v = (self._heads(projected[:, columns]) for columns in ends)
        return q, k, v

    def _heads(self, features: Array) -> Array:
        """A view [H,T,F] of [T,H F]."""
        return features.reshape(len(features), self.cell.n_heads, -1).transpose(1, 0, 2)
