"""``rwkv7_time_mix`` by kernels, with all memory taken beforehand: forward and backward over a segment, and
answering."""

from __future__ import annotations

import numpy as np

from edgelm.cells.buffers import integer_buffers, integers_of, make_buffers, matrix_of
from edgelm.cells.cell import Array, Parts
from edgelm.cells.rwkv7_time_mix.paper import DECAY_SCALE, HEAD_EPS, LEAST_LENGTH, MIXES, Rwkv7TimeMix
from edgelm.kernels import rwkv7
from edgelm.kernels import shift as shift_kernels
from edgelm.kernels import wkv as kernels
from edgelm.matrices.matrix import Operands

SMALL = (
    "norm", "norm_bias", *MIXES, "w0", "a0", "v0", "k_k", "k_a", "r_k", "head_norm", "head_norm_bias",
)  # fmt: skip
"""Tensors whose gradients are always made."""
_SHARED = ("h_out", "raw", "of_first")
"""Buffers that hold nothing between forward and backward, beside the gradients."""
_OF_MATRICES = ("y", "mix", *MIXES)
"""Those that backward reads only if gradients of matrices are wanted."""
_GIVEN = ("r", "keep", "written", "v", "kk", "a")
"""What the recurrence takes."""


class Pass:
    """One layer's memories. Parameters and methods: ``edgelm.cells.passes.Pass``.

    The gradient of v_first is gathered in ``shared_buffers`` by all layers; the first, which made it, goes on with it.
    """

    def __init__(
        self, cell: Rwkv7TimeMix, weights: Operands, grads: Parts, max_steps: int, shared_buffers: Parts
    ) -> None:
        c = self.cell = cell
        self.grads, self.workspace = grads, shared_buffers["workspace"]
        self.w = {name: np.asarray(weights[name]) for name in SMALL}
        self.m = {name: matrix_of(c, weights, name) for name in c.MATRICES}
        dtype = self.dtype = self.w["norm"].dtype
        self.eps, self.head_eps = dtype.type(c.norm_eps), dtype.type(HEAD_EPS)
        self.scale, self.least = dtype.type(DECAY_SCALE), dtype.type(LEAST_LENGTH)
        d, heads = c.d_model, c.n_heads
        names = ("h", "plain", *MIXES, "r", "k", "v", "v_own", "gate_w", "keep", "a", "g", "share", "kk", "written")
        widths = dict.fromkeys((*names, "y", "y_plain", "open", "mix", *_SHARED), d)
        widths |= dict.fromkeys(
            ("dh", "dx_", "dr", "dk", "dv", "dkeep", "da", "dg", "dkk", "dwritten", "dy", "dmix"), d
        )
        widths |= {"inverse_k": heads, "inverse_y": heads}
        ranks = {"w": c.decay_rank, "a": c.rate_rank, "v": c.mix_rank, "g": c.gate_rank}
        for name, rank in ranks.items():
            widths[f"low_{name}"] = widths[f"dlow_{name}"] = rank
        shared = _SHARED if grads.keys() & c.MATRICES.keys() else (*_SHARED, *_OF_MATRICES)
        self.buffers = make_buffers(widths, max_steps, dtype, shared_buffers, shared)
        self.b = self.buffers
        self.inverse = np.zeros(max_steps, dtype)
        self.before, self.memory_before = np.zeros(d, dtype), np.zeros((heads, c.head_dim, c.head_dim), dtype)
        size = c.head_dim
        shapes = {"wkv history": (max_steps + 1, size, size), "wkv removed": (max_steps, size)}
        shapes |= {"wkv du": (size,), "wkv ds": (size, size)}
        self.of_memory = [shared_buffers.setdefault(f"{n} {s}", np.zeros(s, dtype)) for n, s in shapes.items()]
        self.first_buffer, self.dfirst = (
            shared_buffers.setdefault(name, np.zeros((max_steps, d), dtype)) for name in ("v_first", "dv_first")
        )

    def forward(self, x: Array, y: Array, state: Parts, shared: Parts) -> None:
        """As of ``edgelm.cells.passes.Pass``."""
        w = self.w
        if len(x) != len(self.b["h"]):
            self.b = {name: buffer[: len(x)] for name, buffer in self.buffers.items()}
        b = self.b
        self.before[:] = state["time_shift"][0]
        shift_kernels.layer_forward(x, w["norm"], w["norm_bias"], self.eps, self.inverse, b["plain"], b["h"])
        state["time_shift"][0] = b["h"][-1]
        for name in MIXES:
            shift_kernels.mix_forward(b["h"], self.before, w[name], b[name])

        self._product("receptance", "x_r", "r")
        self._product("key", "x_k", "k")
        self._product("value", "x_v", "v_own")
        kernels.decay_forward(self._low_rank("w", kernels.tanh_forward), w["w0"], self.scale, b["gate_w"], b["keep"])
        kernels.biased_sigmoid(self._low_rank("a"), w["a0"], b["a"])
        b["g"][:] = self._low_rank("g", kernels.sigmoid_forward)
        # What the first layer makes is for all those after it, in this segment.
        self.is_first = "v_first" not in shared
        if self.is_first:
            shared["v_first"] = self.first_buffer[: len(x)]
            shared["v_first"][:] = b["v_own"]
            self.dfirst[: len(x)] = 0
        self.first = shared["v_first"]
        kernels.biased_sigmoid(self._low_rank("v"), w["v0"], b["share"])
        np.subtract(self.first, b["v_own"], out=b["of_first"])
        b["of_first"] *= b["share"]
        np.add(b["v_own"], b["of_first"], out=b["v"])

        kernels.keys_forward(b["k"], b["a"], w["k_k"], w["k_a"], self.least, b["inverse_k"], b["kk"], b["written"])
        memory = state["memory"][0]
        self.memory_before[:] = memory
        kernels.wkv_forward(tuple(b[name] for name in _GIVEN), memory, b["y"])
        of_heads = (w["head_norm"], w["head_norm_bias"], w["r_k"])
        made = (b["inverse_y"], b["y_plain"], b["open"])
        kernels.read_forward(b["y"], self._read(), of_heads, self.head_eps, made, b["mix"])
        y += self._product("output", "mix", "h_out")

    def _read(self) -> tuple[Array, ...]:
        return tuple(self.b[name] for name in ("r", "written", "v", "g"))

    def _product(self, name: str, given: str, out: str) -> Array:
        return self.m[name].product(self.b[given], self.workspace, self.b[out])

    def _low_rank(self, name: str, between: object = None) -> Array:
        """The product with both small matrices, in a buffer that the next call overwrites."""
        self._product(name + "1", "x_" + name, "low_" + name)
        if callable(between):
            between(self.b["low_" + name])
        return self._product(name + "2", "low_" + name, "raw")

    def backward(self, dy: Array, dx: Array) -> None:
        """As of ``edgelm.cells.passes.Pass``."""
        w, b = self.w, self.b
        small = {name: self.grads[name] for name in SMALL}
        for gradient in small.values():
            gradient[:] = 0
        b["dh"][:] = 0
        self._back("output", dy, "mix", b["dmix"])
        made = (b["inverse_y"], b["y_plain"], b["open"])
        grads = tuple(b[name] for name in ("dy", "dr", "dwritten", "dv", "dg"))
        of_heads = tuple(small[name] for name in ("head_norm", "head_norm_bias", "r_k"))
        kernels.read_backward(b["dmix"], self._read(), (w["head_norm"], w["r_k"]), made, grads, of_heads)
        self._memory_backward()
        dkeys, of_keys = (b["dkk"], b["dwritten"]), (small["k_k"], small["k_a"])
        keys = (b["inverse_k"], b["kk"])
        kernels.keys_backward(dkeys, (b["k"], b["a"]), (w["k_k"], w["k_a"]), keys, (b["dk"], b["da"]), of_keys)

        self._values_backward()
        self._through("receptance", b["dr"], "x_r")
        self._through("key", b["dk"], "x_k")
        self._low_rank_backward("g", b["dg"])
        # da and dkeep become the gradients before their sigmoids.
        b["da"] *= b["a"]
        np.subtract(1, b["a"], out=b["raw"])
        b["da"] *= b["raw"]
        self._low_rank_backward("a", b["da"])
        b["dkeep"] *= b["keep"]
        b["dkeep"] *= -self.scale
        b["dkeep"] *= b["gate_w"]
        np.subtract(1, b["gate_w"], out=b["raw"])
        b["dkeep"] *= b["raw"]
        self._low_rank_backward("w", b["dkeep"])
        shift_kernels.layer_backward(
            b["dh"], b["plain"], w["norm"], self.inverse, dx, small["norm"], small["norm_bias"]
        )

    def _memory_backward(self) -> None:
        """Adds to dr, dwritten and dv what comes through the memory; makes dkeep, dkk and da."""
        b = self.b
        # What was read directly is kept in buffers that are free by now.
        kept = {"dr": b["mix"], "dwritten": b["h_out"], "dv": b["of_first"]}
        for name, place in kept.items():
            place[:] = b[name]
        grads = tuple(b[name] for name in ("dr", "dkeep", "dwritten", "dv", "dkk", "da"))
        given = tuple(b[name] for name in _GIVEN)
        kernels.wkv_backward(b["dy"], given, self.memory_before, tuple(self.of_memory), grads)
        for name, place in kept.items():
            b[name] += place

    def _values_backward(self) -> None:
        """From dv to the values of this layer and of the first, and to the share of the latter."""
        b, share, dv = self.b, self.b["share"], self.b["dv"]
        dfirst = self.dfirst[: len(dv)]
        np.subtract(self.first, b["v_own"], out=b["of_first"])
        b["of_first"] *= dv
        b["of_first"] *= share
        np.subtract(1, share, out=b["raw"])
        b["of_first"] *= b["raw"]
        np.multiply(dv, share, out=b["h_out"])
        dfirst += b["h_out"]
        dv -= b["h_out"]
        if self.is_first:
            dv += dfirst
        self._through("value", dv, "x_v")
        b["dv"][:] = b["of_first"]
        self._low_rank_backward("v", b["dv"])

    def _back(self, name: str, dout: Array, given: str, out: Array) -> None:
        """Through one product: the gradients of its matrix, if wanted, and of what it was given."""
        if name in self.grads:
            np.dot(dout.T, self.b[given], out=self.grads[name])
        self.m[name].product_back(dout, self.workspace, out)

    def _through(self, name: str, dout: Array, mix: str) -> None:
        """Through a product and the mixture that it reads, to h."""
        b = self.b
        self._back(name, dout, mix, b["dx_"])
        shift_kernels.mix_backward(b["dx_"], b["h"], self.before, self.w[mix], b["dh"], self.grads[mix])

    def _low_rank_backward(self, name: str, dout: Array) -> None:
        """Through both small matrices and the mixture that they read, to h."""
        low, dlow = self.b["low_" + name], self.b["dlow_" + name]
        if name + "0" in self.grads:
            np.sum(dout, 0, out=self.grads[name + "0"])
        self._back(name + "2", dout, "low_" + name, dlow)
        if name == "w":
            dlow *= 1 - low * low
        elif name == "g":
            dlow *= low * (1 - low)
        self._through(name + "1", dlow, "x_" + name)


