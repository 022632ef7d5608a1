"""Forward and backward of ``gated_delta`` over one segment, with all memory taken beforehand.

Products with float32 are BLAS calls; all else are kernels.
"""

from __future__ import annotations

import numpy as np

from edgelm.cells.buffers import make_buffers, matrix_of
from edgelm.cells.cell import Array, Parts
from edgelm.cells.gated_delta.paper import CONV_WIDTH, GatedDelta, decay_rates
from edgelm.kernels import conv as conv_kernels
from edgelm.kernels import decay as decay_kernels
from edgelm.kernels import norm as norm_kernels
from edgelm.kernels import slope as slope_kernels
from edgelm.matrices.matrix import Operands

SMALL = ("norm", "conv", "decay_bias", "write_bias", "decay_base", "decay_step", "head_norm")
"""Tensors whose gradients are always made."""
_SHARED = ("p", "vs", "mixed", "ys", "yd")
"""Buffers that hold nothing between forward and backward, beside the gradients."""


def _columns(sizes: dict[str, int]) -> list[tuple[str, slice]]:
    """Parts that stand side by side, and their columns."""
    ends = np.cumsum(list(sizes.values())).tolist()
    return [(name, slice(end - size, end)) for (name, size), end in zip(sizes.items(), ends, strict=True)]


