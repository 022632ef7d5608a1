"""``gated_delta`` by kernels, with all memory taken beforehand: forward and backward over a segment, and answering.

Products with float32 are BLAS calls; all else are kernels, so that where matrices are integers a pass does nothing but
call them.
"""

from __future__ import annotations

import numpy as np

from edgelm.cells.buffers import Taking, are_calls, integer_buffers, integers_of, make_buffers, matrix_of
from edgelm.cells.cell import Array, Parts
from edgelm.cells.gated_delta.paper import CONV_WIDTH, GatedDelta, decay_rates
from edgelm.kernels import arrays, fused
from edgelm.kernels import chunks as chunk_kernels
from edgelm.kernels import columns as column_kernels
from edgelm.kernels import conv as conv_kernels
from edgelm.kernels import decay as decay_kernels
from edgelm.kernels import norm as norm_kernels
from edgelm.kernels import slope as slope_kernels
from edgelm.kernels.norm import ZERO
from edgelm.matrices.matrix import Operands

SMALL = ("norm", "conv", "decay_bias", "write_bias", "decay_base", "decay_step", "head_norm")
"""Tensors whose gradients are always made."""
_SHARED = ("norms",)
"""Buffers that hold nothing between forward and backward, beside the gradients, or the same in all layers: the running
counts depend on the position alone."""


