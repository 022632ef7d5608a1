"""Every entry point run as plain Python on random inputs, for the compiled ones to be compared with.

EDGELM_KERNELS=python python -m tests.kernels.plain OUT.npz

OUT.npz holds, for each symbol, ``symbol/before/i`` and ``symbol/after/i`` of argument i, tuples opened, and
``symbol/returned``; where argument i is the memory of argument j, ``symbol/is/i`` is j.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edgelm.kernels import blocks, chunks, dense, neurons
from edgelm.kernels.jit import entries
from edgelm.kernels.recall import DEPTH
from edgelm.matrices.strips import Strips
from edgelm.memory.fast_memory import FastMemory
from tests import naive
from tests.kernels import integers
from tests.memory.test_fast_memory import V, fast_memory, text

Array = np.ndarray
T, D, F, H, K, VD, M, B, S = 19, 21, 10, 2, 4, 5, 7, 6, 9
WIDE = 64
"""Sizes that no tile of a kernel divides; more steps than the decay section has in a chunk."""
EPS = np.float32(1e-5)
RNG = np.random.default_rng(0)


def floats(*shapes: tuple[int, ...]) -> list[Array]:
    return [RNG.standard_normal(shape).astype(np.float32) for shape in shapes]


def int8(*shape: int) -> tuple[Array, Array]:
    """Numbers around 128 and their scales."""
    scale = RNG.uniform(0.001, 0.01, (*shape[:-1], shape[-1] // 32)).astype(np.float32)
    return RNG.integers(1, 256, shape).astype(np.uint8), scale


def _halves(*shape: int) -> Array:
    """Bits of numbers of 16 bits, a few of them subnormal."""
    return (0.01 * RNG.standard_normal(shape)).astype(np.float16).view(np.uint16)


def _norm(name: str) -> list[Any]:
    f, (gain, head_gain) = floats(*[(T, D)] * 5), floats((D,), (F // H,))
    inverse, wide, heads = floats((T,), (T, F), (T, H))
    more = floats(*[(T, F)] * 5)
    return {
        "rms_forward": [f[0], gain, EPS, inverse, f[1]],
        "rms_backward": [f[0], f[1], gain, inverse, f[2], gain.copy()],
        "silu_forward": f[:2], "silu_backward": f[:3], "gate_forward": f[:3], "gate_backward": f,
        "gated_norm_forward": [wide, head_gain, more[0], EPS, heads, more[1]],
        "gated_norm_backward": [*more[:2], head_gain, more[2], heads, more[3], more[4], head_gain.copy()],
    }[name]  # fmt: skip


def _arrays(name: str) -> list[Any]:
    (x, out), row, repeated, turned, w = floats((T, D), (T, D)), *floats((D,), (T * D * 2,), (D, T), (D, D))
    flat, other = x.reshape(-1), out.reshape(-1)
    return {
        "fill": [flat, np.float32(0.3)], "copy": [flat, other], "add": [flat, other], "repeat": [flat, 2, repeated],
        "add_rows": [x, row], "transpose": [x, turned], "product": [x, w, out],
    }[name]  # fmt: skip


def _conv(name: str) -> list[Any]:
    dout, u, out, taps, dtaps, last = floats((T, F), (T, F), (T, F), (4, F), (4, F), (3, F))
    if name == "conv_last":
        return [u, last, taps[:3]]
    return [u, taps, last, out] if name == "conv_forward" else [dout, u, taps, last, out, dtaps]


def _slope(name: str) -> list[Any]:
    v, out, state = floats((T, S), (T, S), (S,))
    decay, norm = RNG.uniform(0.1, 0.9, (2, S)).astype(np.float32)
    norms = RNG.uniform(1, 2, (T, S)).astype(np.float32)
    return [v, decay, norm, state, norms, out] if name == "slope_forward" else [v, decay, norms, state, out]


def _decay(name: str) -> list[Any]:
    if name.startswith("rates"):
        base, step, rate, dbase, dstep = floats((1,), (H,), (H,), (1,), (H,))
        return [base, step, rate] if name == "rates_forward" else [dstep, np.abs(rate), step, dbase, dstep.copy()]
    if name.startswith("gates"):
        raw, draw, *small = floats((T, 2 * H), (T, 2 * H), (H,), (H,), (H,), (H,), (H,))
        dg, dbeta, g, beta = floats(*[(T, H)] * 4)
        rate = np.abs(small[0]) + np.float32(0.1)
        forward = [raw, *small[1:3], rate, g, beta]
        return forward if name == "gates_forward" else [dg, dbeta, raw, small[1], rate, g, beta, draw, *small[2:]]
    q, k, dq, dk = floats(*[(T, H, K)] * 4)
    q, k = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (q, k))
    v, out, dout, dv = floats(*[(T, H, VD)] * 4)
    g, beta = -RNG.uniform(0, 1, (2, T, H)).astype(np.float32)
    state, e, checkpoints = floats((H, K, VD), (VD,), (2, H, K, VD))
    if name == "decay_forward":
        return [q, k, v, g, -beta, e, checkpoints, state, out]
    scratch, dg, dbeta = floats((19, K, VD), (T, H), (T, H))
    return [dout, q, k, v, g, -beta, checkpoints, scratch, state, dq, dk, dv, dg, dbeta]


def _columns(name: str) -> list[Any]:
    (m, dm, o), (p, dp, out) = floats(*[(T, F)] * 3), floats(*[(T, 3 * F)] * 3)
    q, k, dq, dk, v, dv = floats(*[(T, H, K)] * 4, *[(T, H, VD)] * 2)
    inverse, pairs, gain, dgain = floats((T, H), (T, 2 * H), (F // H,), (F // H,))
    return {
        "gate_columns_forward": [m, p, 3, out],
        "gate_columns_backward": [out, m, p, 3, dm, dp],
        "heads_forward": [p, 3, EPS, pairs, q, k, v],
        "heads_backward": [dq, dk, dv, p, 3, q, k, pairs, dp],
        "norm_columns_forward": [o, gain, p, 3, EPS, inverse, out],
        "norm_columns_backward": [out, o, gain, p, 3, inverse, dm, dp, dgain],
    }[name]


def _chunks(name: str) -> list[Any]:
    q, k, dq, dk, v, out, dv, dout = floats(*[(T, H, 32)] * 4, *[(T, H, 64)] * 4)
    q, k = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (q, k))
    g, beta = -RNG.uniform(0, 1, (2, T, H)).astype(np.float32)
    x = np.full(chunks.workspace_size(32, 64), np.nan, np.float32)
    state, checkpoints, dg, dbeta = floats((H, 32, 64), (2, H, 32, 64), (T, H), (T, H))
    # Plain Python sums one by one; of large numbers that would be too far off.
    state, checkpoints = state / 8, checkpoints / 8
    if name == "chunks_forward":
        return [(q, k, v), (g, -beta), x, checkpoints, state, out]
    return [dout, (q, k, v), (g, -beta), checkpoints, x, state, (dq, dk, dv), (dg, dbeta)]


def _loss(name: str) -> list[Any]:
    return [RNG.integers(0, V, T), *floats((T, V), (T,))]


def _optim(_: str) -> list[Any]:
    grad, base, weight = floats((101,), (101,), (101,))
    return [grad, base, np.float32(0.2), np.float32(0.01), weight]


def _dense(name: str) -> list[Any]:
    (q, scale), (x, y) = int8(35, 64), floats((T, 64), (T, 35))
    given, out = (x, y) if name.startswith("product_along") else (y, x)
    change = [_halves(35, 64)] if name.endswith("_changed") else []
    return [given, q, scale, *change, np.full(dense.workspace_size(T, 64), np.nan, np.float32), out]


def _shift(name: str) -> list[Any]:
    x, out, plain, dx = floats(*[(T, D)] * 4)
    gain, bias, dgain, dbias, inverse = floats(*[(D,)] * 4, (T,))
    return {
        "layer_forward": [x, gain, bias, EPS, inverse, plain, out],
        "layer_backward": [out, plain, gain, inverse, dx, dgain, dbias],
        "mix_forward": [x, bias, gain, out],
        "mix_backward": [out, x, bias, gain, dx, dgain],
    }[name]


def _wkv(name: str) -> list[Any]:
    """Heads of F / H."""
    size = F // H
    dy, y, r, k, v, g, kk, mix = floats(*[(T, F)] * 8)
    kk = (kk.reshape(T, H, size) / np.linalg.norm(kk.reshape(T, H, size), axis=-1, keepdims=True)).reshape(T, F)
    keep, a = RNG.uniform(0.1, 0.9, (2, T, F)).astype(np.float32)
    gain, bias, *of_rows = floats(*[(F,)] * 4)
    r_k, of_r_k, memory, inverse = floats((H, size), (H, size), (H, size, size), (T, H))
    grads = tuple(floats(*[(T, F)] * 6))
    given, read = (r, keep, k, v, kk, a), (r, k, v, g)
    workspace = tuple(floats((T + 1, size, size), (T, size), (size,), (size, size)))
    return {
        "tanh_forward": [r], "sigmoid_forward": [r],
        "decay_forward": [r, bias, np.float32(0.6), y, mix],
        "biased_sigmoid": [r, bias, y],
        "keys_forward": [k, a, gain, bias, np.float32(1e-12), inverse, y, mix],
        "keys_backward": [(dy, y), (k, a), (gain, bias), (np.abs(inverse), kk), grads[:2], tuple(of_rows)],
        "wkv_forward": [given, memory, y],
        "wkv_backward": [dy, given, memory, workspace, grads],
        "read_forward": [y, read, (gain, bias, r_k), EPS, (inverse, *grads[:2]), mix],
        "read_backward": [dy, read, (gain, r_k), (inverse, y, mix), grads[:5], (*of_rows, of_r_k)],
    }[name]  # fmt: skip


def _neurons(name: str) -> list[Any]:
    u, dy, out, w, base = floats((T, F), (T, WIDE), (T, WIDE), (F, WIDE), (F, WIDE))
    rows = np.full(neurons.room(T, WIDE), np.nan, np.float32)
    u[:, RNG.random(F) < 0.4] = -1
    above, a, awake = naive.squared_relu(u)
    above, a = above.astype(np.float32), a.astype(np.float32)
    of_rows, step = [dy, a, awake], [np.full(F, np.float32(0.02)), np.float32(0.01), rows, w]
    return {
        "squared_relu": [u, above, ~awake],
        "rows_gradient": [*of_rows, rows, w],
        "rows_squares": [*of_rows, rows, RNG.random(F)],
        "rows_step": [*of_rows, base, *step],
        "rows_step_int8": [*of_rows, *int8(F, WIDE), *step],
        "rows_step_halves": [*of_rows, *step[:3], _halves(F, WIDE)],
        "changed_rows": [*int8(F, WIDE), _halves(F, WIDE), RNG.permutation(F)[:6], out[:6]],
    }[name]


def _integers(name: str) -> list[Any]:
    used = RNG.random(M) < 0.6
    if name == "widen_blocks":
        return [*int8(M, 5, 64), used, *floats((M, 5, 64))]
    return [*floats((M, 5, 32)), used, np.zeros((M, 5, 32), np.uint8), *floats((M, 5))]


def _blocks(name: str) -> list[Any]:
    width = WIDE if name.endswith("_int8") else D
    h, y, w1, w2 = floats((T, width), (T, width), (M, B, width), (M, width, B))
    a0, a1, bias, log_gamma, inverse = floats((T, M), (T, M), (M,), (M,), (T,))
    a = naive.route(a0, bias, log_gamma, 3, EPS).astype(np.float32)
    starts, tokens = (np.array(x, np.int64) for x in naive.group(a))
    slope, hidden, da = floats((len(tokens), B), (len(tokens), B), (T, M))
    pairs = [starts, tokens, slope, hidden]
    plain, workspace, dh = floats((B, width), (blocks.workspace_size(T, B, width),), (T, width))
    dw1, dw2 = floats((M, B, width), (M, width, B))
    of_w2, step = [y, a, starts, tokens, hidden], [np.full(M, np.float32(0.2)), np.float32(0.01)]
    if name.endswith("_int8"):
        return {
            "blocks_forward_int8": [h, a, *int8(M, B, WIDE), w2, *pairs, plain, workspace, y],
            "blocks_backward_int8": [y, a, *int8(M, B, WIDE), w2, *pairs, workspace, da, dh],
            "blocks_w2_step_int8": [*of_w2, *int8(M, WIDE * B), *step, workspace, w2.reshape(M, -1)],
        }[name]
    return {
        "route_forward": [a0, bias, log_gamma, 3, EPS, a1, inverse, da],
        "route_backward": [da * (a > 0), a1, log_gamma, inverse, a, a0, bias],
        "group_pairs": [a, np.zeros(M + 1, np.int64), np.zeros(a.size, np.int64)],
        "blocks_forward": [h, a, w1, w2, *pairs, workspace, y],
        "blocks_backward": [y, a, w1, w2, *pairs, workspace, da, dh],
        "blocks_w2_backward": [*of_w2, workspace, dw2],
        "blocks_w2_step": [*of_w2, (w2 + 1).reshape(M, -1), *step, workspace, w2.reshape(M, -1)],
        "blocks_w1_backward": [h, *pairs[:3], dw1],
    }[name]


def _strip_blocks(name: str) -> list[Any]:
    size = 32
    h, y, w2, dh = floats((T, WIDE), (T, WIDE), (M, WIDE, size), (T, WIDE))
    a = naive.route(*floats((T, M), (M,), (M,)), 3, EPS).astype(np.float32)
    starts, tokens = (np.array(x, np.int64) for x in naive.group(a))
    slope, hidden, da = floats((len(tokens), size), (len(tokens), size), (T, M))
    strips = Strips.of(*int8(M, size, WIDE))
    plain, workspace = floats((size, WIDE), (blocks.workspace_size(T, size, WIDE),))
    given = [a, strips.q, strips.scale, w2, starts, tokens, slope, hidden]
    if name == "blocks_forward_strips":
        return [h, *given, plain, workspace, y]
    return [y, *given, workspace, da, dh]


def _strongest(name: str) -> list[Any]:
    a0, share, da, da0 = floats(*[(T, M)] * 4)
    bias, log_gamma, dlog_gamma = floats(*[(M,)] * 3)
    if name == "wake_forward":
        return [a0, bias, log_gamma, 3, np.float32(4.5), share, da]
    a = naive.route_top_k(a0, bias, log_gamma, 3)[1].astype(np.float32)
    return [da * (a > 0), np.abs(share) * (a > 0), a, da0, dlog_gamma]


def _memory(name: str) -> list[Any]:
    if name.startswith("trust"):
        return [0.5, -1.2, 0.2, 0.1][: 4 if name == "trust_after" else 2]
    memory, ids = _learned(), text(1, 59)
    tables, gates, p = memory._tables, memory.gates[0], RNG.dirichlet(np.ones(V))
    if name == "memory_read":
        return [ids, 50, tables, gates, (2, np.array([8, 31, 0]), np.array([0.3, 0.1, 0]), 0.4, 5), p]
    recalled = np.stack([*np.sort(RNG.uniform(0, 0.9, (2, 59)), 0), RNG.integers(-1, 9, 59)], 1)
    return [ids, 1, 60, (True, True), 0.5, -1.2, tables, gates, recalled, RNG.uniform(0.01, 0.9, 59)]


def _recall(name: str) -> list[Any]:
    memory, ids = _learned(), text(1, 59)
    store, more = memory._store, (memory._store, memory._vocab, memory._workspace)
    if name == "begin_entry":
        return [store]
    if name == "recall_read":
        return [ids, 50, True, DEPTH, *more]
    return [ids, 1, 60, (True, False, True), *more, np.full((59, 3), np.nan)]


def _dots(name: str) -> list[Any]:
    if name == "integer_product":
        q, scale, _ = integers.in_strips(RNG, 85, WIDE)
        room = np.zeros(T * WIDE, np.uint8), *floats((T * WIDE // 16,), (16,), (T, 85))
        return [*floats((T, WIDE)), q, scale, *room]
    if name == "integer_product_back":
        q, scale, _ = integers.in_strips(RNG, 85, WIDE)
        turned = np.zeros((2, 8, 8, 64), np.uint8), *floats((2, 8, 16), (32,), (T, WIDE))
        return [*floats((T, 85)), q, scale, np.zeros(256 * T, np.uint8), *floats((16 * T,)), *turned]
    if name == "strips":
        q, scale = int8(35, WIDE)
        return [q.view(np.int32), scale, np.zeros((3, 2, 8, 16), np.int32), *floats((3, 2, 16))]
    words = np.zeros((32, WIDE // 4), np.int32)
    weight, scale = floats((M, 32, WIDE), (M, 2, 2, 16))
    return [weight, RNG.random(M) < 0.6, words.view(np.uint8), words, np.zeros((M, 2, 2, 8, 16), np.int32), scale]


def _fused(name: str) -> list[Any]:
    if name in ("gated_delta", "block_ffn", "top_k_ffn"):
        return getattr(integers, "of_" + name)(RNG)[0]
    q, scale, _ = integers.in_strips(RNG, 37, WIDE)
    x, gain, logits = floats((T, WIDE), (WIDE,), (T - 3, 37))
    if name == "embed":
        return [RNG.integers(0, 37, T), q, scale, x]
    if name == "embed_rows":
        return [RNG.integers(0, 37, T), *int8(37, WIDE), x]
    return [x, 3, gain, EPS, q, scale, integers.room(RNG, T, WIDE), logits]


def _rwkv7(name: str) -> list[Any]:
    return getattr(integers, "of_" + name)(RNG)[0]


def _learned() -> FastMemory:
    memory = fast_memory(1 << 8, 1 << 8)
    for seed in range(3):
        memory.learn(text(seed, 59), 1, RNG.uniform(0.01, 0.9, 59))
    return memory


ARGUMENTS: dict[str, Callable[[str], list[Any]]] = {
    "arrays": _arrays,
    "norm": _norm, "conv": _conv, "slope": _slope, "decay": _decay, "loss": _loss, "optim": _optim, "blocks": _blocks,
    "strip_blocks": _strip_blocks,
    "memory": _memory, "recall": _recall, "stream": lambda _: [np.arange(1000), 3],
    "integers": _integers, "dense": _dense, "columns": _columns, "chunks": _chunks, "dots": _dots, "fused": _fused,
    "strongest": _strongest,
    "shift": _shift, "wkv": _wkv, "neurons": _neurons, "rwkv7": _rwkv7,
}  # fmt: skip


def main() -> None:
    """Runs all, each on its own arguments."""
    results: dict[str, Any] = {}
    for entry in entries():
        module = entry.function.__module__.rpartition(".")[2]
        arguments = ARGUMENTS[module](entry.function.__name__)
        opened = [part for given in arguments for part in (given if isinstance(given, tuple) else (given,))]
        results |= {f"{entry.symbol}/before/{i}": np.array(part) for i, part in enumerate(opened)}
        shared = ((i, j) for i, a in enumerate(opened) for j in range(i) if np.shares_memory(a, opened[j]))
        results |= {f"{entry.symbol}/is/{i}": np.array(j) for i, j in shared}
        returned = entry.function(*arguments)
        results |= {f"{entry.symbol}/after/{i}": part for i, part in enumerate(opened)}
        results[f"{entry.symbol}/returned"] = np.array([] if returned is None else returned, np.float64)
    np.savez(Path(sys.argv[1]), **results)


if __name__ == "__main__":
    main()
