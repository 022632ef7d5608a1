"""Stacks of small matrices, one for each neuron block. A segment reads and changes only those of the blocks it woke."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from edgelm.kernels import blocks as kernels
from edgelm.kernels import strip_blocks
from edgelm.kernels.integers import widen_blocks
from edgelm.matrices.matrix import Int8
from edgelm.matrices.strips import Strips
from edgelm.matrices.ternary import Ternary

Array = np.ndarray


class BlockStack(Protocol):
    """One tensor of all neuron blocks, in any form: W1 [M,B,D], W2 [M,D,B], or the base of W2.

    ``forward`` and ``backward`` are for W1, ``pull`` is for the base, ``current`` for W2. Their arguments are those of
    kernels of ``edgelm.kernels.blocks``, without the weights that this stack holds.
    """

    def forward(self, h: Array, a: Array, plain: Array, *rest: Any) -> None:
        """``blocks_forward`` with this W1: adds the output of the awake blocks to y.

        ``rest`` is w2, starts, tokens, slope, hidden, workspace and y.

        ``plain`` [B,D] is a buffer for one block of floating-point numbers; it may be overwritten.
        """

    def backward(self, *arguments: Any) -> None:
        """``blocks_backward`` with this W1.

        The arguments are dy, a, w2, starts, tokens, slope, hidden, workspace, da and dh.
        """

    def pull(self, *arguments: Any) -> None:
        """``blocks_w2_step``: a gradient step on w2 [M,D B], in place, that also pulls it towards this base.

        The arguments are dy, a, starts, tokens, hidden, rate, pull, workspace and w2.
        """

    def current(self, awake: Array, out: Array) -> Array:
        """The stack as floating-point numbers, of which only the blocks that are ``awake`` [M] of bool may be read.

        Floating-point numbers are returned themselves, not copied, so that writing to the result changes the stack. Of
        integers the awake blocks are written to ``out``, of the stack's shape and dtype float32, and ``out`` is
        returned.
        """


class Float32Blocks:
    """Floating-point numbers, kept and not copied. Learning may change them in place."""

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
    """Integers with scales, as ``Int8``. They are read-only; a block becomes floating-point where it is used."""

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


class _OfMatrices:
    """Of matrices that are no rows of integers; for W1. What learning changes is not held so, and to pull towards it
    takes a copy of all numbers."""

    def __init__(self, numbers: Ternary | Strips) -> None:
        self.numbers = numbers

    def pull(self, dy: Array, a: Array, starts: Array, tokens: Array, hidden: Array, *rest: Any) -> None:
        """As of ``BlockStack``."""
        base = np.asarray(self.numbers)
        kernels.blocks_w2_step(dy, a, starts, tokens, hidden, base.reshape(len(base), -1), *rest)

    def current(self, awake: Array, out: Array) -> Array:
        """As of ``BlockStack``."""
        out[awake] = self.numbers.rows(np.flatnonzero(awake))
        return out


class TernaryBlocks(_OfMatrices, Int8Blocks):
    """Of -1, 0 and 1 times one scale, as ``Ternary``."""

    def __init__(self, numbers: Ternary) -> None:
        super().__init__(numbers)
        self.q, self.scale = numbers.q, numbers.scale.reshape(1, 1, 1)


class StripBlocks(_OfMatrices):
    """Of ``Strips`` that ``can_learn``: what whoever answers reads too."""

    def __init__(self, numbers: Strips) -> None:
        super().__init__(numbers)
        self.q, self.scale = numbers.q, numbers.scale

    def forward(self, h: Array, a: Array, plain: Array, *rest: Any) -> None:
        """As of ``BlockStack``."""
        w2, starts, tokens, slope, hidden, workspace, y = rest
        pairs = (starts, tokens, slope, hidden)
        strip_blocks.blocks_forward_strips(h, a, self.q, self.scale, w2, *pairs, plain, workspace, y)

    def backward(self, dy: Array, a: Array, *rest: Any) -> None:
        """As of ``BlockStack``."""
        strip_blocks.blocks_backward_strips(dy, a, self.q, self.scale, *rest)


_STACKS = {Int8: Int8Blocks, Ternary: TernaryBlocks, Strips: StripBlocks}


def as_blocks(operand: Any) -> BlockStack:
    """The stack over a tensor of all neuron blocks, an ndarray or one of these kinds, which is not copied."""
    made: BlockStack = _STACKS.get(type(operand), Float32Blocks)(operand)
    return made