class Pass(Taking):
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
        # Where columns of the wide arrays begin: of p = [u | us | ud | raw], and of the heads in the mixed ones.
        self.us, self.ud, self.of_heads = c.conv_dim, c.conv_dim + c.slope_dim, c.slope_dim
        wide = c.conv_dim + c.mix_dim + 2 * heads
        widths = {
            "h": c.d_model, "dh": c.d_model, "p": wide, "dp": wide, "mixed": c.conv_dim, "dmixed": c.conv_dim,
            "m": c.slope_dim, "norms": c.slope_dim, "dm": c.slope_dim,
            "q": keys, "k": keys, "dq": keys, "dk": keys, "qk_inverse": 2 * heads,
            "vd": c.decay_dim, "dvd": c.decay_dim, "o": c.decay_dim, "do": c.decay_dim,
            "g": heads, "beta": heads, "dg": heads, "dbeta": heads, "o_inverse": heads,
            "mix": c.mix_dim, "dmix": c.mix_dim,
        }  # fmt: skip
        # No kernel works in place: where what it writes may be what it reads, its loops do not vectorise.
        self.buffers = make_buffers(widths, max_steps, dtype, shared_buffers, _SHARED)
        self.b = self.buffers
        self.inverse = np.zeros(max_steps, dtype)
        self.last = np.zeros((CONV_WIDTH - 1, c.conv_dim), dtype)
        self.taps, self.dtaps = np.zeros((2, CONV_WIDTH, c.conv_dim), dtype)
        matrix = (c.key_dim, c.value_dim)
        self.checkpoints = np.zeros((max_steps // decay_kernels.CHUNK + 1, heads, *matrix), dtype)
        # Heads of a multiple of 32 are products of matrices, others go token by token.
        self.in_chunks = chunk_kernels.fits(*matrix)
        shape = (chunk_kernels.workspace_size(*matrix),) if self.in_chunks else (decay_kernels.CHUNK + 3, *matrix)
        self.scratch = shared_buffers.setdefault(f"scratch of decay {shape}", np.zeros(shape, dtype))
        self.dstate = np.zeros((heads, *matrix), dtype)
        self.e = np.zeros(c.value_dim, dtype)
        self.count, self.dslope = np.zeros((2, c.slope_dim), dtype)
        self.rate, self.drate = np.zeros((2, heads), dtype)
        self.are_calls = are_calls(self.w_in, self.w_out)

    def forward(self, x: Array, y: Array, state: Parts, shared: Parts) -> None:
        """As of ``edgelm.cells.passes.Pass``."""
        self.take(x)
        w, b = self.w, self.b
        norm_kernels.rms_forward(x, w["norm"], self.eps, self.inverse, b["h"])
        p = self.w_in.product(b["h"], self.workspace, b["p"])
        last = state["conv"][0]
        arrays.copy(last.reshape(-1), self.last.reshape(-1))
        arrays.transpose(w["conv"], self.taps)
        conv_kernels.conv_forward(p, self.taps, self.last, b["mixed"])
        conv_kernels.conv_last(p, self.last, last)

        arrays.repeat(shared["slope"].reshape(-1), self.width, self.count)
        slope = state["slope"].reshape(-1)
        slope_kernels.slope_forward(b["mixed"], self.slope_decay, self.count, slope, b["norms"], b["m"])
        column_kernels.gate_columns_forward(b["m"], p, self.us, b["mix"])

        q, k, v, o = self._heads("q", "k", "vd", "o")
        column_kernels.heads_forward(b["mixed"], self.of_heads, self.dtype.type(1e-6), b["qk_inverse"], q, k, v)
        decay_kernels.rates_forward(w["decay_base"], w["decay_step"], self.rate)
        decay_kernels.gates_forward(p, w["decay_bias"], w["write_bias"], self.rate, b["g"], b["beta"])
        memory, gates = state["decay"][0], (b["g"], b["beta"])
        if self.in_chunks:
            chunk_kernels.chunks_forward((q, k, v), gates, self.scratch, self.checkpoints, memory, o)
        else:
            decay_kernels.decay_forward(q, k, v, *gates, self.e, self.checkpoints, memory, o)
        column_kernels.norm_columns_forward(b["o"], w["head_norm"], p, self.ud, self.eps, b["o_inverse"], b["mix"])
        out = self.w_out.product(b["mix"], self.workspace, b["dh"])
        arrays.add(out.reshape(-1), y.reshape(-1))

    def backward(self, dy: Array, dx: Array) -> None:
        """As of ``edgelm.cells.passes.Pass``."""
        w, b = self.w, self.b
        p, dp, dmix, dmixed = b["p"], b["dp"], b["dmix"], b["dmixed"]
        small = {name: self.grads[name] for name in SMALL}
        for zeroed in (*small.values(), self.dstate, self.drate, self.dslope, self.dtaps):
            arrays.fill(zeroed.reshape(-1), ZERO)
        if "w_out" in self.grads:
            np.dot(b["mix"].T, dy, out=self.grads["w_out"])
        self.w_out.product_back(dy, self.workspace, dmix)

        column_kernels.norm_columns_backward(
            dmix, b["o"], w["head_norm"], p, self.ud, b["o_inverse"], b["do"], dp, small["head_norm"]
        )
        do, q, k, v, dq, dk, dv = self._heads("do", "q", "k", "vd", "dq", "dk", "dvd")
        given, gates, dgates = (q, k, v), (b["g"], b["beta"]), (b["dg"], b["dbeta"])
        rest = (self.checkpoints, self.scratch, self.dstate)
        if self.in_chunks:
            chunk_kernels.chunks_backward(do, given, gates, *rest, (dq, dk, dv), dgates)
        else:
            decay_kernels.decay_backward(do, *given, *gates, *rest, dq, dk, dv, *dgates)
        decay_kernels.gates_backward(
            b["dg"], b["dbeta"], p, w["decay_bias"], self.rate, b["g"], b["beta"],
            dp, small["decay_bias"], small["write_bias"], self.drate,
        )  # fmt: skip
        decay_kernels.rates_backward(self.drate, self.rate, w["decay_step"], small["decay_base"], small["decay_step"])
        column_kernels.heads_backward(dq, dk, dv, b["mixed"], self.of_heads, q, k, b["qk_inverse"], dmixed)

        column_kernels.gate_columns_backward(dmix, b["m"], p, self.us, b["dm"], dp)
        slope_kernels.slope_backward(b["dm"], self.slope_decay, b["norms"], self.dslope, dmixed)
        conv_kernels.conv_backward(dmixed, p, self.taps, self.last, dp, self.dtaps)
        arrays.transpose(self.dtaps, small["conv"])

        if "w_in" in self.grads:
            np.dot(b["h"].T, b["dp"], out=self.grads["w_in"])
        self.w_in.product_back(b["dp"], self.workspace, b["dh"])
        norm_kernels.rms_backward(b["dh"], self.x, w["norm"], self.inverse, dx, small["norm"])

    def _heads(self, *names: str) -> list[Array]:
        return [self.b[name].reshape(len(self.b[name]), self.cell.n_heads, -1) for name in names]


def begin(cell: GatedDelta, shared: Parts, n_steps: int, buffers: Parts) -> None:
    """Counts on; leaves 1 / z of every feature of the slope section, [T,S]. See ``edgelm.cells.passes.Answer``."""
    z, decay, inverse = shared["slope"].reshape(-1), buffers["channel decays"], buffers["inverse counts"]
    for t in range(n_steps):
        z *= decay
        z += 1
        inverse[t].reshape(len(z), -1)[:] = (1 / z)[:, None]


class Answer:
    """One layer's slope and decay section. Parameters and methods: ``edgelm.cells.passes.Answer``."""

    def __init__(self, cell: GatedDelta, weights: Operands, state: Parts, max_steps: int, buffers: Parts) -> None:
        c, w = cell, {name: np.asarray(weights[name]) for name in SMALL}
        buffers.setdefault("channel decays", c.channel_decays().astype(np.float32))
        self.inverse = buffers.setdefault("inverse counts", np.zeros((max_steps, c.slope_dim), np.float32))
        self.decay = np.repeat(buffers["channel decays"], c.slope_dim // c.n_channels)
        rate = decay_rates(w["decay_base"], w["decay_step"]).astype(np.float32)
        taps = np.ascontiguousarray(w["conv"].T)
        self.matrices = integers_of(weights, "w_in", "w_out")
        self.gains = (w["norm"], taps, w["decay_bias"], w["write_bias"], rate, w["head_norm"])
        self.state = (state["slope"].reshape(-1), state["conv"][0], state["decay"][0])
        self.eps = np.float32(c.norm_eps)
        self.shared = integer_buffers(max(c.d_model, c.mix_dim), c.d_model, max_steps, buffers)
        sizes = {
            "c": (c.conv_dim,),
            "gates": (3,),
            "p": (max_steps, cell.tensors()["w_in"].shape[1]),
            "mix": (max_steps, c.mix_dim),
        }
        self.own = [buffers.setdefault(f"{name}.{n}", np.zeros(n, np.float32)) for name, n in sizes.items()]
        self.of: tuple[int, tuple[Array, ...], tuple[Array, ...]] = (0, (), ())

    def forward(self, x: Array) -> None:
        """As of ``edgelm.cells.passes.Answer``."""
        if self.of[0] != len(x):
            c, gates, p, mix = self.own
            self.of = (len(x), (self.decay, self.inverse[: len(x)]), (c, gates, p[: len(x)], mix[: len(x)]))
        _, counts, own = self.of
        fused.gated_delta(x, self.matrices, self.gains, counts, self.state, self.eps, self.shared, own)
