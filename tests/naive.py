"""Slow, obvious twins of the kernels' forward passes, and derivatives by differences.

A twin takes arrays and gives arrays back; it changes none of its arguments. Shapes are those of its kernel.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

Array = np.ndarray


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def silu(x: Array) -> Array:
    return x * sigmoid(x)


def rms(x: Array, gain: Array, eps: float) -> Array:
    return np.stack([row / math.sqrt(np.mean(row**2) + eps) * gain for row in x])


def silu_l2(u: Array, n_heads: int, eps: float) -> Array:
    heads = silu(u).reshape(len(u), n_heads, -1)
    return np.stack([[s / math.sqrt(np.sum(s**2) + eps) for s in row] for row in heads]).reshape(u.shape)


def gated_norm(o: Array, gain: Array, u: Array, eps: float) -> Array:
    heads = o.reshape(len(o), -1, len(gain))
    return np.stack([rms(row, gain, eps) for row in heads]).reshape(o.shape) * silu(u)


def conv(u: Array, taps: Array, last: Array) -> Array:
    tokens = [*last, *u]
    return np.stack([sum(taps[i] * tokens[t + i] for i in range(4)) for t in range(len(u))])


def slope(v: Array, decay: Array, norm: Array, state: Array) -> tuple[Array, Array, Array, Array]:
    """Output, the z of every step, and z and n after the last."""
    out, norms = [], []
    for row in v:
        state = decay * state + row
        norm = decay * norm + 1
        out.append(state / norm)
        norms.append(norm)
    return np.stack(out), np.stack(norms), norm, state


def decay(q: Array, k: Array, v: Array, g: Array, beta: Array, state: Array) -> tuple[Array, Array]:
    """Output and the memories after the last step."""
    out = np.zeros_like(v)
    memories = list(state)
    for t in range(len(q)):
        for h, memory in enumerate(memories):
            kept = math.exp(g[t, h]) * memory
            missing = v[t, h] - k[t, h] @ kept
            memories[h] = kept + beta[t, h] * np.outer(k[t, h], missing)
            out[t, h] = q[t, h] @ memories[h]
    return out, np.stack(memories)


def gates(raw: Array, decay_bias: Array, write_bias: Array, rate: Array) -> tuple[Array, Array]:
    first, second = np.split(raw, 2, axis=1)
    return -rate * np.log(1 + np.exp(first + decay_bias)), sigmoid(second + write_bias)


def route(a0: Array, bias: Array, log_gamma: Array, max_awake: int, eps: float) -> Array:
    rows = []
    for row in a0:
        a1 = np.maximum(row + bias, 0)
        a = a1 / math.sqrt(np.mean(a1**2) + eps) * np.exp(log_gamma)
        strongest = sorted(range(len(a)), key=lambda i: (-a[i], i))[:max_awake]
        rows.append([a[i] if i in strongest else 0 for i in range(len(a))])
    return np.array(rows)


def route_top_k(a0: Array, bias: Array, log_gamma: Array, max_awake: int) -> tuple[Array, Array]:
    """Activations before and after those but the strongest were put to sleep."""
    before, after = np.zeros_like(a0), np.zeros_like(a0)
    for t, row in enumerate(a0):
        strengths = np.exp(row + bias + log_gamma)
        strongest = sorted(range(len(row)), key=lambda i: (-strengths[i], i))[:max_awake]
        total = sum(math.exp(row[i] + bias[i]) for i in strongest)
        before[t] = math.sqrt(max_awake * len(row)) * strengths / total
        after[t, strongest] = before[t, strongest]
    return before, after


def group(a: Array) -> tuple[list[int], list[int]]:
    """Where each block's tokens start, and the tokens."""
    tokens = [[t for t in range(len(a)) if a[t, i] > 0] for i in range(a.shape[1])]
    starts = [sum(map(len, tokens[:i])) for i in range(len(tokens) + 1)]
    return starts, [t for block in tokens for t in block]


def blocks(h: Array, a: Array, w1: Array, w2: Array) -> Array:
    y = np.zeros_like(h)
    for t in range(len(h)):
        for i in np.flatnonzero(a[t]):
            y[t] += a[t, i] * (w2[i] @ silu(w1[i] @ h[t]))
    return y


def cross_entropy(targets: Sequence[int], logits: Array) -> Array:
    tops = logits.max(1)
    return np.array(
        [math.log(np.sum(np.exp(row - top))) + top - row[i] for i, row, top in zip(targets, logits, tops, strict=True)]
    )


def pulled_step(grad: Array, base: Array, rate: float, pull: float, weight: Array) -> Array:
    return weight - rate * grad + pull * (base - weight)


