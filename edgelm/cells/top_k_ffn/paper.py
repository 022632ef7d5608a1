"""THE PAPER of ``top_k_ffn``: a mixture of experts. Every token wakes the A blocks that its router likes best.

All is as in ``edgelm.cells.block_ffn.paper`` but for the activations a::

    z = h W_r + b_r        p = softmax(z)
    a = sqrt(A M) exp(log_gamma) p / (sum of p over those awake), where A blocks are awake: those of the largest
        exp(log_gamma) p

What is awake is weighed by shares that sum to 1, as in Mixtral (arXiv 2401.04088). So a block that sleeps has no part
in how strong the others are: whoever leaves out blocks that a text never wakes leaves out nothing else. sqrt(A M) gives
the activations of a token the size that a ReLU and a norm give them in ``block_ffn`` (a root mean square of 1 if those
awake are equally strong), so that both kinds begin training alike. log_gamma, which Mixtral has not, is what the device
learns of how strong a block is, as in ``block_ffn``; a bias alone moves strength from one block to another.

If a kernel disagrees, the kernel is wrong.
"""

from __future__ import annotations

import math

import numpy as np

from edgelm.cells.block_ffn.paper import BlockFfn
from edgelm.cells.cell import Array, Parts
from edgelm.cells.functions import rms_norm


class TopKFfn(BlockFfn):
    """Router, neuron blocks, and a block that is always awake. Parameters: those of ``BlockFfn``, where every token
    wakes exactly ``max_awake`` blocks."""

    KIND = "top_k_ffn"

    @property
    def size(self) -> float:
        """As of ``BlockFfn``: the root of A M."""
        return math.sqrt(self.max_awake * self.n_blocks)

    def all_activations(self, x: Array, weights: Parts) -> Array:
        """As of ``BlockFfn``; the shares of all blocks are those of the sum over the A awake."""
        h, log_gamma = rms_norm(x, weights["norm"], self.norm_eps), weights["log_gamma"]
        z = h @ weights["router"] + weights["router_bias"]
        awake = np.argsort(-(z + log_gamma), axis=-1, kind="stable")[:, : self.max_awake]
        likes = np.take_along_axis(z, awake, -1)
        top = likes.max(-1, keepdims=True)
        total = np.exp(likes - top).sum(-1, keepdims=True)
        return np.exp(z - top) / total * np.exp(log_gamma) * x.dtype.type(self.size)