LEAVES = ("is first", "v_first")
"""Buffers that a layer leaves for those after it."""


def begin(cell: Rwkv7TimeMix, shared: Parts, n_steps: int, buffers: Parts) -> None:
    """The next layer is the first, which makes v_first. See ``edgelm.cells.passes.Answer``."""
    buffers["is first"][0] = 1


class Answer:
    """One layer's memories. Parameters and methods: ``edgelm.cells.passes.Answer``."""

    def __init__(self, cell: Rwkv7TimeMix, weights: Operands, state: Parts, max_steps: int, buffers: Parts) -> None:
        c, w = cell, {name: np.asarray(weights[name]) for name in SMALL}
        low = [name + number for name in "wavg" for number in "12"]
        self.matrices = integers_of(weights, "receptance", "key", "value", "output", *low)
        self.mixes = (w["norm"], w["norm_bias"], *(w[name] for name in MIXES))
        self.gains = tuple(w[name] for name in ("w0", "a0", "v0", "k_k", "k_a", "r_k", "head_norm", "head_norm_bias"))
        self.state = (state["time_shift"][0], state["memory"][0])
        self.numbers = tuple(np.float32(x) for x in (c.norm_eps, HEAD_EPS, DECAY_SCALE, LEAST_LENGTH))
        ranks = (c.decay_rank, c.rate_rank, c.mix_rank, c.gate_rank)
        self.shared = integer_buffers(max(c.d_model, *ranks), c.d_model, max_steps, buffers)
        self.is_first = buffers.setdefault("is first", np.zeros(1, np.int64))
        first = buffers.setdefault("v_first", np.zeros((max_steps, c.d_model), np.float32))
        sizes = {"h of tokens": c.d_model, "parts of time mix": 7 * c.d_model}
        sizes |= {f"low {i}": rank for i, rank in enumerate(ranks)}
        own = [buffers.setdefault(f"{name}.{n}", np.zeros((max_steps, n), np.float32)) for name, n in sizes.items()]
        self.own = [first, *own]
        self.token = buffers.setdefault("token of time mix", np.zeros((5, c.d_model), np.float32))
        self.of: tuple[int, tuple[Array, ...], tuple[Array, ...]] = (0, (), ())

    def forward(self, x: Array) -> None:
        """As of ``edgelm.cells.passes.Answer``."""
        if self.of[0] != len(x):
            first, h, parts, *low = (array[: len(x)] for array in self.own)
            own = (h, parts.reshape(7, *h.shape), *low, self.token)
            self.of = (len(x), (first, self.is_first), own)
        rest = (self.state, self.numbers, self.shared, self.of[2])
        rwkv7.time_mix(x, self.matrices, self.mixes, self.gains, self.of[1], *rest)
