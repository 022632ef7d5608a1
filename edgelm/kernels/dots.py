"""Products of integers with integers: weights uint8 around 128, activations int8, 32 numbers (a run) of each to a
scale.

To answer takes these, and so does to learn with frozen matrices, forward and back. With neuron blocks, and with
matrices of 2 bits, learning takes float32 activations (``edgelm/kernels/dense.py``, ``blocks.py``).

Weights stand in *strips* of 16 rows, a lane of a vector each: q [M/16,C/32,8,64] are, for each run, eight groups of
four numbers of each of the 16 rows; scale [M/16,C/32,16]. So the sums of 16 rows grow side by side, and nothing is
added up across a vector. ``strips`` makes them; rows that are missing in the last strip are 0.

A matrix of -1, 0 and 1 stands in strips too, of 2 bits a weight around 2: q [M/16,C/32,2,64], where a byte holds a
number of four groups, the first group's in its lowest bits; scale [1,1,1] is that of all. Whoever multiplies sees by
the third axis which of both it is.

Activations: ``codes`` are the bytes of int8, ``scales`` hold for each run its scale and -128 times the sum of its
codes, which takes off that weights stand around 128.
"""

from __future__ import annotations

import numpy as np

from edgelm.kernels.emit import LANES
from edgelm.kernels.emit_across import SHARES, emit_lay_across
from edgelm.kernels.emit_codes import emit_code_run
from edgelm.kernels.emit_dots import QUADS, emit_dot_strips
from edgelm.kernels.emit_ternary import emit_ternary_strips
from edgelm.kernels.jit import entry, kernel, lowered
from edgelm.kernels.norm import ONE, ZERO
from edgelm.kernels.signature import B1, F1, F2, F3, F4, J2, J4, J5, U1, U2, U4
from edgelm.kernels.tile import RUN, turn_tile

_STEPS, _MIDDLE, _TINY = np.float32(127), np.float32(128.5), np.float32(1e-30)
_SMALLEST = np.float32(6e-8)
STRIPS, TOKENS = 4, 4
"""Strips that one token passes together, and tokens that pass one strip together."""
LONG = 16
"""Runs of a strip from which on a token passes strips one by one: then a processor that reads ahead does it better."""


@lowered(emit_dot_strips, literals=2)
def dot_strips(n_strips, n_steps, q, scale, strip, n_runs, codes, scales, run0, out, o0, pitch):
    """out [n_steps,16 n_strips] += x w' of some strips w; the tokens of x begin at run run0, one after another, those
    of out at number o0, ``pitch`` numbers apart."""
    place = slice(strip * n_runs, (strip + n_strips) * n_runs)
    weights = q.reshape(-1, 8, LANES, 4)[place].reshape(n_strips, n_runs, 8, LANES, 4).astype(np.int32) - 128
    own, out = scale.reshape(-1, LANES)[place].reshape(n_strips, n_runs, LANES), out.reshape(-1)
    for t in range(n_steps):
        first = run0 + t * n_runs
        x = codes.reshape(-1, 8, 1, 4)[first : first + n_runs].view(np.int8)
        sums = (weights * x).sum((2, 4)).astype(np.float32)
        found = (sums * (own * scales.reshape(-1, 2)[first : first + n_runs, :1])).sum(1).reshape(-1)
        out[o0 + t * pitch : o0 + t * pitch + len(found)] += found


@lowered(emit_ternary_strips, literals=2)
def ternary_strips(n_strips, n_steps, q, scale, strip, n_runs, codes, scales, run0, out, o0, pitch):
    """As ``dot_strips``, of strips of 2 bits a weight."""
    shifts = np.arange(0, 8, 2, dtype=np.uint8).reshape(4, 1, 1)
    bits = q.reshape(-1, n_runs, 2, 1, LANES, 4)[strip : strip + n_strips] >> shifts
    weights, out = (bits & 3).reshape(-1, n_runs, 8, LANES, 4).astype(np.int32) - 2, out.reshape(-1)
    for t in range(n_steps):
        first = run0 + t * n_runs
        x = codes.reshape(-1, 8, 1, 4)[first : first + n_runs].view(np.int8)
        sums = (weights * x).sum((2, 4)).astype(np.float32)
        found = (sums * scales.reshape(-1, 2)[first : first + n_runs, :1]).sum(1).reshape(-1) * scale.reshape(-1)[0]
        out[o0 + t * pitch : o0 + t * pitch + len(found)] += found


