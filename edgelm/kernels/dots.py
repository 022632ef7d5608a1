"""Products of integers with integers: weights uint8 around 128, activations int8, 32 numbers (a run) of each to a
scale.

To answer takes these, to learn takes float32 activations (``edgelm/kernels/dense.py``).

Weights stand in *strips* of 16 rows, a lane of a vector each: q [M/16,C/32,8,64] are, for each run, eight groups of
four numbers of each of the 16 rows; scale [M/16,C/32,16]. So the sums of 16 rows grow side by side, and nothing is
added up across a vector. ``strips`` makes them; rows that are missing in the last strip are 0.

Activations: ``codes`` are the bytes of int8, ``scales`` hold for each run its scale and -128 times the sum of its
codes, which takes off that weights stand around 128.
"""

from __future__ import annotations

import numpy as np

from edgelm.kernels.emit import LANES
from edgelm.kernels.emit_dots import emit_dot_strips
from edgelm.kernels.jit import entry, kernel, lowered
from edgelm.kernels.norm import ONE, ZERO
from edgelm.kernels.signature import B1, F1, F2, F3, F4, J2, J4, U1, U4, U5
from edgelm.kernels.tile import RUN

_STEPS, _MIDDLE, _TINY = np.float32(127), np.float32(128.5), np.float32(1e-30)
STRIPS, TOKENS = 4, 4
"""Strips that one token passes together, and tokens that pass one strip together."""


@lowered(emit_dot_strips, literals=2)
def dot_strips(n_strips, n_steps, q, scale, strip, n_runs, codes, scales, run0, out, o0, pitch):
    """out [n_steps,16 n_strips] += x w' of some strips w; the tokens of x begin at run run0, one after another, those
    of out at number o0, ``pitch`` numbers apart."""
    weights, out = q.reshape(-1, n_runs, 8, LANES, 4)[strip : strip + n_strips].astype(np.int32) - 128, out.reshape(-1)
    own = scale.reshape(-1, n_runs, LANES)[strip : strip + n_strips]
    for t in range(n_steps):
        first = run0 + t * n_runs
        x = codes.reshape(-1, 8, 1, 4)[first : first + n_runs].view(np.int8)
        sums = (weights * x).sum((2, 4)).astype(np.float32)
        found = (sums * (own * scales.reshape(-1, 2)[first : first + n_runs, :1])).sum(1).reshape(-1)
        out[o0 + t * pitch : o0 + t * pitch + len(found)] += found


@kernel
def quantize(x, x0, n_runs, codes, run0, scales):
    """x from number x0 on as integers, from run ``run0`` on: the largest of a run becomes 127. What is not finite stays
    so, in the scale."""
    for run in range(n_runs):
        numbers, bytes_ = x[x0 + run * RUN : x0 + (run + 1) * RUN], codes[(run0 + run) * RUN : (run0 + run + 1) * RUN]
        largest, nothing = ZERO, ZERO
        for j in range(RUN):
            size = abs(numbers[j])
            largest = size if size > largest else largest
            nothing += numbers[j] * ZERO
        step = max(largest / _STEPS, _TINY)
        per_step = ONE / step
        total = ZERO
        for j in range(RUN):
            # Above 0, so that cutting off the fraction rounds.
            code = np.int32(numbers[j] * per_step + _MIDDLE) - np.int32(128)
            bytes_[j] = np.uint8(code)
            total += np.float32(code)
        scales[2 * (run0 + run)] = step + nothing
        scales[2 * (run0 + run) + 1] = np.float32(-128) * total


@kernel
def add_product(q, scale, n_rows, codes, scales, run0, n_steps, out, o0, spare):
    """out [T,n_rows], from number o0 on, += x w', of w in strips and of T tokens of x, one after another from run run0
    on. ``spare`` has 16 numbers, which are overwritten."""
    n_runs, whole = q.shape[1], n_rows // LANES
    strip, many = 0, n_steps - n_steps % TOKENS
    while strip < whole:
        n = 1 if whole - strip < STRIPS else STRIPS
        for t in range(0, many, TOKENS):
            run, place = run0 + t * n_runs, o0 + t * n_rows + strip * LANES
            for s in range(n):
                dot_strips(1, 4, q, scale, strip + s, n_runs, codes, scales, run, out, place + s * LANES, n_rows)
        for t in range(many, n_steps):
            run, place = run0 + t * n_runs, o0 + t * n_rows + strip * LANES
            if n == STRIPS:
                dot_strips(4, 1, q, scale, strip, n_runs, codes, scales, run, out, place, n_rows)
            else:
                dot_strips(1, 1, q, scale, strip, n_runs, codes, scales, run, out, place, n_rows)
        strip += n
    rest, flat = n_rows - whole * LANES, out.reshape(-1)
    for t in range(n_steps if rest > 0 else 0):
        spare[:LANES] = 0
        dot_strips(1, 1, q, scale, whole, n_runs, codes, scales, run0 + t * n_runs, spare, 0, 0)
        for j in range(rest):
            flat[o0 + t * n_rows + whole * LANES + j] += spare[j]


@entry(F2, U4, F3, U1, F1, F1, F2)
def integer_product(x, q, scale, codes, scales, spare, out):
    """out [T,M] = x [T,C] w', of w [M,C] in strips; codes [T C], scales [T C/16] and spare [16] are overwritten."""
    n_steps, n_runs = len(x), q.shape[1]
    for t in range(n_steps):
        quantize(x[t], 0, n_runs, codes, t * n_runs, scales)
    out[:] = 0
    add_product(q, scale, out.shape[1], codes, scales, 0, n_steps, out, 0, spare)


@entry(J2, F2, J4, F3)
def strips(words, scale, q, strip_scale):
    """A matrix of integers in strips: words [M,C/4] are the bytes of its numbers as int32, scale [M,C/32]; of q
    [M/16,C/32,8,16] and strip_scale [M/16,C/32,16] what the rows fill is overwritten."""
    n_runs = scale.shape[1]
    for r in range(len(words)):
        strip, lane = r // LANES, r % LANES
        for run in range(n_runs):
            strip_scale[strip, run, lane] = scale[r, run]
            for group in range(8):
                q[strip, run, group, lane] = words[r, 8 * run + group]


@entry(F3, B1, U5, F4)
def quantize_strips(weight, used, q, scale):
    """The ``used`` blocks [M] of weight [M,R,C] as integers in strips, q [M,R/16,C/32,8,64] and scale [M,R/16,C/32,16];
    others stay. R is a multiple of 16."""
    n_rows, n_runs = weight.shape[1], weight.shape[2] // RUN
    for i in range(len(weight)):
        if not used[i]:
            continue
        for r in range(n_rows):
            strip, lane = r // LANES, r % LANES
            for run in range(n_runs):
                numbers = weight[i, r]
                largest = ZERO
                for j in range(RUN):
                    size = abs(numbers[run * RUN + j])
                    largest = size if size > largest else largest
                step = max(largest / _STEPS, np.float32(6e-8))
                scale[i, strip, run, lane] = step
                per_step = ONE / step
                for group in range(8):
                    for j in range(4):
                        number = numbers[run * RUN + 4 * group + j] * per_step + _MIDDLE
                        q[i, strip, run, group, 4 * lane + j] = np.uint8(np.int32(number))
