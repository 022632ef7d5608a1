"""Forward and backward of a mixer over one segment, with all memory taken beforehand.

A pass has ``forward(x, y, state)``, which adds its contribution to y and moves the state of its layer
on, and ``backward(dy, dx)``, which adds to dx and fills its gradients. Products with float32 are BLAS calls;
all else are kernels. Equations: ``edgelm.model.reference.mixer``.
"""

from __future__ import annotations

import numpy as np

from edgelm.config import ModelConfig
from edgelm.kernels import conv as conv_kernels
from edgelm.kernels import decay as decay_kernels
from edgelm.kernels import norm as norm_kernels
from edgelm.kernels import slope as slope_kernels
from edgelm.learn.products import Product
from edgelm.model.packing import Operands, plain
from edgelm.model.reference import State, decay_rates, slope_decays
from edgelm.model.weights import Weights

Array = np.ndarray


def make_buffers(widths: dict[str, int], max_steps: int, dtype: np.dtype, passing: Weights) -> Weights:
    """Arrays [max_steps, width] by name.

    Those that hold nothing between two calls, gradients (d...) and a few more, are the same for all passes, and
    so stay in cache; they are kept in ``passing``.
    """
    buffers: Weights = {}
    for name, width in widths.items():
        room = passing if name in _PASSING or name.startswith("d") else {}
        buffers[name] = room.setdefault(name, np.zeros((max_steps, width), dtype))
    return buffers


def _columns(sizes: dict[str, int]) -> list[tuple[str, slice]]:
    """Parts that stand side by side, and their columns."""
    ends = np.cumsum(list(sizes.values())).tolist()
    return [(name, slice(end - size, end)) for (name, size), end in zip(sizes.items(), ends, strict=True)]


