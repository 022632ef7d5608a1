"""Neuron blocks as small integers, made again when learning changed them (``edgelm/matrices/quantize.py``: int8)."""

from __future__ import annotations

import numpy as np

from edgelm.kernels.emit import LANES
from edgelm.kernels.jit import entry
from edgelm.kernels.norm import ONE, ZERO
from edgelm.kernels.signature import B1, F2, F3, U3
from edgelm.kernels.tile import RUN, widen

_STEPS, _MIDDLE, _TINY = np.float32(127), np.float32(128.5), np.float32(6e-8)


@entry(U3, F3, B1, F3)
def widen_blocks(q, scale, used, out):
    """out [M,R,C] = q [M,R,C] around 128 times scale [M,R,C/32] of the ``used`` blocks [M]; others stay."""
    n_rows, width = q.shape[1:]
    for i in range(q.shape[0]):
        if used[i]:
            for r in range(n_rows):
                for j in range(0, width, LANES):
                    place = (i * n_rows + r) * width + j
                    widen(q, place, scale[i, r, j // RUN], out, place)


@entry(F3, B1, U3, F2)
def quantize_blocks(weight, used, q, scale):
    """Runs of the ``used`` blocks [M] of weight [M,R,32] to q [M,R,32] around 128 and scale [M,R]; others stay."""
    for i in range(weight.shape[0]):
        if not used[i]:
            continue
        for r in range(weight.shape[1]):
            run, numbers = weight[i, r], q[i, r]
            largest = ZERO
            for j in range(run.shape[0]):
                size = abs(run[j])
                largest = size if size > largest else largest
            # A run of zeros must not divide by zero.
            step = max(largest / _STEPS, _TINY)
            scale[i, r] = step
            per_step = ONE / step
            for j in range(run.shape[0]):
                # Above 0, so that cutting off the fraction rounds.
                numbers[j] = np.uint8(np.int32(run[j] * per_step + _MIDDLE))