@kernel
def _tokens_times_strip(q, scale, strip, codes, scales, run0, out, o0, pitch):
    """Four tokens and one strip, of either kind."""
    if q.shape[2] == QUADS:
        dot_strips(1, 4, q, scale, strip, q.shape[1], codes, scales, run0, out, o0, pitch)
    else:
        ternary_strips(1, 4, q, scale, strip, q.shape[1], codes, scales, run0, out, o0, pitch)


@kernel
def _token_times_strips(q, scale, strip, codes, scales, run0, out, o0):
    """One token and four strips."""
    if q.shape[2] == QUADS:
        dot_strips(4, 1, q, scale, strip, q.shape[1], codes, scales, run0, out, o0, 0)
    else:
        ternary_strips(4, 1, q, scale, strip, q.shape[1], codes, scales, run0, out, o0, 0)


@kernel
def _token_times_strip(q, scale, strip, codes, scales, run0, out, o0):
    """One token and one strip."""
    if q.shape[2] == QUADS:
        dot_strips(1, 1, q, scale, strip, q.shape[1], codes, scales, run0, out, o0, 0)
    else:
        ternary_strips(1, 1, q, scale, strip, q.shape[1], codes, scales, run0, out, o0, 0)


@lowered(emit_code_run, literals=1)
def code_run(signed, x, x0, smallest, codes, c0, out, o0):
    """A run of x, from number x0 on, as codes, from byte c0 on: the largest becomes 127; out[o0] is their scale, at
    least ``smallest``.

    ``signed``: the codes are the bytes of int8, out[o0 + 1] is -128 times their sum, and what is not finite makes the
    scale no number. Else they are uint8 around 128.
    """
    numbers = x.reshape(-1)[x0 : x0 + RUN]
    step = max(np.fmax.reduce(np.abs(numbers)) / _STEPS, smallest)
    with np.errstate(invalid="ignore"):  # of what is no number
        found = (numbers * (ONE / step) + _MIDDLE).astype(np.int32)
    codes.reshape(-1)[c0 : c0 + RUN] = (found ^ 128 if signed else found).astype(np.uint8)
    out.reshape(-1)[o0] = step + (numbers * ZERO).sum() if signed else step
    if signed:
        out.reshape(-1)[o0 + 1] = np.float32(-128) * np.float32((found - 128).sum())


@kernel
def quantize(x, x0, n_runs, codes, run0, scales):
    """x from number x0 on as integers, from run ``run0`` on. What is not finite shows in the scale."""
    for run in range(n_runs):
        code_run(True, x, x0 + run * RUN, _TINY, codes, (run0 + run) * RUN, scales, 2 * (run0 + run))


@kernel
def add_product(q, scale, n_rows, codes, scales, run0, n_steps, out, o0):
    """out [T,n_rows], from number o0 on, += x w', of the whole strips of w and of T tokens of x, one after another from
    run run0 on."""
    n_runs, whole = q.shape[1], n_rows // LANES
    strip, many = 0, n_steps - n_steps % TOKENS
    while strip < whole:
        n = 1 if whole - strip < STRIPS or n_runs >= LONG else STRIPS
        for t in range(0, many, TOKENS):
            run, place = run0 + t * n_runs, o0 + t * n_rows + strip * LANES
            for s in range(n):
                _tokens_times_strip(q, scale, strip + s, codes, scales, run, out, place + s * LANES, n_rows)
        for t in range(many, n_steps):
            run, place = run0 + t * n_runs, o0 + t * n_rows + strip * LANES
            if n == STRIPS:
                _token_times_strips(q, scale, strip, codes, scales, run, out, place)
            else:
                _token_times_strip(q, scale, strip, codes, scales, run, out, place)
        strip += n


