"""Stacks of small matrices, one for each neuron block, of which a segment reads and changes those that are awake."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from edgelm.kernels import blocks as kernels
from edgelm.kernels.integers import widen_blocks
from edgelm.matrices.matrix import Int8

Array = np.ndarray


class BlockStack(Protocol):
    """W1 [M,B,D] of the neuron blocks, or a base that W2 [M,D,B] is drawn to.

    Arguments are those of the kernels of ``edgelm.kernels.blocks``.
    """

    def forward(self, h: Array, a: Array, plain: Array, *rest: Any) -> None:
        """``blocks_forward`` with these weights; ``plain`` [B,D] is overwritten."""

    def backward(self, *arguments: Any) -> None:
        """``blocks_backward`` with these weights."""

    def pull(self, *arguments: Any) -> None:
        """``blocks_w2_step`` towards these weights."""

    def current(self, awake: Array, out: Array) -> Array:
        """The blocks that are ``awake`` [M] as floating-point numbers [M,R,C]: themselves, or written to ``out``."""


class Float32Blocks:
    """Floating-point numbers, which learning may change in place."""

    def __init__(self, numbers: Array) -> None:
        self.numbers = numbers

    def forward(self, h: Array, a: Array, plain: Array, *rest: Any) -> None:
        """As of ``BlockStack``."""
        kernels.blocks_forward(h, a, self.numbers, *rest)

    def backward(self, dy: Array, a: Array, *rest: Any) -> None:
        """As of ``BlockStack``."""
        kernels.blocks_backward(dy, a, self.numbers, *rest)

    def pull(self, dy: Array, a: Array, starts: Array, tokens: Array, hidden: Array, *rest: Any) -> None:
        """As of ``BlockStack``."""
        base = self.numbers.reshape(len(self.numbers), -1)
        kernels.blocks_w2_step(dy, a, starts, tokens, hidden, base, *rest)

    def current(self, awake: Array, out: Array) -> Array:
        """As of ``BlockStack``."""
        return self.numbers


class Int8Blocks:
    """Integers around 128 with scales, as ``Int8``; each block is made floating-point where it is used."""

    def __init__(self, numbers: Int8) -> None:
        self.q, self.scale = numbers.q, numbers.scale

    def forward(self, h: Array, a: Array, plain: Array, *rest: Any) -> None:
        """As of ``BlockStack``."""
        w2, starts, tokens, slope, hidden, workspace, y = rest
        kernels.blocks_forward_int8(h, a, self.q, self.scale, w2, starts, tokens, slope, hidden, plain, workspace, y)

    def backward(self, dy: Array, a: Array, *rest: Any) -> None:
        """As of ``BlockStack``."""
        kernels.blocks_backward_int8(dy, a, self.q, self.scale, *rest)

    def pull(self, dy: Array, a: Array, starts: Array, tokens: Array, hidden: Array, *rest: Any) -> None:
        """As of ``BlockStack``."""
        q, scale = (part.reshape(len(part), -1) for part in (self.q, self.scale))
        kernels.blocks_w2_step_int8(dy, a, starts, tokens, hidden, q, scale, *rest)

    def current(self, awake: Array, out: Array) -> Array:
        """As of ``BlockStack``."""
        widen_blocks(self.q, self.scale, awake, out)
        return out


def as_blocks(operand: Any) -> BlockStack:
    """The stack of a tensor, as numbers or as ``Int8``."""
    return Int8Blocks(operand) if hasattr(operand, "scale") else Float32Blocks(operand)