def gradient(function: Callable[[], float], x: Array, eps: float = 1e-5) -> Array:
    """d function() / d x by central differences, element by element; x is moved in place and put back."""
    out, flat = np.empty_like(x), x.reshape(-1)
    for i, value in enumerate(flat):
        flat[i] = value + eps
        above = function()
        flat[i] = value - eps
        out.reshape(-1)[i] = (above - function()) / (2 * eps)
        flat[i] = value
    return out


def counted(entries: Sequence[Sequence[int]], history: Sequence[int], p: Array, gates: Array) -> Array:
    """Counts of contexts of 0 to 5 ids in ``entries``, mixed over p by gates [6 * 15, 2]; few ids follow each."""
    for order in range(min(5, len(history)) + 1):
        context = list(history[len(history) - order :])
        after = [e[t] for e in entries for t in range(max(1, order), len(e)) if list(e[t - order : t]) == context]
        if after:
            counts = np.bincount(after, minlength=len(p))
            size = min(4, math.ceil(math.log2(len(after))))
            variety = 3 if order == 0 else min(3, np.count_nonzero(counts))
            share = gates[order * 15 + size * 3 + variety - 1, 0]
            p = (1 - share) * p + share * counts / len(after)
    return p


def trusted(late: float, long: float, mixed: float, below: float) -> tuple[float, float]:
    """Sums of what the memory gained, in nats of at most 2 an id, that fade by a twentieth and by a two-hundredth."""
    gain = float(np.clip(np.log(max(mixed, 1e-30)) - np.log(max(below, 1e-30)), -2, 2))
    return 0.95 * late + gain, 0.995 * long + gain


def trust_row(late: float, long: float) -> int:
    """Cells of the table that two ladders of nats part, by rows of six, after that of a text that begins."""
    if (late, long) == (0, 0):
        return 0
    row = np.searchsorted([-2.5, -1.0, 0.5, 3.0, 8.0], long, side="right")
    return int(row) * 6 + int(np.searchsorted([-1.0, -0.3, 0.3, 1.5, 4.0], late, side="right")) + 1


def read_words(words: Array, repeats: int) -> int:
    return sum(int(np.sum(words ^ turn)) for turn in range(repeats))


def shared(
    sentences: Sequence[Sequence[str]], question: Sequence[str], n_tokens: int, prior: float, share: float
) -> Array:
    """What each sentence shares with the words of a question, one token each: nats above 4, fading backwards."""
    weights: dict[str, float] = {}
    for back, word in enumerate(reversed(question)):
        seen = sum(other == word for sentence in sentences for other in sentence)
        nats = max(0.0, math.log((n_tokens + prior) / (seen + prior * share + 1)) - 4) * 0.985**back
        if list(question).index(word) == len(question) - 1 - back:
            weights[word] = nats
    return np.array([sum(weights.get(word, 0.0) for word in set(sentence)) for sentence in sentences])