class GatedMixerPass:
    """``mcsd_g``: slope section, and decay section with the gated delta rule.

    Parameters
    ----------
    config : ModelConfig
    weights : dict of ndarray
        Read at every pass, so that changed weights count at once; ``w_in`` and ``w_out`` may be integers.
    layer : int
    grads : dict of ndarray
        Gradients are written here; a dense matrix that is not in it gets none.
    max_steps : int
        Longest segment.
    passing : dict of ndarray
        What the passes of all layers share, see ``make_buffers``; ``room`` is that of ``Product``.
    """

    def __init__(
        self, config: ModelConfig, weights: Operands, layer: int, grads: Weights, max_steps: int, passing: Weights
    ) -> None:
        c = self.config = config
        self.layer, self.prefix, self.grads = layer, f"layers.{layer}.mixer.", grads
        self.w = {name: np.asarray(weights[self.prefix + name]) for name in _GATED_SMALL}
        self.w_in, self.w_out = (Product(weights[self.prefix + name], passing["room"]) for name in ("w_in", "w_out"))
        dtype = self.w["norm"].dtype
        self.dtype, self.eps = dtype, dtype.type(c.norm_eps)
        self.slope_decay = slope_decays(c).astype(dtype)
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
        self.buffers = make_buffers(widths, max_steps, dtype, passing)
        self.b = self.buffers
        self.inverse = np.zeros(max_steps, dtype)
        self.last = np.zeros((3, c.conv_dim), dtype)
        self.taps, self.dtaps = np.zeros((4, c.conv_dim), dtype), np.zeros((4, c.conv_dim), dtype)
        matrix = (c.key_dim, c.value_dim)
        self.checkpoints = np.zeros((max_steps // decay_kernels.CHUNK + 1, heads, *matrix), dtype)
        self.scratch = np.zeros((decay_kernels.CHUNK + 3, *matrix), dtype)
        self.dstate = np.zeros((heads, *matrix), dtype)
        self.e = np.zeros(c.value_dim, dtype)
        self.dslope, self.drate = np.zeros(c.slope_dim, dtype), np.zeros(heads, dtype)

    def forward(self, x: Array, y: Array, state: State) -> None:
        """x, y [T,D]; y is added to; ``state`` of this layer is updated in place."""
        c, w, layer = self.config, self.w, self.layer
        if len(x) != len(self.b["h"]):
            self.b = {name: buffer[: len(x)] for name, buffer in self.buffers.items()}
        self.x, b = x, self.b
        heads, keys = c.n_heads, c.n_heads * c.key_dim
        norm_kernels.rms_forward(x, w["norm"], self.eps, self.inverse, b["h"])
        self.w_in.forward(b["h"], b["p"])
        for part, columns in self.parts:
            b[part][:] = b["p"][:, columns]
        self.last[:] = state.conv[layer]
        self.taps[:] = w["conv"].T
        conv_kernels.conv_forward(b["u"], self.taps, self.last, b["mixed"])
        state.conv[layer] = np.concatenate([self.last, b["u"][-3:]])[-3:]
        for part, columns in self.mixed_parts:
            b[part][:] = b["mixed"][:, columns]

        norm = state.norm.copy()
        slope_kernels.slope_forward(b["vs"], self.slope_decay, norm, state.slope[layer], b["norms"], b["m"])
        norm_kernels.gate_forward(b["m"], b["us"], b["ys"])

        norm_kernels.silu_l2_forward(b["qk_in"], 2 * heads, self.dtype.type(1e-6), b["qk_inverse"], b["qk"])
        b["q"][:], b["k"][:] = b["qk"][:, :keys], b["qk"][:, keys:]
        norm_kernels.silu_forward(b["vd_in"], b["vd"])
        self.rate = decay_rates(w["decay_base"], w["decay_step"]).astype(self.dtype)
        decay_kernels.gates_forward(b["raw"], w["decay_bias"], w["write_bias"], self.rate, b["g"], b["beta"])
        q, k, v, o = self._heads("q", "k", "vd", "o")
        decay_kernels.decay_forward(q, k, v, b["g"], b["beta"], self.e, self.checkpoints, state.decay[layer], o)
        norm_kernels.gated_norm_forward(b["o"], w["head_norm"], b["ud"], self.eps, b["o_inverse"], b["yd"])
        b["mix"][:, : c.slope_dim], b["mix"][:, c.slope_dim :] = b["ys"], b["yd"]
        y += self.w_out.forward(b["mix"], b["dh"])

    def backward(self, dy: Array, dx: Array) -> None:
        """dy, dx [T,D]; dx is added to."""
        c, w, b = self.config, self.w, self.b
        keys = c.n_heads * c.key_dim
        small = {name: self.grads[self.prefix + name] for name in _GATED_SMALL}
        for gradient in small.values():
            gradient[:] = 0
        if self.prefix + "w_out" in self.grads:
            np.dot(b["mix"].T, dy, out=self.grads[self.prefix + "w_out"])
        self.w_out.backward(dy, b["dmix"])
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
        if self.prefix + "w_in" in self.grads:
            np.dot(b["h"].T, b["dp"], out=self.grads[self.prefix + "w_in"])
        self.w_in.backward(b["dp"], b["dh"])
        norm_kernels.rms_backward(b["dh"], self.x, w["norm"], self.inverse, dx, small["norm"])

    def _heads(self, *names: str) -> list[Array]:
        return [self.b[name].reshape(len(self.b[name]), self.config.n_heads, -1) for name in names]

    def _rate_gradients(self, small: Weights) -> None:
        # A = exp(base + cumsum(softplus(step))): each step moves its own rate and all later ones.
        scaled = self.drate * self.rate
        small["decay_base"][:] = scaled.sum()
        later = np.cumsum(scaled[::-1])[::-1]
        small["decay_step"][:] = later / (1 + np.exp(-self.w["decay_step"]))


class PublishedMixerPass:
    """``mcsd``: the published block; vector states with fixed decays, block-diagonal projections."""

    def __init__(
        self, config: ModelConfig, weights: Operands, layer: int, grads: Weights, max_steps: int, passing: Weights
    ) -> None:
        self.config, self.layer, self.prefix, self.grads = config, layer, f"layers.{layer}.mixer.", grads
        self.w = {name: plain(weights[self.prefix + name], name) for name in ("norm", "w_in", "w_out")}
        dtype = self.w["norm"].dtype
        self.eps, self.slope_decay = dtype.type(config.norm_eps), slope_decays(config).astype(dtype)
        self.inverse = np.zeros(max_steps, dtype)

    def forward(self, x: Array, y: Array, state: State) -> None:
        """x, y [T,D]; y is added to; ``state`` of this layer is updated in place."""
        c, w = self.config, self.w
        self.x, self.h = x, np.empty_like(x)
        norm_kernels.rms_forward(x, w["norm"], self.eps, self.inverse, self.h)
        self.parts = self.h.reshape(len(x), c.n_channels, -1).transpose(1, 0, 2)
        projected = np.matmul(self.parts, w["w_in"]).transpose(1, 0, 2)
        v, u = np.split(projected, 2, axis=-1)
        self.v, self.u = (np.ascontiguousarray(part).reshape(len(x), -1) for part in (v, u))
        self.m, self.norms, self.mix = np.empty_like(self.v), np.empty_like(self.v), np.empty_like(self.v)
        slope_kernels.slope_forward(
            self.v, self.slope_decay, state.norm.copy(), state.slope[self.layer], self.norms, self.m
        )
        norm_kernels.gate_forward(self.m, self.u, self.mix)
        y += self.mix @ w["w_out"]

    def backward(self, dy: Array, dx: Array) -> None:
        """dy, dx [T,D]; dx is added to."""
        c, w, dmix = self.config, self.w, dy @ self.w["w_out"].T
        dm, du, dv = np.empty_like(dmix), np.empty_like(dmix), np.empty_like(dmix)
        norm_kernels.gate_backward(dmix, self.m, self.u, dm, du)
        slope_kernels.slope_backward(dm, self.slope_decay, self.norms, np.zeros_like(self.slope_decay), dv)
        shape = (len(dy), c.n_channels, -1)
        dprojected = np.concatenate([dv.reshape(shape), du.reshape(shape)], -1).transpose(1, 0, 2)
        for name, a, b in (("w_in", self.parts.transpose(0, 2, 1), dprojected), ("w_out", self.mix.T, dy)):
            if self.prefix + name in self.grads:
                np.matmul(a, b, out=self.grads[self.prefix + name])
        dh = np.matmul(dprojected, w["w_in"].transpose(0, 2, 1)).transpose(1, 0, 2).reshape(dy.shape)
        gradient = self.grads[self.prefix + "norm"]
        gradient[:] = 0
        norm_kernels.rms_backward(np.ascontiguousarray(dh), self.x, w["norm"], self.inverse, dx, gradient)


_GATED_SMALL = ("norm", "conv", "decay_bias", "write_bias", "decay_base", "decay_step", "head_norm")
_PASSING = ("p", "vs", "mixed", "ys", "yd", "a0", "part")
