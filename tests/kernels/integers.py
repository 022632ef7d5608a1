"""Matrices of integers and what the fused kernels take, made for tests.

Buffers are NaN beforehand, bytes anything.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tests import naive
from tests.kernels.arrays import blank, int8

Array = np.ndarray
EPS = np.float32(1e-3)
N = 5
"""Tokens: more than pass a strip together."""
D, H, K, VD, S = 64, 2, 4, 85, 22
"""Of ``gated_delta``: columns of a memory that are 64, 16 and 5; rows of W_in' that fill no strip."""
M, B, F = 5, 32, 96
"""Of ``block_ffn``."""
HEADS, RANKS, NEURONS = 2, (32, 64, 32, 96), 85
"""Of RWKV-7: memories of 32 x 32; neurons that fill no strip, nor four rows."""


def in_strips(rng: np.random.Generator, *shape: int) -> tuple[Array, Array, Array]:
    """A matrix [M,C], or a stack of them, as strips and scales, and the float64 that it means."""
    q, scale, plain = int8(rng, *shape)
    if len(shape) == 2:
        return *naive.strips(q, scale), plain
    made = [naive.strips(*parts) for parts in zip(q, scale, strict=True)]
    return *(np.stack(parts) for parts in zip(*made, strict=True)), plain


def in_ternary_strips(rng: np.random.Generator, *shape: int) -> tuple[Array, Array, Array]:
    """The same of a matrix of -1, 0 and 1."""
    steps, scale = rng.integers(-1, 2, shape), np.float32(rng.uniform(0.01, 0.1))
    stack = [naive.ternary_strips(part) for part in steps.reshape(-1, *shape[-2:])]
    q = np.stack(stack).reshape(*shape[:-2], *stack[0].shape)
    return q, np.full((*shape[:-2], 1, 1, 1), scale), steps * np.float64(scale)


STRIPS = {"int8": in_strips, "ternary": in_ternary_strips}


def floats(rng: np.random.Generator, *shapes: tuple[int, ...]) -> list[Array]:
    return [rng.standard_normal(shape).astype(np.float32) for shape in shapes]


def room(rng: np.random.Generator, n_tokens: int, widest: int) -> tuple[Array, Array, Array]:
    """h, codes and scales, as every fused kernel takes them."""
    n_runs = n_tokens * widest // 32
    return (
        blank(D, dtype=np.float32),
        rng.integers(0, 256, 32 * n_runs).astype(np.uint8),
        blank(2 * n_runs, dtype=np.float32),
    )


def of_gated_delta(rng: np.random.Generator, n_tokens: int = N) -> tuple[list[Any], list[Array]]:
    """The arguments of the kernel, and both matrices as numbers."""
    wide, mix = S + 2 * H * K + H * VD, S + H * VD
    rows = wide + S + H * VD + 2 * H
    q_in, scale_in, w_in = in_strips(rng, rows, D)
    q_out, scale_out, w_out = in_strips(rng, D, mix)
    x, gain, taps, decay_bias, write_bias, rate, head_gain = floats(
        rng, (n_tokens, D), (D,), (4, wide), (H,), (H,), (H,), (VD,)
    )
    n, last, memories = floats(rng, (S,), (3, wide), (H, K, VD))
    decays = rng.uniform(0.1, 0.9, S).astype(np.float32)
    counts = [sum(decays**i for i in range(t + 1)) for t in range(n_tokens)]
    inverse = np.array([1 / count for count in counts], np.float32)
    own = [blank(*shape, dtype=np.float32) for shape in ((wide,), (3,), (n_tokens, rows), (n_tokens, mix))]
    arguments = [
        x, (q_in, scale_in, q_out, scale_out), (gain, taps, decay_bias, write_bias, np.abs(rate), head_gain),
        (decays, inverse), (n, last, memories), EPS, room(rng, n_tokens, max(D, mix)), tuple(own),
    ]  # fmt: skip
    return arguments, [w_in, w_out]


def of_block_ffn(rng: np.random.Generator, n_tokens: int = N, max_awake: int = 2) -> tuple[list[Any], list[Array]]:
    """The arguments of the kernel, and its four matrices as numbers."""
    made = [in_strips(rng, *shape) for shape in ((M, B, D), (M, D, B), (F, D), (D, F))]
    matrices = tuple(part for q, scale, _ in made for part in (q, scale))
    x, gain, router, bias, log_gamma = floats(rng, (n_tokens, D), (D,), (D, M), (M,), (M,))
    router, log_gamma = router / 8, log_gamma / 4  # so that next to nothing cancels
    own = tuple(blank(*shape, dtype=np.float32) for shape in ((n_tokens, M), (n_tokens, M), (2, F)))
    gains = (gain, router, bias, log_gamma)
    arguments = [x, matrices, gains, max_awake, (EPS, EPS), room(rng, n_tokens, D + F), own]
    return arguments, [plain for _, _, plain in made]


def of_top_k_ffn(rng: np.random.Generator, n_tokens: int = N, max_awake: int = 2) -> tuple[list[Any], list[Array]]:
    """The same for a router that wakes as many blocks for each token."""
    arguments, matrices = of_block_ffn(rng, n_tokens, max_awake)
    arguments[4] = (EPS, np.float32(np.sqrt(max_awake * M)))
    return arguments, matrices


def of_time_mix(rng: np.random.Generator, n_tokens: int = N, heads: int = HEADS) -> tuple[list[Any], list[Array]]:
    """The arguments of RWKV-7's kernel of memories, and its twelve matrices as numbers; v_first is there."""
    size = D // heads
    shapes = [(D, D)] * 4 + [shape for rank in RANKS for shape in ((rank, D), (D, rank))]
    made = [in_strips(rng, *shape) for shape in shapes]
    x, first, *mixes = floats(rng, (n_tokens, D), (n_tokens, D), *[(D,)] * 8)
    *gains, r_k, gain, bias = floats(rng, *[(D,)] * 5, (heads, size), (D,), (D,))
    before, memory = floats(rng, (D,), (heads, size, size))
    lows = [blank(n_tokens, rank, dtype=np.float32) for rank in RANKS]
    own = (blank(n_tokens, D, dtype=np.float32), blank(7, n_tokens, D, dtype=np.float32), *lows)
    arguments = [
        x, tuple(part for q, scale, _ in made for part in (q, scale)), tuple(mixes), (*gains, r_k, gain, bias),
        (first, np.zeros(1, np.int64)), (before, memory), (EPS, EPS, np.float32(0.6), np.float32(1e-12)),
        room(rng, n_tokens, max(D, *RANKS)), (*own, blank(5, D, dtype=np.float32)),
    ]  # fmt: skip
    return arguments, [plain for _, _, plain in made]


def of_channel_mix(
    rng: np.random.Generator, n_tokens: int = N, neurons: int = NEURONS
) -> tuple[list[Any], list[Array]]:
    """The arguments of RWKV-7's kernel of neurons, and its two matrices as numbers."""
    *key, w_key = in_strips(rng, neurons, D)
    *value, w_value = int8(rng, neurons, D)
    x, gain, bias, share, before = floats(rng, (n_tokens, D), (D,), (D,), (D,), (D,))
    own = (
        blank(n_tokens, D, dtype=np.float32),
        blank(n_tokens, neurons, dtype=np.float32),
        np.zeros(neurons, np.int64),
    )
    return [x, (*key, *value), (gain, bias, share), before, EPS, room(rng, n_tokens, D), own], [w_key, w_value]
