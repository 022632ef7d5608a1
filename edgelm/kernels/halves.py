"""Changes of weights in 16 bits (IEEE 754 binary16), which arrays of kernels hold as uint16."""

from __future__ import annotations

import numpy as np

from edgelm.kernels.emit_halves import emit_add_halves, emit_step_halves
from edgelm.kernels.jit import lowered


@lowered(emit_add_halves, literals=1)
def add_halves(lanes, halves, h0, out, o0):
    """out [lanes] of float32, from number o0 on, += halves, from number h0 on."""
    out.reshape(-1)[o0 : o0 + lanes] += halves.reshape(-1)[h0 : h0 + lanes].view(np.float16).astype(np.float32)


@lowered(emit_step_halves, literals=1)
def step_halves(lanes, grad, g0, rate, pull, halves, h0):
    """halves [lanes], from number h0 on, <- halves - rate grad - pull halves, rounded once, to the nearest; what is
    too large becomes infinite."""
    place = halves.reshape(-1)[h0 : h0 + lanes]
    now = place.view(np.float16).astype(np.float32)
    with np.errstate(over="ignore"):
        place[:] = (now - (pull * now + rate * grad[g0 : g0 + lanes])).astype(np.float16).view(np.uint16)