@kernel
def add_products(q, scale, codes, scales, out, spare):
    """out [T,M] += x w' of any number of rows M, of T tokens of x from run 0 on. ``spare`` has 16 numbers, which are
    overwritten."""
    (n_steps, n_rows), n_runs = out.shape, q.shape[1]
    add_product(q, scale, n_rows, codes, scales, 0, n_steps, out, 0)
    whole = n_rows // LANES
    first = whole * LANES
    for t in range(n_steps if first < n_rows else 0):
        spare[:LANES] = 0
        _token_times_strip(q, scale, whole, codes, scales, t * n_runs, spare, 0)
        for j in range(n_rows - first):
            out[t, first + j] += spare[j]


@entry(F2, U4, F3, U1, F1, F1, F2)
def integer_product(x, q, scale, codes, scales, spare, out):
    """out [T,M] = x [T,C] w', of w [M,C] in strips; codes [T C], scales [T C/16] and spare [16] are overwritten."""
    n_steps, n_runs = len(x), q.shape[1]
    for t in range(n_steps):
        quantize(x[t], 0, n_runs, codes, t * n_runs, scales)
    out[:] = 0
    add_products(q, scale, codes, scales, out, spare)


@lowered(emit_lay_across, literals=1)
def lay_across(n_strips, q, scale, q0, q_pitch, out, out_scale, out0, out_pitch):
    """A run of one or two strips, 16 or 32 rows of 32 numbers, as one run of two strips of its transpose.

    The run of a strip has 512 bytes of q, from byte q0 on, and the 16 scales that belong to them; those of a second
    strip stand ``q_pitch`` bytes further, and likewise in ``out``. What shares a scale stands along the other axis now:
    all 1,024 numbers get the largest scale, and a row's is taken as so many 128ths of it. Where there is no second
    strip its numbers are 0.
    """
    starts = [(q0 + n * q_pitch) // 32 for n in range(n_strips)]
    own = [scale.reshape(-1)[start : start + LANES] for start in starts]
    most = np.concatenate(own).max()
    shares = [(s * (np.float32(SHARES) / (most if most > 0 else ONE)) + np.float32(0.5)).astype(np.int32) for s in own]
    made = np.full((2, 8, LANES, 4), 128, np.uint8)  # half of the 32 columns, four of the 32 rows, column, row
    for n in range(n_strips):
        read = q.reshape(-1)[q0 + n * q_pitch :][:512].reshape(2, 4, LANES, 4).astype(np.int32) - 128
        found = (read * shares[n][:, None] + int(SHARES) // 2) // int(SHARES) + 128
        parts = found.reshape(2, 4, 4, 4, 4)  # half, four of its 16 columns, four of the 16 rows, row, column
        made[:, 4 * n : 4 * n + 4] = parts.transpose(0, 2, 1, 4, 3).reshape(2, 4, LANES, 4)
    for i in range(2):
        first = out0 + i * out_pitch
        out.reshape(-1)[first : first + 512] = made[i].reshape(-1)
        out_scale.reshape(-1)[first // 32 : first // 32 + LANES] = most


ACROSS = 8
"""Runs of rows that are laid across at a time."""


@entry(F2, U4, F3, U1, F1, U4, F3, F1, F2)
def integer_product_back(y, q, scale, codes, scales, turned, turned_scale, spare, out):
    """out [T,C] = y [T,M] w, of w [M,C] in strips: as ``integer_product`` of the transpose, made a part at a time.

    Overwritten are codes [256 T], scales [16 T], turned [2,8,8,64], turned_scale [2,8,16] and spare [32].
    """
    (n_steps, n_rows), n_runs, n_strips = y.shape, q.shape[1], len(q)
    out[:] = 0
    for first in range(0, n_rows, ACROSS * RUN):
        n = min(ACROSS, (n_rows - first + RUN - 1) // RUN)
        for t in range(n_steps):
            _quantize_part(y[t], first, n, spare, codes, t * n, scales)
        for run in range(n_runs):
            for k in range(n):
                strip = first // LANES + 2 * k
                q0 = (strip * n_runs + run) * 512
                if strip + 1 < n_strips:
                    lay_across(2, q, scale, q0, n_runs * 512, turned, turned_scale, k * 512, n * 512)
                else:
                    lay_across(1, q, scale, q0, n_runs * 512, turned, turned_scale, k * 512, n * 512)
            for half in range(2):
                for t in range(0, n_steps - n_steps % TOKENS, TOKENS):
                    o0 = t * out.shape[1] + run * RUN + half * LANES
                    dot_strips(1, 4, turned, turned_scale, half, n, codes, scales, t * n, out, o0, out.shape[1])
                for t in range(n_steps - n_steps % TOKENS, n_steps):
                    o0 = t * out.shape[1] + run * RUN + half * LANES
                    dot_strips(1, 1, turned, turned_scale, half, n, codes, scales, t * n, out, o0, 0)


@kernel
def _quantize_part(y, first, n, spare, codes, run0, scales):
    """n runs of y [M] from number ``first`` on; what is missing in the last is 0."""
    whole = min(n, (len(y) - first) // RUN)
    quantize(y, first, whole, codes, run0, scales)
    if whole < n:
        spare[:RUN] = 0
        for j in range(first + whole * RUN, len(y)):
            spare[j - first - whole * RUN] = y[j]
        quantize(spare, 0, 1, codes, run0 + whole, scales)


@entry(J2, F2, J4, F3)
def strips(words, scale, q, strip_scale):
    """A matrix of integers in strips: words [M,C/4] are the bytes of its numbers as int32, scale [M,C/32]; of q
    [M/16,C/32,8,16], of int32 too, and strip_scale [M/16,C/32,16] what the rows fill is overwritten."""
    for strip in range(len(q)):
        n = min(LANES, len(words) - strip * LANES)
        _in_strip(words[strip * LANES :], n, q[strip])
        for lane in range(n):
            for run in range(scale.shape[1]):
                strip_scale[strip, run, lane] = scale[strip * LANES + lane, run]


@kernel
def _in_strip(words, n_rows, q):
    """One strip q [C/32,8,16] of rows words [.., C/4] of int32."""
    width = words.shape[1]
    if n_rows == LANES:
        for column in range(0, width, 4):
            for lane in range(0, LANES, 4):
                turn_tile(4, words, lane * width + column, width, q, column * LANES + lane, LANES)
    else:
        for column in range(width):
            out = q[column // 8, column % 8]
            for lane in range(n_rows):
                out[lane] = words[lane, column]


@entry(F3, B1, U2, J2, J5, F4)
def quantize_strips(weight, used, codes, words, q, scale):
    """The ``used`` blocks [M] of weight [M,R,C] as integers in strips; others stay. R is a multiple of 16.

    q [M,R/16,C/32,8,16] are the bytes of uint8 around 128 as int32, scale [M,R/16,C/32,16]. codes [R,C] are
    overwritten; words [R,C/4] of int32 are the same memory.
    """
    n_rows, n_runs = weight.shape[1], weight.shape[2] // RUN
    for i in range(len(weight)):
        if not used[i]:
            continue
        for r in range(n_rows):
            for run in range(n_runs):
                at = ((i * n_rows + r - r % LANES) * n_runs + run * LANES) + r % LANES
                first = (r * n_runs + run) * RUN
                # A run of zeros must not divide by zero.
                code_run(False, weight, i * n_rows * n_runs * RUN + first, _SMALLEST, codes, first, scale, at)
        for strip in range(n_rows // LANES):
            _in_strip(words[strip * LANES :], LANES, q[i, strip])