def strips(q: Array, scale: Array) -> tuple[Array, Array]:
    """Rows of numbers [M,C] and their scales [M,C/32], sixteen rows a strip, a lane each; rows that fill up are 0."""
    missing = -len(q) % 16
    q = np.pad(q, ((0, missing), (0, 0)), constant_values=128).reshape(-1, 16, q.shape[1] // 32, 8, 4)
    scale = np.pad(scale, ((0, missing), (0, 0))).reshape(-1, 16, scale.shape[1])
    return q.transpose(0, 2, 3, 1, 4).reshape(len(q), -1, 8, 64), scale.transpose(0, 2, 1).copy()


def ternary_strips(steps: Array) -> Array:
    """Rows of -1, 0 and 1 [M,C] as 2 bits around 2: of sixteen rows and 32 numbers, two registers of 64 bytes, where a
    byte holds a number of four groups of four."""
    n_rows, width = steps.shape
    q = np.zeros((-(-n_rows // 16), width // 32, 2, 64), np.uint8)
    for row in range(len(q) * 16):
        for column in range(width):
            number = int(steps[row, column]) + 2 if row < n_rows else 2
            half, group, j = column % 32 // 16, column % 16 // 4, column % 4
            q[row // 16, column // 32, half, 4 * (row % 16) + j] |= number << (2 * group)
    return q


def codes(x: Array, smallest: float = 1e-30) -> tuple[Array, Array]:
    """Numbers [...,C] as integers from -127 to 127, and the scale of 32 of them each."""
    runs = x.reshape(*x.shape[:-1], -1, 32)
    scale = np.maximum(np.abs(runs).max(-1) / 127, smallest)
    return np.floor(runs / scale[..., None] + 0.5).reshape(x.shape), scale


def coded(x: Array) -> Array:
    """What the integers of x stand for."""
    q, scale = codes(x)
    return q * scale.repeat(32, -1)


def integer_product(x: Array, w: Array) -> Array:
    return coded(x) @ w.T


def across(q: Array, scale: Array) -> tuple[Array, Array]:
    """Of integers around 128 [M,C] with a scale for 32 of a row, integers around 0 and scales of which squares of 32 by
    32 share one, the largest: a row's scale is taken as so many 128ths of it."""
    made, scales = np.zeros(q.shape, np.int64), np.zeros(q.shape)
    for row in range(0, len(q), 32):
        for run in range(scale.shape[1]):
            place = np.s_[row : row + 32, 32 * run : 32 * run + 32]
            own = scale[row : row + 32, run].astype(np.float64)
            shares = np.floor(own * 128 / (own.max() or 1) + 0.5)
            made[place] = np.floor((q[place] - 128.0) * shares[:, None] / 128 + 0.5)
            scales[place] = own.max()
    return made, scales


def integer_product_back(y: Array, q: Array, scale: Array) -> Array:
    """y [T,M] w, of w [M,C] integers around 128 with scales, all rounded as ``across`` and ``codes`` do."""
    made, scales = across(q, scale)
    return coded(np.pad(y, ((0, 0), (0, -len(q) % 32))))[:, : len(q)] @ (made * scales)


def head(x: Array, gain: Array, eps: float, w: Array) -> Array:
    return integer_product(rms(x, gain, eps), w)


def gated_delta(
    x: Array, matrices: Sequence[Array], gains: Sequence[Array], decay_: Array, state: Sequence[Array], eps: float
) -> tuple[Array, list[Array]]:
    """The residual stream after both sections, and their state; what the slope section counts begins at 0."""
    (w_in, w_out), (gain, taps, decay_bias, write_bias, rate, head_gain) = matrices, gains
    n, last, memories = state
    heads, key_dim, value_dim = memories.shape
    keys, values, n_slope, width = heads * key_dim, heads * value_dim, len(n), taps.shape[1]
    p = integer_product(rms(x, gain, eps), w_in)
    u, us, ud, raw = np.split(p, np.cumsum([width, n_slope, values]), axis=1)
    vs, qk, v = np.split(conv(u, taps, last), np.cumsum([n_slope, 2 * keys]), axis=1)
    m, _, _, n = slope(vs, decay_, np.zeros(n_slope), n)
    q, k = np.split(silu_l2(qk, 2 * heads, 1e-6), 2, axis=1)
    q, k, v = (part.reshape(len(x), heads, -1) for part in (q, k, silu(v)))
    o, memories = decay(q, k, v, *gates(raw, decay_bias, write_bias, rate), memories)
    mix = np.concatenate([m * silu(us), gated_norm(o.reshape(len(x), -1), head_gain, ud, eps)], 1)
    return x + integer_product(mix, w_out), [n, np.concatenate([last, u])[-3:], memories]


def block_ffn(
    x: Array, matrices: Sequence[Array], gains: Sequence[Array], max_awake: int, eps: float, router_eps: float
) -> tuple[Array, Array, Array]:
    """The residual stream after the blocks, and activations before and after the weakest were put to sleep."""
    gain, router, bias, log_gamma = gains
    h = rms(x, gain, eps)
    before, a = (route(h @ router, bias, log_gamma, n, router_eps) for n in (len(bias), max_awake))
    return x + _integer_blocks(h, a, *matrices), before, a


def top_k_ffn(
    x: Array, matrices: Sequence[Array], gains: Sequence[Array], max_awake: int, eps: float
) -> tuple[Array, Array, Array]:
    """The same with a softmax over the strongest."""
    gain, router, bias, log_gamma = gains
    h = rms(x, gain, eps)
    before, a = route_top_k(h @ router, bias, log_gamma, max_awake)
    return x + _integer_blocks(h, a, *matrices), before, a


def _integer_blocks(h: Array, a: Array, w1: Array, w2: Array, shared_w1: Array, shared_w2: Array) -> Array:
    y = integer_product(silu(integer_product(h, shared_w1)), shared_w2)
    for t in range(len(h)):
        for i in np.flatnonzero(a[t]):
            y[t] += a[t, i] * integer_product(silu(integer_product(h[t : t + 1], w1[i])), w2[i])[0]
    return y


def layer_norm(x: Array, gain: Array, bias: Array, eps: float) -> Array:
    return np.stack([(row - np.mean(row)) / math.sqrt(np.var(row) + eps) * gain + bias for row in x])


def mix(h: Array, before: Array, share: Array) -> Array:
    """Each token with its share of the one before it."""
    tokens = [before, *h]
    return np.stack([tokens[t + 1] + (tokens[t] - tokens[t + 1]) * share for t in range(len(h))])


def tanh(u: Array) -> Array:
    return (np.exp(u) - np.exp(-u)) / (np.exp(u) + np.exp(-u))


def kept(raw: Array, w0: Array, scale: float) -> Array:
    """Shares of a memory that are kept."""
    return np.exp(-scale * sigmoid(w0 + raw))


def keys(k: Array, a: Array, k_k: Array, k_a: Array, n_heads: int, least: float) -> tuple[Array, Array]:
    """Keys whose values are removed, and keys that are written."""
    removed = np.zeros_like(k)
    for t in range(len(k)):
        heads = (k[t] * k_k).reshape(n_heads, -1)
        removed[t] = np.concatenate([head / max(math.sqrt(np.sum(head**2)), least) for head in heads])
    return removed, k * (1 + (a - 1) * k_a)


def wkv(given: Sequence[Array], memory: Array) -> tuple[Array, Array]:
    """y [T,D] of r, keep, k, v, kk and a [T,D], and the memories after the last token."""
    y = np.zeros_like(given[0])
    n_heads, size = memory.shape[:2]
    memories = list(memory)
    for t in range(len(y)):
        for i in range(n_heads):
            part = slice(i * size, i * size + size)
            r, keep, k, v, kk, a = (x[t, part] for x in given)
            s = memories[i]
            memories[i] = np.diag(keep) @ s - np.outer(kk * a, kk @ s) + np.outer(k, v)
            y[t, part] = r @ memories[i]
    return y, np.stack(memories)


def read(y: Array, given: Sequence[Array], gain: Array, bias: Array, r_k: Array, eps: float) -> Array:
    """What is read of y [T,D] with r, k, v and g [T,D]: heads normed, with the token's own value, and gated."""
    n_heads, size = r_k.shape
    out = np.zeros_like(y)
    for t in range(len(y)):
        for i in range(n_heads):
            part = slice(i * size, i * size + size)
            r, k, v, g = (x[t, part] for x in given)
            normed = layer_norm(y[t : t + 1, part], gain[part], bias[part], eps)[0]
            out[t, part] = (normed + sum(r[j] * k[j] * r_k[i, j] for j in range(size)) * v) * g
    return out


def squared_relu(u: Array) -> tuple[Array, Array, Array]:
    """What is above 0, its square, and which neurons any token wakes."""
    above = np.array([[max(x, 0) for x in row] for row in u.tolist()])
    return above, above**2, np.array([any(x > 0 for x in column) for column in u.T])


def written(a: Array, w: Array) -> Array:
    """What neurons that are awake write: the sum of their rows of w [F,D]."""
    out = np.zeros((len(a), w.shape[1]))
    for t in range(len(a)):
        for i in np.flatnonzero(a[t]):
            out[t] += a[t, i] * w[i]
    return out


def time_mix(
    x: Array, matrices: Sequence[Array], mixes: Sequence[Array], gains: Sequence[Array], first: Array | None,
    state: Sequence[Array], numbers: Sequence[float],
) -> tuple[Array, Array, list[Array]]:  # fmt: skip
    """The residual stream after a layer's memories, v_first, and the state; ``first`` is None for the first layer."""
    (receptance, key, value, output, *small), (gain, bias, *shares), (before, memory) = matrices, mixes, state
    w0, a0, v0, k_k, k_a, r_k, head_gain, head_bias = gains
    h = layer_norm(x, gain, bias, numbers[0])
    h_r, h_w, h_k, h_v, h_a, h_g = (mix(h, before, share) for share in shares)
    r, k, v = (integer_product(*pair) for pair in ((h_r, receptance), (h_k, key), (h_v, value)))
    keep = kept(integer_product(tanh(integer_product(h_w, small[0])), small[1]), w0, numbers[2])
    a = sigmoid(a0 + integer_product(integer_product(h_a, small[2]), small[3]))
    share = sigmoid(v0 + integer_product(integer_product(h_v, small[4]), small[5]))
    g = integer_product(sigmoid(integer_product(h_g, small[6])), small[7])
    first = v if first is None else first
    v = v + (first - v) * share
    kk, k = keys(k, a, k_k, k_a, len(r_k), numbers[3])
    y, memory = wkv((r, keep, k, v, kk, a), memory)
    y = read(y, (r, k, v, g), head_gain, head_bias, r_k, numbers[1])
    return x + integer_product(y, output), first, [h[-1], memory]


def channel_mix(
    x: Array, matrices: Sequence[Array], gains: Sequence[Array], before: Array, eps: float
) -> tuple[Array, Array, Array]:
    """The residual stream after a layer's neurons, their activations, and h of the last token."""
    gain, bias, share = gains
    h = layer_norm(x, gain, bias, eps)
    a = squared_relu(integer_product(mix(h, before, share), matrices[0]))[1]
    return x + written(a, matrices[1]), a, h[-1]
