"""Forward and backward of the whole model over one segment, sparse in the blocks.

The state is carried from segment to segment, gradients stop where a segment begins (truncated
back-propagation through time).
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from edgelm.config import ModelConfig
from edgelm.kernels import blocks as block_kernels
from edgelm.kernels import norm as norm_kernels
from edgelm.kernels.integers import widen_blocks
from edgelm.kernels.loss import cross_entropy
from edgelm.learn.mixers import GatedMixerPass, PublishedMixerPass, make_buffers
from edgelm.learn.products import Product, rows_of
from edgelm.model.packing import Int8Matrix, Operands, Tensor
from edgelm.model.reference import State
from edgelm.model.weights import Weights, is_quantizable, shapes

Array = np.ndarray


class BlockFfnPass:
    """Router, blocks and the shared block of one layer."""

    def __init__(
        self, config: ModelConfig, weights: Operands, layer: int, grads: Weights, max_steps: int, passing: Weights
    ) -> None:
        c = self.config = config
        self.prefix, self.grads = f"layers.{layer}.ffn.", grads
        self.w = {name: np.asarray(weights[self.prefix + name]) for name in (*_FFN_SMALL, "router")}
        dtype, (w1, w2) = self.w["norm"].dtype, (weights[self.prefix + name] for name in ("w1", "w2"))
        empty = (0, c.block_size, c.d_model)
        none = self._none = np.zeros(empty, dtype), np.zeros(empty, np.uint8), np.zeros(empty, dtype)
        self.w1 = (none[0], w1.q, w1.scale) if isinstance(w1, Int8Matrix) else (w1, *none[1:])
        # Of the base model, whose w2 nobody changes, what is awake is made float32 for each segment.
        self.fixed = w2 if isinstance(w2, Int8Matrix) else None
        self.w2 = passing.setdefault("w2", np.empty(w2.q.shape, dtype)) if isinstance(w2, Int8Matrix) else w2
        self.shared = [Product(weights[self.prefix + name], passing["room"]) for name in ("shared_w1", "shared_w2")]
        self.dtype, self.eps = dtype, dtype.type(c.norm_eps)
        widths = {"h": c.d_model, "dh": c.d_model, "part": c.d_model, "a0": c.n_blocks, "a1": c.n_blocks}
        widths |= {"a": c.n_blocks, "da": c.n_blocks, "s": c.shared_size, "ds": c.shared_size, "shared": c.shared_size}
        widths["y_grad"] = c.d_model
        self.buffers = make_buffers(widths, max_steps, dtype, passing)
        self.b = self.buffers
        self.inverse, self.a_inverse = np.zeros(max_steps, dtype), np.zeros(max_steps, dtype)
        pairs = max_steps * c.max_awake
        self.starts, self.tokens = np.zeros(c.n_blocks + 1, np.int64), np.zeros(pairs, np.int64)
        self.slope, self.hidden = np.zeros((2, pairs, c.block_size), dtype)
        room = block_kernels.room_for(max_steps, c.block_size, c.d_model)
        self.room = passing.setdefault("blocks", np.zeros(room, dtype))
        self.plain = passing.setdefault("plain", np.zeros((c.block_size, c.d_model), dtype))

    def forward(self, x: Array, y: Array) -> None:
        """x, y [T,D]; y is added to."""
        w = self.w
        if len(x) != len(self.b["h"]):
            self.b = {name: buffer[: len(x)] for name, buffer in self.buffers.items()}
        self.x, b = x, self.b
        norm_kernels.rms_forward(x, w["norm"], self.eps, self.inverse, b["h"])
        np.dot(b["h"], w["router"], out=b["a0"])
        block_kernels.route_forward(
            b["a0"], w["router_bias"], w["log_gamma"], self.config.max_awake, self.dtype.type(1e-5),
            b["a1"], self.a_inverse, b["a"],
        )  # fmt: skip
        block_kernels.group_pairs(b["a"], self.starts, self.tokens)
        if self.fixed is not None:
            widen_blocks(self.fixed.q, self.fixed.scale, self.awake, self.w2)
        pairs = (self.starts, self.tokens, self.slope, self.hidden)
        block_kernels.blocks_forward(b["h"], b["a"], self.w1, self.w2, *pairs, self.plain, self.room, y)
        self.shared[0].forward(b["h"], b["s"])
        norm_kernels.silu_forward(b["s"], b["shared"])
        y += self.shared[1].forward(b["shared"], b["part"])

    def backward(self, dy: Array, dx: Array) -> None:
        """dy, dx [T,D]; dx is added to. Gradients of blocks asleep all segment are left as they are.

        That of w2 is made only if it is wanted; what ``step_w2`` makes it of is kept.
        """
        w, b, grads, prefix = self.w, self.b, self.grads, self.prefix
        for name in _FFN_SMALL:
            if prefix + name in grads:
                grads[prefix + name][:] = 0
        if prefix + "shared_w2" in grads:
            np.dot(b["shared"].T, dy, out=grads[prefix + "shared_w2"])
        self.shared[1].backward(dy, b["shared"])
        norm_kernels.silu_backward(b["shared"], b["s"], b["ds"])
        if prefix + "shared_w1" in grads:
            np.dot(b["h"].T, b["ds"], out=grads[prefix + "shared_w1"])
        dh = self.shared[0].backward(b["ds"], b["dh"])
        pairs = (self.starts, self.tokens, self.slope, self.hidden)
        block_kernels.blocks_backward(dy, b["a"], self.w1, self.w2, *pairs, self.room, b["da"], dh)
        b["y_grad"][:] = dy
        if prefix + "w2" in grads:
            block_kernels.blocks_w2_backward(*self._of_w2(), self.room, grads[prefix + "w2"])
        if prefix + "w1" in grads:
            block_kernels.blocks_w1_backward(b["h"], self.starts, self.tokens, self.slope, grads[prefix + "w1"])
        block_kernels.route_backward(
            b["da"], b["a1"], w["log_gamma"], self.a_inverse, b["a"], b["a0"], grads[prefix + "log_gamma"]
        )
        grads[prefix + "router_bias"] += b["a0"].sum(0)
        if prefix + "router" in grads:
            np.dot(b["h"].T, b["a0"], out=grads[prefix + "router"])
        dh += np.dot(b["a0"], w["router"].T, out=b["part"])
        norm_kernels.rms_backward(dh, self.x, w["norm"], self.inverse, dx, grads[prefix + "norm"])

    def step_w2(self, base: Tensor, rates: Array, pull: np.floating) -> None:
        """Moves w2 of the blocks that are awake against the gradient that ``backward`` saw last, and to ``base``."""
        float_, *integers = self._none
        parts = (base, *integers) if isinstance(base, np.ndarray) else (float_, base.q, base.scale)
        rows = tuple(part.reshape(len(part), part[0].size if len(part) else 0) for part in parts)
        w2 = self.w2.reshape(len(self.w2), -1)
        block_kernels.blocks_w2_step(*self._of_w2(), rows, rates, pull, self.room, w2)

    def _of_w2(self) -> tuple[Array, Array, Array, Array, Array]:
        return self.b["y_grad"], self.b["a"], self.starts, self.tokens, self.hidden

    @property
    def awake(self) -> Array:
        """Which blocks the last segment woke, [M] bool."""
        return np.diff(self.starts) > 0


class Network:
    """The model over segments, with gradients.

    Parameters
    ----------
    config : ModelConfig
    weights : dict of ndarray
        Shared, not copied: a change is seen by the next segment. Matrices may be integers.
    wanted : iterable of str
        Names of the matrices whose gradients are wanted; those of gains and of biases always are.
    max_steps : int
        Longest segment.

    Attributes
    ----------
    grads : dict of ndarray
        Gradients of the sum of the segment's losses, after ``backward``.
    """

    def __init__(self, config: ModelConfig, weights: Operands, wanted: Iterable[str], max_steps: int) -> None:
        self.config, self.weights, self.max_steps = config, weights, max_steps
        wanted = set(wanted)
        dtype = weights["embed"].dtype
        self.grads: Weights = {
            name: np.zeros(shape, dtype)
            for name, shape in shapes(config).items()
            if name in wanted or not (is_quantizable(name) or name.endswith("router"))
        }
        self.dtype, self.eps = dtype, dtype.type(config.norm_eps)
        make = GatedMixerPass if config.mixer == "mcsd_g" else PublishedMixerPass
        sizes = [shape for name, shape in shapes(config).items() if len(shape) == 2 and is_quantizable(name)]
        # Integers are [out,in], or [in,out] turned: either may be the rows.
        room = max(Product.room_for(max_steps, *sides) for shape in sizes for sides in (shape, shape[::-1]))
        passing: Weights = {"room": np.zeros(room, dtype)}
        arguments = (self.grads, max_steps, passing)
        self.mixers = [make(config, weights, i, *arguments) for i in range(config.n_layers)]
        self.ffns = [BlockFfnPass(config, weights, i, *arguments) for i in range(config.n_layers)]
        # The residual stream before each half layer, and after the last.
        self.streams = np.zeros((2 * config.n_layers + 1, max_steps, config.d_model), dtype)
        self.hidden, self.dx = np.zeros((2, max_steps, config.d_model), dtype)
        self.inverse, self.losses = np.zeros((2, max_steps), dtype)
        self.logits = np.zeros((max_steps, config.vocab_size), dtype)
        self.embed = Product(weights["embed"], passing["room"], turned=True)
        self.final_norm = np.asarray(weights["final_norm"])

    def forward(self, ids: Array, targets: Array, state: State) -> Array:
        """Losses in nats [T] of ``targets`` [T] after ``ids`` [T]; ``state`` is updated in place."""
        n_steps = len(ids)
        self.ids = ids
        x = self.streams[:, :n_steps]
        x[0] = rows_of(self.weights["embed"], ids)
        for i in range(self.config.n_layers):
            x[2 * i + 1] = x[2 * i]
            self.mixers[i].forward(x[2 * i], x[2 * i + 1], state)
            x[2 * i + 2] = x[2 * i + 1]
            self.ffns[i].forward(x[2 * i + 1], x[2 * i + 2])
        decay = self.mixers[0].slope_decay
        for _ in range(n_steps):
            state.norm = decay * state.norm + 1
        hidden, logits, losses = self.hidden[:n_steps], self.logits[:n_steps], self.losses[:n_steps]
        norm_kernels.rms_forward(x[-1], self.final_norm, self.eps, self.inverse, hidden)
        self.embed.forward(hidden, logits)
        cross_entropy(targets, logits, losses)
        return losses.copy()

    def backward(self) -> None:
        """Fills ``grads`` for the segment that ``forward`` saw last; once a forward."""
        n_steps, grads = len(self.ids), self.grads
        dlogits, hidden, x = self.logits[:n_steps], self.hidden[:n_steps], self.streams[:, :n_steps]
        if "embed" in grads:
            np.dot(dlogits.T, hidden, out=grads["embed"])
        dhidden = self.embed.backward(dlogits, hidden)
        dx = self.dx[:n_steps]
        dx[:] = 0
        grads["final_norm"][:] = 0
        norm_kernels.rms_backward(dhidden, x[-1], self.final_norm, self.inverse, dx, grads["final_norm"])
        for i in range(self.config.n_layers - 1, -1, -1):
            # A half layer adds to the stream, so dx is both its incoming gradient and what it adds to.
            hidden[:] = dx
            self.ffns[i].backward(hidden, dx)
            hidden[:] = dx
            self.mixers[i].backward(hidden, dx)
        if "embed" in grads:
            np.add.at(grads["embed"], self.ids, dx)

    @property
    def awake(self) -> Array:
        """Which blocks the last segment woke, [L, M] bool."""
        return np.stack([ffn.awake for ffn in self.ffns])

    @property
    def n_pairs(self) -> int:
        """Pairs of a token and an awake block in the last segment, over all layers."""
        return sum(int(ffn.starts[-1]) for ffn in self.ffns)


_FFN_SMALL = ("norm", "router_bias", "log_gamma")