class Pass:
    """One layer's slope and decay section. Parameters and methods: ``edgelm.cells.passes.Pass``."""

    def __init__(
        self, cell: GatedDelta, weights: Operands, grads: Parts, max_steps: int, shared_buffers: Parts
    ) -> None:
        c = self.cell = cell
        self.grads, self.workspace = grads, shared_buffers["workspace"]
        self.w = {name: np.asarray(weights[name]) for name in SMALL}
        self.w_in, self.w_out = (matrix_of(c, weights, name) for name in ("w_in", "w_out"))
        dtype = self.w["norm"].dtype
        self.dtype, self.eps = dtype, dtype.type(c.norm_eps)
        self.width = c.slope_dim // c.n_channels
        self.slope_decay = np.repeat(c.channel_decays(), self.width).astype(dtype)
        keys, heads = c.n_heads * c.key_dim, c.n_heads
        sizes = {"u": c.conv_dim, "us": c.slope_dim, "ud": c.decay_dim, "raw": 2 * heads}
        self.parts, self.mixed_parts = (
            _columns(sizes),
            _columns({"vs": c.slope_dim, "qk_in": 2 * keys, "vd_in": c.decay_dim}),
        )
        widths = {
            "h": c.d_model, "dh": c.d_model, "p": sum(sizes.values()), "dp": sum(sizes.values()),
            "u": c.conv_dim, "mixed": c.conv_dim, "dmixed": c.conv_dim, "du": c.conv_dim,
            "us": c.slope_dim, "ud": c.decay_dim, "raw": 2 * heads, "draw": 2 * heads,
            "dus": c.slope_dim, "dud": c.decay_dim,
            "vs": c.slope_dim, "m": c.slope_dim, "norms": c.slope_dim, "dm": c.slope_dim, "dvs": c.slope_dim,
            "qk_in": 2 * keys, "qk": 2 * keys, "dqk": 2 * keys, "dqk_in": 2 * keys, "qk_inverse": 2 * heads,
            "q": keys, "k": keys, "dq": keys, "dk": keys,
            "vd_in": c.decay_dim, "vd": c.decay_dim, "dvd": c.decay_dim, "dvd_in": c.decay_dim,
            "o": c.decay_dim, "do": c.decay_dim,
            "g": heads, "beta": heads, "dg": heads, "dbeta": heads, "o_inverse": heads,
            "ys": c.slope_dim, "yd": c.decay_dim, "mix": c.mix_dim, "dmix": c.mix_dim,
        }  # fmt: skip
        # No kernel works in place: where what it writes may be what it reads, its loops do not vectorise.
        self.buffers = make_buffers(widths, max_steps, dtype, shared_buffers, _SHARED)
        self.b = self.buffers
        self.inverse = np.zeros(max_steps, dtype)
        self.last = np.zeros((CONV_WIDTH - 1, c.conv_dim), dtype)
        self.taps, self.dtaps = np.zeros((2, CONV_WIDTH, c.conv_dim), dtype)
        matrix = (c.key_dim, c.value_dim)
        self.checkpoints = np.zeros((max_steps // decay_kernels.CHUNK + 1, heads, *matrix), dtype)
        self.scratch = np.zeros((decay_kernels.CHUNK + 3, *matrix), dtype)
        self.dstate = np.zeros((heads, *matrix), dtype)
        self.e = np.zeros(c.value_dim, dtype)
        self.dslope, self.drate = np.zeros(c.slope_dim, dtype), np.zeros(heads, dtype)

    def forward(self, x: Array, y: Array, state: Parts, shared: Parts) -> None:
        """As of ``edgelm.cells.passes.Pass``."""
        c, w = self.cell, self.w
        if len(x) != len(self.b["h"]):
            self.b = {name: buffer[: len(x)] for name, buffer in self.buffers.items()}
        self.x, b = x, self.b
        heads, keys = c.n_heads, c.n_heads * c.key_dim
        norm_kernels.rms_forward(x, w["norm"], self.eps, self.inverse, b["h"])
        self.w_in.product(b["h"], self.workspace, b["p"])
        for part, columns in self.parts:
            b[part][:] = b["p"][:, columns]
        self.last[:] = state["conv"][0]
        self.taps[:] = w["conv"].T
        conv_kernels.conv_forward(b["u"], self.taps, self.last, b["mixed"])
        state["conv"][0] = np.concatenate([self.last, b["u"][1 - CONV_WIDTH :]])[1 - CONV_WIDTH :]
        for part, columns in self.mixed_parts:
            b[part][:] = b["mixed"][:, columns]

        count = np.repeat(shared["slope"].reshape(-1), self.width)
        slope_kernels.slope_forward(b["vs"], self.slope_decay, count, state["slope"].reshape(-1), b["norms"], b["m"])
        norm_kernels.gate_forward(b["m"], b["us"], b["ys"])

        norm_kernels.silu_l2_forward(b["qk_in"], 2 * heads, self.dtype.type(1e-6), b["qk_inverse"], b["qk"])
        b["q"][:], b["k"][:] = b["qk"][:, :keys], b["qk"][:, keys:]
        norm_kernels.silu_forward(b["vd_in"], b["vd"])
        self.rate = decay_rates(w["decay_base"], w["decay_step"]).astype(self.dtype)
        decay_kernels.gates_forward(b["raw"], w["decay_bias"], w["write_bias"], self.rate, b["g"], b["beta"])
        q, k, v, o = self._heads("q", "k", "vd", "o")
        decay_kernels.decay_forward(q, k, v, b["g"], b["beta"], self.e, self.checkpoints, state["decay"][0], o)
        norm_kernels.gated_norm_forward(b["o"], w["head_norm"], b["ud"], self.eps, b["o_inverse"], b["yd"])
        b["mix"][:, : c.slope_dim], b["mix"][:, c.slope_dim :] = b["ys"], b["yd"]
        y += self.w_out.product(b["mix"], self.workspace, b["dh"])

    def backward(self, dy: Array, dx: Array) -> None:
        """As of ``edgelm.cells.passes.Pass``."""
        c, w, b = self.cell, self.w, self.b
        keys = c.n_heads * c.key_dim
        small = {name: self.grads[name] for name in SMALL}
        for gradient in small.values():
            gradient[:] = 0
        if "w_out" in self.grads:
            np.dot(b["mix"].T, dy, out=self.grads["w_out"])
        self.w_out.product_back(dy, self.workspace, b["dmix"])
        b["ys"][:], b["yd"][:] = b["dmix"][:, : c.slope_dim], b["dmix"][:, c.slope_dim :]

        norm_kernels.gated_norm_backward(
            b["yd"], b["o"], w["head_norm"], b["ud"], b["o_inverse"], b["do"], b["dud"], small["head_norm"]
        )
        self.dstate[:] = 0
        do, q, k, v, dq, dk, dv = self._heads("do", "q", "k", "vd", "dq", "dk", "dvd")
        decay_kernels.decay_backward(
            do, q, k, v, b["g"], b["beta"], self.checkpoints, self.scratch, self.dstate,
            dq, dk, dv, b["dg"], b["dbeta"],
        )  # fmt: skip
        self.drate[:] = 0
        decay_kernels.gates_backward(
            b["dg"], b["dbeta"], b["raw"], w["decay_bias"], self.rate, b["g"], b["beta"],
            b["draw"], small["decay_bias"], small["write_bias"], self.drate,
        )  # fmt: skip
        self._rate_gradients(small)
        b["dqk"][:, :keys], b["dqk"][:, keys:] = b["dq"], b["dk"]
        norm_kernels.silu_l2_backward(b["dqk"], b["qk_in"], 2 * c.n_heads, b["qk"], b["qk_inverse"], b["dqk_in"])
        norm_kernels.silu_backward(b["dvd"], b["vd_in"], b["dvd_in"])

        norm_kernels.gate_backward(b["ys"], b["m"], b["us"], b["dm"], b["dus"])
        self.dslope[:] = 0
        slope_kernels.slope_backward(b["dm"], self.slope_decay, b["norms"], self.dslope, b["dvs"])
        np.concatenate([b["dvs"], b["dqk_in"], b["dvd_in"]], 1, out=b["dmixed"])
        self.dtaps[:] = 0
        conv_kernels.conv_backward(b["dmixed"], b["u"], self.taps, self.last, b["du"], self.dtaps)
        small["conv"][:] = self.dtaps.T

        np.concatenate([b["du"], b["dus"], b["dud"], b["draw"]], 1, out=b["dp"])
        if "w_in" in self.grads:
            np.dot(b["h"].T, b["dp"], out=self.grads["w_in"])
        self.w_in.product_back(b["dp"], self.workspace, b["dh"])
        norm_kernels.rms_backward(b["dh"], self.x, w["norm"], self.inverse, dx, small["norm"])

    def _heads(self, *names: str) -> list[Array]:
        return [self.b[name].reshape(len(self.b[name]), self.cell.n_heads, -1) for name in names]

    def _rate_gradients(self, small: Parts) -> None:
        # A = exp(base + cumsum(softplus(step))): each step moves its own rate and all later ones.
        scaled = self.drate * self.rate
        small["decay_base"][:] = scaled.sum()
        later = np.cumsum(scaled[::-1])[::-1]
        small["decay_step"][:] = later / (1 + np.exp(-self.w["decay_step"]))
